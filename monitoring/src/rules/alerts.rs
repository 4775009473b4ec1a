//! The alerts.
//!
//! A ratio alone would wake someone for one slow reading at night: every ratio has a minimum of
//! traffic beside it. Mistakes of clients and single devices never page.

use schema::clock::Stage;
use schema::metric::{self, Metric};
use schema::topology;

use super::recorded::{self, increase, outcomes, slow, timed};
use super::series::{broker, flat, front, grows, series, stage, steps, worker};
use super::{Alert, Fault, OBJECTIVE, Severity};
use crate::dashboards::{BROKER, FRONT_END, OVERVIEW, WORKER};
use crate::promql::{DEPLOYMENT, bucket, count, per_deployment};

/// Readings that a window of the latency objective needs.
const MIN_READINGS: u32 = 1_000;
/// How far ahead the alerts look that something will be full, in seconds.
const AHEAD: u32 = 4 * 3_600;
/// A bound is not near below this part of it, however fast it fills.
const NEAR: f64 = 0.1;
/// Above this part a bound counts as reached, although nothing grows any more.
const FULL: f64 = 0.9;

/// Every alert, with the most urgent ones first.
pub fn all() -> Vec<Alert> {
    let mut alerts = latency();
    alerts.extend(availability());
    alerts.extend(capacity());
    alerts.extend(data());
    alerts.extend(slow_faults());
    alerts
}

fn fault(series: impl Into<Vec<(String, String)>>, after: &'static str) -> Fault {
    Fault {
        series: series.into(),
        after,
        fires: &[&[]],
        also: &[],
    }
}

fn latency() -> Vec<Alert> {
    let budget = 1.0 - OBJECTIVE;
    let burn = |factor: f64, long: &str, short: &str| {
        let limit = format!("{:.4}", factor * budget);
        format!(
            "{} > {limit}\nand {} > {limit}\nand {} > {MIN_READINGS}",
            slow(long),
            slow(short),
            timed(long)
        )
    };
    // Of 1,200 readings a minute, this many are too slow.
    let too_slow = |readings: u32| vec![(stage("5"), grows(1_200 - readings))];
    let panel = (OVERVIEW, "Too slow, 3 days");
    vec![
        Alert {
            name: "GridwatchLatencyBurnsFast",
            severity: Severity::Page,
            query: burn(14.4, "1h", "5m"),
            pending: "2m",
            summary: "Readings are stored late: over 1.4 % took more than 5 s in the last hour. At \
                      this rate the month's budget is used up in two days.",
            panel,
            labels: &[],
            fault: Fault {
                also: &["GridwatchLatencyBurns", "GridwatchLatencyBurnsSlowly"],
                ..fault(too_slow(60), "2h")
            },
        },
        Alert {
            name: "GridwatchLatencyBurns",
            severity: Severity::Page,
            query: burn(6.0, "6h", "30m"),
            pending: "15m",
            summary: "Readings are stored late: over 0.6 % took more than 5 s in the last six \
                      hours. At this rate the month's budget is used up in five days.",
            panel,
            labels: &[],
            fault: Fault {
                also: &["GridwatchLatencyBurnsSlowly"],
                ..fault(too_slow(10), "7h")
            },
        },
        Alert {
            name: "GridwatchLatencyBurnsSlowly",
            severity: Severity::Ticket,
            query: burn(1.0, "3d", "6h"),
            pending: "1h",
            summary: "Over 0.1 % of the readings of three days took more than 5 s to be stored. If \
                      this goes on, the objective of the month is missed.",
            panel,
            labels: &[],
            fault: fault(too_slow(3), "9h"),
        },
    ]
}

fn availability() -> Vec<Alert> {
    let requests = |matchers: &str| {
        let listener = format!(r#"{}="readings""#, metric::LABEL_LISTENER);
        let name = metric::HTTP_REQUESTS.name;
        per_deployment(&format!("increase({name}{{{listener}{matchers}}}[10m])"))
    };
    // Queries of standalone are on the same port, and get 504 when they take too long.
    let failed = requests(&format!(r#", {}=~"500|503""#, metric::LABEL_STATUS));
    let status = |status: &str| {
        let labels = (metric::LABEL_LISTENER, metric::LABEL_STATUS);
        format!(r#"{}="readings", {}="{status}""#, labels.0, labels.1)
    };
    let down = |job: &str, instance: &str| (series("up", job, instance, ""), flat(0));
    vec![
        Alert {
            name: "GridwatchServiceDown",
            severity: Severity::Page,
            query: format!("max by ({DEPLOYMENT}, job) (up{{{DEPLOYMENT}!=\"\"}}) == 0"),
            pending: "2m",
            summary: "No process of {{ $labels.job }} can be scraped: all of them are down, or the \
                      network is.",
            panel: (OVERVIEW, "Not ready"),
            labels: &["job"],
            fault: Fault {
                fires: &[&["worker"]],
                also: &["GridwatchTargetDown"],
                ..fault([down("worker", "worker-1")], "10m")
            },
        },
        Alert {
            name: "GridwatchNotReady",
            severity: Severity::Page,
            query: format!("max by ({DEPLOYMENT}, job) ({}) == 0", metric::READY.name),
            pending: "5m",
            summary: "No process of {{ $labels.job }} is ready: each runs, and cannot do its work.",
            panel: (OVERVIEW, "Not ready"),
            labels: &["job"],
            fault: Fault {
                fires: &[&["worker"]],
                ..fault([(worker(metric::READY, ""), flat(0))], "10m")
            },
        },
        Alert {
            name: "GridwatchRequestsFail",
            severity: Severity::Page,
            query: format!(
                "{failed} / {} > 0.05\nand {} > 100",
                requests(""),
                requests("")
            ),
            pending: "5m",
            summary: "Over 5 % of the requests with readings got 500 or 503: devices have to \
                      send them again.",
            panel: (FRONT_END, "Requests by status"),
            labels: &[],
            fault: fault(
                [(front(metric::HTTP_REQUESTS, &status("503")), grows(20))],
                "30m",
            ),
        },
        Alert {
            name: "GridwatchBrokerAlarm",
            severity: Severity::Page,
            query: format!(
                "max by ({DEPLOYMENT}) (rabbitmq_alarms_memory_used_watermark) > 0\n\
                 or max by ({DEPLOYMENT}) (rabbitmq_alarms_free_disk_space_watermark) > 0"
            ),
            pending: "1m",
            summary: "RabbitMQ is out of memory or disk and accepts no messages.",
            panel: (BROKER, "Alarms"),
            labels: &[],
            fault: fault(
                [(broker("rabbitmq_alarms_memory_used_watermark", ""), flat(1))],
                "10m",
            ),
        },
        Alert {
            name: "GridwatchTargetDown",
            severity: Severity::Ticket,
            query: format!("up{{{DEPLOYMENT}!=\"\"}} == 0"),
            pending: "5m",
            summary: "{{ $labels.instance }} of {{ $labels.job }} cannot be scraped: it is down, \
                      or the network is.",
            panel: (OVERVIEW, "Not ready"),
            labels: &["job", "instance"],
            fault: Fault {
                fires: &[&["ingest-api", "front-1"]],
                ..fault([down("ingest-api", "front-1")], "10m")
            },
        },
        Alert {
            name: "GridwatchDegraded",
            severity: Severity::Ticket,
            query: format!(
                "max by ({DEPLOYMENT}, job, instance) ({}) == 1",
                metric::DEGRADED.name
            ),
            pending: "10m",
            summary: "{{ $labels.instance }} of {{ $labels.job }} has used a fallback for 10 \
                      minutes: a part is down.",
            panel: (OVERVIEW, "Degraded"),
            labels: &["job", "instance"],
            fault: Fault {
                fires: &[&["ingest-api", "front-1"]],
                ..fault([(front(metric::DEGRADED, ""), flat(1))], "20m")
            },
        },
    ]
}

fn capacity() -> Vec<Alert> {
    let spool = metric::SPOOL_BYTES.name;
    let spool_max = metric::SPOOL_MAX_BYTES.name;
    let disk = metric::SPOOL_DISK_FREE.name;
    let queue = format!(
        "rabbitmq_queue_messages_bytes{{{}}}",
        recorded::readings_queue()
    );
    let queue_max = topology::MAX_QUEUE_BYTES;
    let (broker_disk, broker_limit) = (
        "rabbitmq_disk_space_available_bytes",
        "rabbitmq_disk_space_available_limit_bytes",
    );
    let queue_labels = recorded::readings_queue();
    vec![
        Alert {
            name: "GridwatchBacklogGrows",
            severity: Severity::Page,
            query: format!(
                "{} > 120\nand deriv({}[15m]) > 0\nand {} > {MIN_READINGS}",
                recorded::BACKLOG_SECONDS,
                recorded::BACKLOG,
                recorded::BACKLOG
            ),
            pending: "10m",
            summary: "Readings are accepted faster than they are stored: over two minutes of them \
                      wait, and it is getting more. None is lost.",
            panel: (OVERVIEW, "Backlog"),
            labels: &[],
            fault: Fault {
                // Every worker ends.
                series: vec![
                    (worker(metric::PERSISTED, ""), "0+1200x5".into()),
                    (worker(metric::WORKER_UNSETTLED, ""), "0x5".into()),
                    (
                        broker("rabbitmq_queue_messages_ready", &queue_labels),
                        grows(120),
                    ),
                ],
                ..fault([], "40m")
            },
        },
        Alert {
            name: "GridwatchSpoolFullIn4Hours",
            severity: Severity::Page,
            // A front end that has run for less than an hour has no trend.
            query: format!(
                "predict_linear({spool}[1h], {AHEAD}) > {spool_max}\n\
                 and {spool} > {NEAR} * {spool_max}\nand {spool} offset 1h >= 0\n\
                 or {spool} > {FULL} * {spool_max}"
            ),
            pending: "10m",
            summary: "The spool of {{ $labels.instance }} will be full in four hours: from then on \
                      devices get 503.",
            panel: (FRONT_END, "Spool"),
            labels: &["job", "instance"],
            fault: Fault {
                fires: &[&["ingest-api", "front-1"]],
                ..fault([(front(metric::SPOOL_BYTES, ""), grows(15_000_000))], "90m")
            },
        },
        Alert {
            name: "GridwatchSpoolDiskFullIn4Hours",
            severity: Severity::Page,
            query: format!(
                "predict_linear({disk}[1h], {AHEAD}) < 0\nand {disk} offset 1h > {disk}"
            ),
            pending: "15m",
            summary: "The disk of the spool of {{ $labels.instance }} will be full in four hours.",
            panel: (FRONT_END, "Disk of the spool"),
            labels: &["job", "instance"],
            fault: Fault {
                fires: &[&["ingest-api", "front-1"]],
                ..fault(
                    [(
                        front(metric::SPOOL_DISK_FREE, ""),
                        "50000000000-250000000x180".into(),
                    )],
                    "100m",
                )
            },
        },
        Alert {
            name: "GridwatchQueueFullIn4Hours",
            severity: Severity::Page,
            query: format!(
                "predict_linear({queue}[1h], {AHEAD}) > {queue_max}\n\
                 and {queue} > {NEAR} * {queue_max}\nand {queue} offset 1h >= 0\n\
                 or {queue} > {FULL} * {queue_max}"
            ),
            pending: "10m",
            summary: "The queue of RabbitMQ will be full in four hours: from then on devices get \
                      503, or readings go to the spool.",
            panel: (BROKER, "Bytes in the queues"),
            labels: &["job", "instance", "queue"],
            fault: Fault {
                fires: &[&["rabbitmq", "broker-1", topology::READINGS]],
                ..fault(
                    [(
                        broker("rabbitmq_queue_messages_bytes", &queue_labels),
                        grows(30_000_000),
                    )],
                    "90m",
                )
            },
        },
        Alert {
            name: "GridwatchBrokerDiskFullIn4Hours",
            severity: Severity::Page,
            query: format!(
                "predict_linear({broker_disk}[1h], {AHEAD}) < {broker_limit}\n\
                 and {broker_disk} offset 1h > {broker_disk}"
            ),
            pending: "15m",
            summary: "The disk of RabbitMQ on {{ $labels.instance }} will be at its limit in four \
                      hours: from then on RabbitMQ accepts no messages.",
            panel: (BROKER, "Free disk"),
            labels: &["job", "instance"],
            fault: Fault {
                fires: &[&["rabbitmq", "broker-1"]],
                ..fault(
                    [(broker(broker_disk, ""), "50000000000-250000000x180".into())],
                    "100m",
                )
            },
        },
    ]
}

fn data() -> Vec<Alert> {
    let rejected = increase("1h", metric::REJECTED);
    let conflicts = increase("1h", metric::CONFLICT);
    vec![
        Alert {
            name: "GridwatchBooksOutOfBalance",
            severity: Severity::Page,
            // A reading that is counted between two lines of a scrape is a difference for that
            // scrape. One that lasts for half an hour is not. What waits in the queue is estimated,
            // so that the second part needs an hour in which little waited. A reading that was not
            // confirmed in time may be stored.
            query: format!(
                "min_over_time({front}[30m]) > 0 or max_over_time({front}[30m]) < 0\n\
                 or abs({pipeline}) > 0.02 * {accepted} + ({unconfirmed} or 0 * {accepted})\n\
                 and max_over_time({backlog}[1h]) < 0.02 * {accepted}\n\
                 and {accepted} > 10 * {MIN_READINGS}",
                front = recorded::FRONT_END_DIFFERENCE,
                pipeline = recorded::PIPELINE_DIFFERENCE,
                backlog = recorded::BACKLOG,
                accepted = increase("1h", metric::ACCEPTED),
                unconfirmed = per_deployment(&format!(
                    "increase({}{{{}=\"unconfirmed\"}}[1h])",
                    metric::UNAVAILABLE.name,
                    metric::LABEL_REASON
                )),
            ),
            pending: "30m",
            summary: "The counts of readings do not add up: readings may be lost, or counted \
                      wrongly.",
            panel: (OVERVIEW, "Do the books balance"),
            labels: &[],
            fault: fault([(worker(metric::PERSISTED, ""), grows(1_100))], "3h"),
        },
        Alert {
            name: "GridwatchDeadLetters",
            severity: Severity::Ticket,
            query: format!("{} > 0", increase("1h", metric::DEAD_LETTERED)),
            pending: "0m",
            summary: "PostgreSQL refused readings that devices may have forgotten. They are kept \
                      in the table dead_letter.",
            panel: (WORKER, "Outcomes"),
            labels: &[],
            fault: fault(
                [(worker(metric::DEAD_LETTERED, ""), steps(0, 10, 5))],
                "30m",
            ),
        },
        Alert {
            name: "GridwatchPoisonMessages",
            severity: Severity::Ticket,
            query: format!("{} > 0", increase("1h", metric::POISON_MESSAGES)),
            pending: "0m",
            summary: "The queue had messages that are not batches of readings. They are kept in \
                      the queue gridwatch.dead-letters.",
            panel: (WORKER, "Poison messages"),
            labels: &[],
            fault: fault(
                [(
                    worker(metric::POISON_MESSAGES, r#"code="empty_message""#),
                    steps(0, 10, 1),
                )],
                "30m",
            ),
        },
        Alert {
            name: "GridwatchConflicts",
            severity: Severity::Ticket,
            query: format!(
                "{conflicts} / {} > 0.01\nand {conflicts} > 100",
                outcomes("1h")
            ),
            pending: "10m",
            summary: "Over 1 % of the readings of an hour have the time of a stored reading and \
                      another value. The first value stays.",
            panel: (WORKER, "Outcomes"),
            labels: &[],
            fault: fault(
                [
                    (worker(metric::CONFLICT, ""), grows(60)),
                    (worker(metric::PERSISTED, ""), grows(1_140)),
                ],
                "90m",
            ),
        },
        Alert {
            name: "GridwatchReadingsRejected",
            severity: Severity::Ticket,
            query: format!(
                "{rejected} / {} > 0.1\nand {rejected} > {MIN_READINGS}",
                increase("1h", metric::RECEIVED)
            ),
            pending: "30m",
            summary: "Over 10 % of the readings of an hour were rejected. Devices do not send them \
                      again.",
            panel: (OVERVIEW, "Rejected by code"),
            labels: &[],
            fault: fault(
                [
                    (front(metric::RECEIVED, ""), grows(800)),
                    (front(metric::REJECTED, r#"code="bad_reading""#), grows(200)),
                ],
                "2h",
            ),
        },
        Alert {
            name: "GridwatchSpoolDamaged",
            severity: Severity::Ticket,
            query: format!(
                "sum by ({DEPLOYMENT}, job, instance) ({} + {}) > 0",
                metric::SPOOL_DAMAGED.name,
                metric::SPOOL_MISSING.name
            ),
            pending: "0m",
            summary: "The spool of {{ $labels.instance }} was damaged: readings in it may be lost. \
                      The bytes are kept in its directory quarantine.",
            panel: (FRONT_END, "Damage of the spool"),
            labels: &["job", "instance"],
            fault: Fault {
                fires: &[&["ingest-api", "front-1"]],
                ..fault([(front(metric::SPOOL_DAMAGED, ""), flat(64))], "5m")
            },
        },
    ]
}

fn slow_faults() -> Vec<Alert> {
    let confirms = |name: String, labels: &str| {
        format!("sum by ({DEPLOYMENT}{labels}) (increase({name}[10m]))")
    };
    let internal = format!(
        r#"{}{{{}="internal"}}"#,
        metric::HTTP_ERRORS.name,
        metric::LABEL_CODE
    );
    // The stages that begin and end on hosts of Gridwatch, and not on the clock of a device.
    let hosts: Vec<&str> = [Stage::EnqueuedToDequeued, Stage::ReceivedToPersisted]
        .map(Stage::label)
        .to_vec();
    let skewed = per_deployment(&format!(
        r#"increase({}{{{}=~"{}"}}[1h])"#,
        metric::CLOCK_SKEW.name,
        metric::LABEL_STAGE,
        hosts.join("|")
    ));
    let confirm = |metric: Metric, le: &str| {
        let labels = format!(r#"le="{le}""#);
        series(&bucket(metric), "ingest-api", "front-1", &labels)
    };
    let error = |code: &str| {
        let labels = (metric::LABEL_LISTENER, metric::LABEL_CODE);
        format!(r#"{}="readings", {}="{code}""#, labels.0, labels.1)
    };
    vec![
        Alert {
            name: "GridwatchConfirmsSlow",
            severity: Severity::Ticket,
            query: format!(
                "histogram_quantile(0.99, {}) > 1\nand {} > 100",
                confirms(bucket(metric::CONFIRM_SECONDS), ", le"),
                confirms(count(metric::CONFIRM_SECONDS), "")
            ),
            pending: "10m",
            summary: "One batch in 100 waits over a second until the queue confirms it: the \
                      disk or the network of RabbitMQ is slow.",
            panel: (FRONT_END, "Confirms"),
            labels: &[],
            fault: fault(
                [
                    (confirm(metric::CONFIRM_SECONDS, "0.01"), grows(20)),
                    (confirm(metric::CONFIRM_SECONDS, "1"), grows(30)),
                ],
                "40m",
            ),
        },
        Alert {
            name: "GridwatchInternalErrors",
            severity: Severity::Ticket,
            query: format!(
                "{} > 0",
                per_deployment(&format!("increase({internal}[1h])"))
            ),
            pending: "0m",
            summary: "Requests failed because of a fault in Gridwatch. The log has the cause.",
            panel: (FRONT_END, "Errors by code"),
            labels: &[],
            fault: fault(
                [(
                    front(metric::HTTP_ERRORS, &error("internal")),
                    steps(0, 10, 1),
                )],
                "30m",
            ),
        },
        Alert {
            name: "GridwatchClockSkew",
            severity: Severity::Ticket,
            query: format!(
                "{skewed} / {} > 0.01\nand {skewed} > {MIN_READINGS}",
                outcomes("1h")
            ),
            pending: "30m",
            summary: "The clocks of the hosts of Gridwatch differ: over 1 % of the readings \
                      reached the worker before they were sent.",
            panel: (WORKER, "Clock skew"),
            labels: &[],
            fault: fault(
                [(
                    worker(metric::CLOCK_SKEW, r#"stage="enqueued_to_dequeued""#),
                    grows(600),
                )],
                "2h",
            ),
        },
    ]
}

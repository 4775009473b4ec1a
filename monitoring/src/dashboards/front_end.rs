//! Front end: requests, the wait for the queue, the registry, the spool.

use schema::metric;

use super::{HALF, THIRD, process};
use crate::dashboard::{Dashboard, Kind, Panel};
use crate::promql::{RANGE, by_instance, heat_map, of, quantile, rate, rate_by};

/// The id in links.
pub const UID: &str = "gridwatch-front-end";

pub(super) fn dashboard() -> Dashboard {
    let mut panels = requests();
    panels.extend(delivery());
    panels.extend(spool());
    panels.extend(process::panels(metric::PENDING));
    Dashboard {
        uid: UID,
        title: "Gridwatch: front end",
        description: "Requests, the wait for the queue, the registry, and the spool.",
        from: "now-1h",
        refresh: "10s",
        variables: Vec::new(),
        panels,
    }
}

fn requests() -> Vec<Panel> {
    let by_listener = |label: &str, counter: metric::Metric| {
        let readings = format!(r#"{}="readings""#, metric::LABEL_LISTENER);
        let counter = of(counter.name, &readings);
        format!("sum by ({label}) (rate({counter}[{RANGE}]))")
    };
    vec![
        Panel::new(
            "Requests by status",
            Kind::Stacked,
            "reqps",
            THIRD,
            "Requests per second with readings. 202 and 201: accepted. 4xx: a mistake of the \
             client. 5xx: the client sends them again.",
        )
        .query(
            by_listener(metric::LABEL_STATUS, metric::HTTP_REQUESTS),
            "{{status}}",
        ),
        Panel::new(
            "Errors by code",
            Kind::Stacked,
            "reqps",
            THIRD,
            "Requests per second that got an error. The codes are explained in the runbook.",
        )
        .query(
            by_listener(metric::LABEL_CODE, metric::HTTP_ERRORS),
            "{{code}}",
        ),
        Panel::new(
            "Rejected readings by code",
            Kind::Stacked,
            "short",
            THIRD,
            "Readings per second that devices must not send again.",
        )
        .query(rate_by(metric::LABEL_CODE, metric::REJECTED), "{{code}}"),
        quantiles(
            "Request time",
            "From the head of a request to its response. It includes the confirm of the queue.",
            metric::HTTP_SECONDS,
        ),
        Panel::new(
            "Request time, all",
            Kind::HeatMap,
            "s",
            THIRD,
            "The same, for all requests.",
        )
        .query(heat_map(metric::HTTP_SECONDS, ""), "{{le}}"),
        quantiles(
            "Confirms",
            "From sending a batch to the confirmation that it is durable.",
            metric::CONFIRM_SECONDS,
        ),
    ]
}

fn quantiles(title: &'static str, description: &'static str, histogram: metric::Metric) -> Panel {
    let panel = Panel::new(title, Kind::Lines, "s", THIRD, description);
    let with = |panel: Panel, (value, name)| panel.query(quantile(value, histogram, ""), name);
    [(0.5, "p50"), (0.95, "p95"), (0.99, "p99")]
        .into_iter()
        .fold(panel, with)
}

fn delivery() -> Vec<Panel> {
    let lines = |title, unit, description| Panel::new(title, Kind::Lines, unit, THIRD, description);
    vec![
        lines(
            "Pending readings",
            "short",
            "Readings that wait for the confirmation of the queue. At --max-pending the front end \
             responds with 503.",
        )
        .query(by_instance(metric::PENDING), "{{instance}}"),
        lines(
            "Batches in flight",
            "short",
            "Batches sent and not confirmed. At --max-in-flight, further readings join the next \
             batch.",
        )
        .query(by_instance(metric::SINK_IN_FLIGHT), "{{instance}}"),
        lines(
            "Readings per batch",
            "short",
            "The more load, the larger the batches.",
        )
        .query(
            format!(
                "{} / ({} > 0) or 0 * {}",
                rate(metric::ACCEPTED),
                rate(metric::SINK_BATCHES),
                rate(metric::ACCEPTED)
            ),
            "readings",
        ),
        lines(
            "Connections to the queue",
            "short",
            "Connections opened to RabbitMQ, and batches sent again after one was lost.",
        )
        .query(
            format!("sum(increase({}[{RANGE}]))", of(metric::CONNECTS.name, "")),
            "connections opened",
        )
        .query(
            format!(
                "sum(increase({}[{RANGE}]))",
                of(metric::SINK_RETRIES.name, "")
            ),
            "batches sent again",
        ),
        lines("Registry", "short", "Series whose names are in memory.")
            .query(by_instance(metric::REGISTRY_SERIES), "{{instance}}"),
        Panel::new(
            "Registry up to date",
            Kind::Plain,
            "bool_yes_no",
            THIRD,
            "No: PostgreSQL is unavailable. Known names still work.",
        )
        .query(by_instance(metric::REGISTRY_FRESH), "{{instance}}"),
    ]
}

fn spool() -> Vec<Panel> {
    let lines = |title, unit, description| Panel::new(title, Kind::Lines, unit, THIRD, description);
    vec![
        lines(
            "Spool",
            "bytes",
            "Bytes in the spool, and its bound. Readings are there while RabbitMQ is unavailable.",
        )
        .query(by_instance(metric::SPOOL_BYTES), "{{instance}}")
        .query(by_instance(metric::SPOOL_MAX_BYTES), "{{instance}}, bound"),
        lines(
            "Readings in and out of the spool",
            "short",
            "Readings per second that were written to the spool and delivered from it.",
        )
        .query(rate(metric::SPOOLED), "in")
        .query(rate(metric::SPOOL_DELIVERED), "out"),
        lines(
            "Age of the spool",
            "s",
            "Age of the oldest readings in it, and when it is empty at the current rate. There is \
             no such time while it does not drain.",
        )
        .query(by_instance(metric::SPOOL_AGE), "{{instance}}, oldest")
        .query(
            by_instance(metric::SPOOL_TIME_TO_EMPTY),
            "{{instance}}, until empty",
        ),
        lines(
            "Readings in the spool",
            "short",
            "Readings that wait for RabbitMQ on the disk of the front end.",
        )
        .query(by_instance(metric::SPOOL_READINGS), "{{instance}}"),
        lines("Disk of the spool", "bytes", "Bytes that are free.")
            .query(by_instance(metric::SPOOL_DISK_FREE), "{{instance}}"),
        lines(
            "Damage of the spool",
            "short",
            "Damaged bytes and missing records since the start of the process. 0 is right.",
        )
        .query(by_instance(metric::SPOOL_DAMAGED), "{{instance}}, bytes")
        .query(by_instance(metric::SPOOL_MISSING), "{{instance}}, records"),
        Panel::new(
            "Versions",
            Kind::Table,
            "short",
            HALF,
            "The version of each process.",
        )
        .query(
            format!(
                "sum by (job, instance, {}) ({})",
                metric::LABEL_VERSION,
                of(metric::BUILD_INFO.name, "")
            ),
            "",
        ),
        Panel::new(
            "Uptime",
            Kind::Plain,
            "s",
            HALF,
            "Time since each process was started.",
        )
        .query(
            format!("time() - {}", of("process_start_time_seconds", "")),
            "{{instance}}",
        ),
    ]
}

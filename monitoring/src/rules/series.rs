//! The series of a healthy deployment, with which every test of a rule begins.
//!
//! Two front ends, a worker, a query API and a broker carry 20 readings/s. Values are one a minute,
//! in the notation of `promtool`.

use schema::metric;

use crate::promql::{DEPLOYMENT, bucket, count};
use schema::clock::Stage;
use schema::metric::Metric;

/// The deployment of the tests.
pub(super) const NAME: &str = "test";
/// How many values a series has: those of ten hours.
const LENGTH: u32 = 600;

/// The targets: job and instance.
const TARGETS: [(&str, &str); 5] = [
    ("ingest-api", "front-1"),
    ("ingest-api", "front-2"),
    ("worker", "worker-1"),
    ("query-api", "query-1"),
    ("rabbitmq", "broker-1"),
];

/// A series with the labels of a target.
pub(super) fn series(name: &str, job: &str, instance: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!(r#"{name}{{{DEPLOYMENT}="{NAME}", job="{job}", instance="{instance}"{comma}{more}}}"#)
}

/// A series of the first front end.
pub(super) fn front(metric: Metric, more: &str) -> String {
    series(metric.name, "ingest-api", "front-1", more)
}

/// A series of the worker.
pub(super) fn worker(metric: Metric, more: &str) -> String {
    series(metric.name, "worker", "worker-1", more)
}

/// A series of the broker.
pub(super) fn broker(name: &str, more: &str) -> String {
    series(name, "rabbitmq", "broker-1", more)
}

/// A value that stays.
pub(super) fn flat(value: impl std::fmt::Display) -> String {
    format!("{value}x{LENGTH}")
}

/// A counter that grows by this much a minute.
pub(super) fn grows(by: u32) -> String {
    format!("0+{by}x{LENGTH}")
}

/// Something that is `before` for this many minutes and `after` from then on.
pub(super) fn steps(before: u32, minutes: u32, after: u32) -> String {
    format!("{before}x{minutes} {after}x{LENGTH}")
}

/// A bucket or the count of the stage from receipt to commit.
pub(super) fn stage(suffix: &str) -> String {
    let label = format!(
        r#"{}="{}""#,
        metric::LABEL_STAGE,
        Stage::ReceivedToPersisted.label()
    );
    match suffix {
        "" => series(&count(metric::STAGE_SECONDS), "worker", "worker-1", &label),
        le => {
            let labels = format!(r#"{label}, le="{le}""#);
            series(
                &bucket(metric::STAGE_SECONDS),
                "worker",
                "worker-1",
                &labels,
            )
        }
    }
}

/// The series of a healthy deployment.
pub(super) fn healthy() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (job, instance) in TARGETS {
        all.push((series("up", job, instance, ""), flat(1)));
        if job != "rabbitmq" {
            all.push((series(metric::READY.name, job, instance, ""), flat(1)));
            all.push((series(metric::DEGRADED.name, job, instance, ""), flat(0)));
        }
    }
    for instance in ["front-1", "front-2"] {
        let own = |metric: Metric, more: &str| series(metric.name, "ingest-api", instance, more);
        let status = |status: &str| {
            format!(
                r#"{}="readings", {}="{status}""#,
                metric::LABEL_LISTENER,
                metric::LABEL_STATUS
            )
        };
        let error = |code: &str| {
            format!(
                r#"{}="readings", {}="{code}""#,
                metric::LABEL_LISTENER,
                metric::LABEL_CODE
            )
        };
        all.extend([
            // 600 a minute, 1 of which is rejected.
            (own(metric::RECEIVED, ""), grows(601)),
            (own(metric::ACCEPTED, ""), grows(600)),
            (own(metric::REJECTED, r#"code="bad_reading""#), grows(1)),
            (own(metric::UNAVAILABLE, r#"reason="full""#), flat(0)),
            (own(metric::PENDING, ""), flat(0)),
            (own(metric::SINK_BATCHES, ""), grows(60)),
            (own(metric::HTTP_REQUESTS, &status("202")), grows(60)),
            (own(metric::HTTP_REQUESTS, &status("503")), flat(0)),
            (own(metric::HTTP_ERRORS, &error("internal")), flat(0)),
            (own(metric::SPOOL_READINGS, ""), flat(0)),
            (own(metric::SPOOL_BYTES, ""), flat(0)),
            (own(metric::SPOOL_MAX_BYTES, ""), flat(4_000_000_000_u64)),
            (own(metric::SPOOL_DISK_FREE, ""), flat(50_000_000_000_u64)),
            (own(metric::SPOOL_DAMAGED, ""), flat(0)),
            (own(metric::SPOOL_MISSING, ""), flat(0)),
        ]);
        for (le, by) in [("0.01", 59), ("1", 60), ("10", 60), ("+Inf", 60)] {
            let name = bucket(metric::CONFIRM_SECONDS);
            let le = format!(r#"le="{le}""#);
            all.push((series(&name, "ingest-api", instance, &le), grows(by)));
        }
        let name = count(metric::CONFIRM_SECONDS);
        all.push((series(&name, "ingest-api", instance, ""), grows(60)));
    }
    all.extend([
        (worker(metric::PERSISTED, ""), grows(1_200)),
        (worker(metric::DUPLICATE, ""), flat(0)),
        (worker(metric::CONFLICT, ""), flat(0)),
        (worker(metric::DEAD_LETTERED, ""), flat(0)),
        (
            worker(metric::POISON_MESSAGES, r#"code="empty_message""#),
            flat(0),
        ),
        (worker(metric::WORKER_UNSETTLED, ""), flat(0)),
        (
            worker(metric::CLOCK_SKEW, r#"stage="enqueued_to_dequeued""#),
            flat(0),
        ),
        (stage("5"), grows(1_200)),
        (stage("+Inf"), grows(1_200)),
        (stage(""), grows(1_200)),
    ]);
    let queue = super::recorded::readings_queue();
    for (name, value) in [
        ("rabbitmq_queue_messages_ready", 0_u64),
        ("rabbitmq_queue_messages_bytes", 0),
    ] {
        all.push((broker(name, &queue), flat(value)));
    }
    for (name, value) in [
        ("rabbitmq_alarms_memory_used_watermark", 0_u64),
        ("rabbitmq_alarms_free_disk_space_watermark", 0),
        ("rabbitmq_disk_space_available_bytes", 50_000_000_000),
        ("rabbitmq_disk_space_available_limit_bytes", 2_000_000_000),
    ] {
        all.push((broker(name, ""), flat(value)));
    }
    all
}

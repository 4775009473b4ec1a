//! Recording rules: what alerts and dashboards share, for each deployment.

use schema::clock::Stage;
use schema::metric::{self, Metric};
use schema::topology;

use super::{OBJECTIVE_SECONDS, Recording};
use crate::promql::{DEPLOYMENT, bucket, count, per_deployment, stage};

/// Readings accepted per second.
pub const ACCEPTED_RATE: &str = "gridwatch:readings_accepted:rate5m";
/// Readings per batch.
pub const BATCH_SIZE: &str = "gridwatch:batch_readings:mean1h";
/// Readings that are accepted and not stored.
pub const BACKLOG: &str = "gridwatch:backlog_readings:sum";
/// The same in seconds of the traffic of the last five minutes.
pub const BACKLOG_SECONDS: &str = "gridwatch:backlog_seconds:ratio5m";
/// Received − accepted − rejected − unavailable − pending of each front end.
pub const FRONT_END_DIFFERENCE: &str = "gridwatch:front_end_readings:difference";
/// Accepted − outcomes of the worker − growth of the backlog, in an hour.
pub const PIPELINE_DIFFERENCE: &str = "gridwatch:pipeline_readings:difference1h";

/// The windows of the latency objective.
pub const WINDOWS: [&str; 5] = ["5m", "30m", "1h", "6h", "3d"];

/// The part of the readings of this window that was stored too late.
pub fn slow(window: &str) -> String {
    format!("gridwatch:readings_slow:ratio{window}")
}

/// The matcher of the queue of batches.
pub fn readings_queue() -> String {
    format!(r#"queue="{}""#, topology::READINGS)
}

/// Every recording rule, in an order in which each uses only those before it.
pub fn all() -> Vec<Recording> {
    let rule = |name: &str, query: String| Recording {
        name: name.to_owned(),
        query,
    };
    let mut rules = vec![
        rule(ACCEPTED_RATE, rate("5m", metric::ACCEPTED)),
        rule(
            BATCH_SIZE,
            // Without traffic in the last hour, the queue has batches of the hours before.
            ["1h", "1d"]
                .map(|range| {
                    let batches = increase(range, metric::SINK_BATCHES);
                    format!("{} / ({batches} > 0)", increase(range, metric::ACCEPTED))
                })
                .join("\nor "),
        ),
        rule(BACKLOG, backlog()),
        rule(
            BACKLOG_SECONDS,
            format!("{BACKLOG} / clamp_min({ACCEPTED_RATE}, 1)"),
        ),
        rule(FRONT_END_DIFFERENCE, front_end_difference()),
        rule(
            PIPELINE_DIFFERENCE,
            format!(
                "{} - {} - ({BACKLOG} - {BACKLOG} offset 1h)",
                increase("1h", metric::ACCEPTED),
                outcomes("1h")
            ),
        ),
    ];
    rules.extend(WINDOWS.map(|window| rule(&slow(window), slow_ratio(window))));
    rules
}

/// Events per second for each deployment.
pub(super) fn rate(range: &str, counter: Metric) -> String {
    per_deployment(&format!("rate({}[{range}])", counter.name))
}

/// Events in a range for each deployment.
pub(super) fn increase(range: &str, counter: Metric) -> String {
    per_deployment(&format!("increase({}[{range}])", counter.name))
}

/// Readings in a range that the worker finished, with any outcome.
pub(super) fn outcomes(range: &str) -> String {
    let outcomes = [
        metric::PERSISTED,
        metric::DUPLICATE,
        metric::CONFLICT,
        metric::DEAD_LETTERED,
    ];
    let sums = outcomes.map(|outcome| increase(range, outcome));
    format!("({})", sums.join(" + "))
}

/// Readings in a range that took the stage that the objective is about.
pub(super) fn timed(range: &str) -> String {
    let count = count(metric::STAGE_SECONDS);
    let stage = stage(Stage::ReceivedToPersisted);
    per_deployment(&format!("increase({count}{{{stage}}}[{range}])"))
}

/// A reading that a worker holds may be counted twice for a moment where the source is the spool,
/// which has it until it is acknowledged.
fn backlog() -> String {
    let queue = per_deployment(&format!(
        "rabbitmq_queue_messages_ready{{{}}}",
        readings_queue()
    ));
    let terms = [
        per_deployment(metric::PENDING.name),
        per_deployment(metric::WORKER_UNSETTLED.name),
        per_deployment(metric::SPOOL_READINGS.name),
        format!("{queue} * {BATCH_SIZE}"),
    ];
    // Not every deployment has a queue and a spool, and the processes of a part may all be down. A
    // target that cannot be scraped still has its `up`.
    let none = format!("0 * max by ({DEPLOYMENT}) (up{{{DEPLOYMENT}!=\"\"}})");
    terms.map(|term| format!("({term} or {none})")).join("\n+ ")
}

fn front_end_difference() -> String {
    let sum = |metric: Metric| format!("sum by ({DEPLOYMENT}, instance) ({})", metric.name);
    let terms = [
        metric::RECEIVED,
        metric::ACCEPTED,
        metric::REJECTED,
        metric::UNAVAILABLE,
        metric::PENDING,
    ];
    terms.map(sum).join("\n- ")
}

fn slow_ratio(window: &str) -> String {
    let (buckets, count) = (bucket(metric::STAGE_SECONDS), count(metric::STAGE_SECONDS));
    let stage = stage(Stage::ReceivedToPersisted);
    // Prometheus 3 writes 5.0 where the process and Prometheus 2 write 5.
    let within = format!(r#"le=~"{OBJECTIVE_SECONDS}|{OBJECTIVE_SECONDS:.1}""#);
    let fast = per_deployment(&format!("rate({buckets}{{{stage}, {within}}}[{window}])"));
    let all = per_deployment(&format!("rate({count}{{{stage}}}[{window}])"));
    format!("1 - {fast} / ({all} > 0)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objective_is_a_bound_of_a_bucket() {
        assert!(metric::BUCKETS.contains(&OBJECTIVE_SECONDS));
    }
}

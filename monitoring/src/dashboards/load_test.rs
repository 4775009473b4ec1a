//! Load test: the pipeline while it is loaded.
//!
//! The load generator exports no metrics, and its report has the times that clients saw. These are
//! the metrics of the pipeline under its load.

use schema::clock::Stage;
use schema::metric;

use super::{THIRD, TILE, process, stages};
use crate::dashboard::{Dashboard, Kind, Panel};
use crate::promql::{RANGE, heat_map, of, quantile, rate, rate_by, stage};
use crate::rules::recorded;

pub(super) fn dashboard() -> Dashboard {
    let readings = format!(r#"{}="readings""#, metric::LABEL_LISTENER);
    let requests = of(metric::HTTP_REQUESTS.name, &readings);
    let cpu = of("process_cpu_seconds_total", "");
    let tile = |title, unit, description| Panel::new(title, Kind::Plain, unit, TILE, description);
    let lines = |title, unit, description| Panel::new(title, Kind::Lines, unit, THIRD, description);
    let mut panels = vec![
        tile("Accepted", "short", "Readings per second.").query(rate(metric::ACCEPTED), "/s"),
        tile("Stored", "short", "Readings per second.").query(rate(metric::PERSISTED), "/s"),
        tile("Requests", "reqps", "Requests per second.")
            .query(format!("sum(rate({requests}[{RANGE}]))"), "/s"),
        tile("Request time, p99", "s", "At the front end.")
            .query(quantile(0.99, metric::HTTP_SECONDS, ""), "p99"),
        tile("Received to stored, p99", "s", "At Gridwatch.").query(
            quantile(
                0.99,
                metric::STAGE_SECONDS,
                &stage(Stage::ReceivedToPersisted),
            ),
            "p99",
        ),
        tile("Backlog, seconds", "s", "Of the traffic of five minutes.")
            .query(of(recorded::BACKLOG_SECONDS, ""), "backlog"),
        tile("Cores in use", "short", "Cores that all processes use.")
            .query(format!("sum(rate({cpu}[{RANGE}]))"), "cores"),
        tile(
            "CPU per reading",
            "s",
            "CPU time of all processes per accepted reading.",
        )
        .query(
            format!(
                "sum(rate({cpu}[{RANGE}])) / ({} > 0) or 0 * {}",
                rate(metric::ACCEPTED),
                rate(metric::ACCEPTED)
            ),
            "per reading",
        ),
        lines("Readings", "short", "Readings per second at each step.")
            .query(rate(metric::RECEIVED), "received")
            .query(rate(metric::ACCEPTED), "accepted")
            .query(rate(metric::PERSISTED), "stored")
            .query(rate(metric::DUPLICATE), "duplicate"),
        lines("Errors", "reqps", "Requests per second that got an error.")
            .query(rate_by(metric::LABEL_CODE, metric::HTTP_ERRORS), "{{code}}"),
        lines(
            "Backlog",
            "short",
            "Readings that are accepted and not stored yet.",
        )
        .query(of(recorded::BACKLOG, ""), "readings"),
        stages("Stages, p50", 0.5),
        stages("Stages, p99", 0.99),
        Panel::new(
            "Received to stored",
            Kind::HeatMap,
            "s",
            THIRD,
            "How long readings took from their request to the commit.",
        )
        .query(
            heat_map(metric::STAGE_SECONDS, &stage(Stage::ReceivedToPersisted)),
            "{{le}}",
        ),
    ];
    panels.extend(process::panels(metric::READY));
    Dashboard {
        uid: "gridwatch-load-test",
        title: "Gridwatch: load test",
        description: "The pipeline under the load of a load test.",
        from: "now-15m",
        refresh: "10s",
        variables: Vec::new(),
        panels,
    }
}

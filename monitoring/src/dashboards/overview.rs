//! Overview: is it healthy, in one screen.

use schema::clock::Stage;
use schema::metric;

use super::{NONE_IS_GOOD, THIRD, TILE, stages};
use crate::dashboard::{Dashboard, Kind, Panel};
use crate::promql::{heat_map, of, quantile, rate, rate_by, stage, sum};
use crate::rules::OBJECTIVE_SECONDS;
use crate::rules::recorded;

/// The id in links.
pub const UID: &str = "gridwatch-overview";

pub(super) fn dashboard() -> Dashboard {
    let mut panels = tiles();
    panels.extend([
        Panel::new(
            "Readings per second",
            Kind::Lines,
            "short",
            THIRD,
            "Received and accepted by the front end; stored by the worker. Stored includes \
             duplicates, which are stored already.",
        )
        .query(rate(metric::RECEIVED), "received")
        .query(rate(metric::ACCEPTED), "accepted")
        .query(
            format!("{} + {}", rate(metric::PERSISTED), rate(metric::DUPLICATE)),
            "stored",
        ),
        Panel::new(
            "Rejected by code",
            Kind::Stacked,
            "short",
            THIRD,
            "Readings per second that devices must not send again, by the reason.",
        )
        .query(rate_by(metric::LABEL_CODE, metric::REJECTED), "{{code}}"),
        Panel::new(
            "Refused by reason",
            Kind::Stacked,
            "short",
            THIRD,
            "Readings per second that got 503 or whose client disconnected. Devices send them \
             again.",
        )
        .query(
            rate_by(metric::LABEL_REASON, metric::UNAVAILABLE),
            "{{reason}}",
        ),
        stages("Stages, p50", 0.5),
        stages("Stages, p95", 0.95),
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
        Panel::new(
            "Backlog",
            Kind::Lines,
            "short",
            THIRD,
            "Readings that are accepted and not stored yet: in the front end, in the spool, in \
             the queue and in the worker. Those in the queue are estimated from its messages.",
        )
        .query(of(recorded::BACKLOG, ""), "all")
        .query(sum(metric::PENDING), "front end")
        .query(
            format!(
                "{} or 0 * {}",
                sum(metric::SPOOL_READINGS),
                sum(metric::PENDING)
            ),
            "spool",
        )
        .query(sum(metric::WORKER_UNSETTLED), "worker"),
        Panel::new(
            "Do the books balance",
            Kind::SignedLines,
            "short",
            THIRD,
            "Front end: received − accepted − rejected − unavailable − pending, now. Worker: \
             accepted − stored − duplicate − conflict − dead-lettered − growth of the backlog, in \
             an hour. Both are near 0; a difference that stays is a loss or a fault.",
        )
        .query(
            format!("sum({})", of(recorded::FRONT_END_DIFFERENCE, "")),
            "front end",
        )
        .query(of(recorded::PIPELINE_DIFFERENCE, ""), "worker, 1 h"),
    ]);
    Dashboard {
        uid: UID,
        title: "Gridwatch: overview",
        description: "Is it healthy? Rates, stages, backlog, the balance of the books, and alerts.",
        from: "now-1h",
        refresh: "10s",
        variables: Vec::new(),
        panels,
    }
}

fn tiles() -> Vec<Panel> {
    let count = |query: &str| format!("count({query}) or vector(0)");
    let tile = |title, kind, unit, description| Panel::new(title, kind, unit, TILE, description);
    let slow = 1.0 - crate::rules::OBJECTIVE;
    vec![
        tile(
            "Alerts",
            NONE_IS_GOOD,
            "short",
            "Alerts that fire now. They are red lines in every panel.",
        )
        .query(count(&of("ALERTS", r#"alertstate="firing""#)), "firing"),
        tile(
            "Not ready",
            NONE_IS_GOOD,
            "short",
            "Processes that cannot do their work, and targets that Prometheus cannot scrape.",
        )
        .query(
            count(&format!(
                "{} == 0 or {} == 0",
                of(metric::READY.name, ""),
                of("up", "")
            )),
            "not ready",
        ),
        tile(
            "Degraded",
            Kind::Value {
                warn: 1.0,
                bad: 9e9,
            },
            "short",
            "Processes in which a fallback replaces a part that is down.",
        )
        .query(sum(metric::DEGRADED), "degraded"),
        tile(
            "Accepted",
            Kind::Plain,
            "short",
            "Readings per second that devices may forget, because they are durable.",
        )
        .query(rate(metric::ACCEPTED), "readings/s"),
        tile(
            "Stored",
            Kind::Plain,
            "short",
            "Readings per second that were committed to PostgreSQL.",
        )
        .query(rate(metric::PERSISTED), "readings/s"),
        tile(
            "Backlog, seconds",
            Kind::Value {
                warn: 30.0,
                bad: 120.0,
            },
            "s",
            "How many seconds of traffic are accepted and not stored yet.",
        )
        .query(of(recorded::BACKLOG_SECONDS, ""), "backlog"),
        tile(
            "Received to stored, p99",
            Kind::Value {
                warn: OBJECTIVE_SECONDS / 2.0,
                bad: OBJECTIVE_SECONDS,
            },
            "s",
            "99 of 100 readings are stored within this time of their arrival.",
        )
        .query(
            quantile(
                0.99,
                metric::STAGE_SECONDS,
                &stage(Stage::ReceivedToPersisted),
            ),
            "p99",
        ),
        tile(
            "Too slow, 3 days",
            Kind::Value {
                warn: slow / 2.0,
                bad: slow,
            },
            "percentunit",
            "Part of the readings that were stored later than the objective allows. The objective \
             is missed at 0.1 %.",
        )
        .query(of(&recorded::slow("3d"), ""), "slow"),
    ]
}

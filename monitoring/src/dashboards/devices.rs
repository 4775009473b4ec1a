//! Devices: which are silent, which are noisy, and whose clocks are wrong. From PostgreSQL.
//!
//! A device is looked at through the key of its series, so that a query costs one step in an index
//! for each series, and not a scan of the readings.

use schema::clock::Stage;
use schema::metric;

use super::{HALF, THIRD};
use crate::dashboard::{Dashboard, Kind, MAX_ROWS, Panel};
use crate::promql::{RANGE, heat_map, of, stage};

/// The latest reading of each device in the last day.
const LATEST: &str = "FROM device d
JOIN series s ON s.device_id = d.id
LEFT JOIN LATERAL (
    SELECT measured_at FROM reading
    WHERE series_id = s.id AND measured_at >= now() - interval '1 day'
    ORDER BY measured_at DESC LIMIT 1
) r ON true
WHERE d.active AND d.deleted_at IS NULL
GROUP BY d.id";

/// Seconds after which a device whose interval is unknown is silent.
const SILENT_SECONDS: u32 = 900;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "gridwatch-devices",
        title: "Gridwatch: devices",
        description: "Which devices are silent or noisy, and whose clocks are wrong.",
        from: "now-6h",
        refresh: "5m",
        variables: Vec::new(),
        panels: panels(),
    }
}

fn panels() -> Vec<Panel> {
    let value = |title, description, sql: String| {
        Panel::new(title, Kind::Plain, "short", (6, 4), description).sql(sql)
    };
    let silent = format!(
        "coalesce(max(r.measured_at), '-infinity')
        < now() - make_interval(secs => coalesce(3 * d.expected_interval, {SILENT_SECONDS}))"
    );
    vec![
        value(
            "Active devices",
            "Devices that may send readings.",
            "SELECT count(*) AS devices FROM device WHERE active AND deleted_at IS NULL".into(),
        ),
        value(
            "Silent devices",
            "Active devices without a reading for three of their intervals, or for 15 minutes if \
             the interval is not known.",
            format!(
                "SELECT count(*) AS devices FROM (SELECT d.id {LATEST} HAVING {silent}) silent"
            ),
        ),
        value(
            "Clocks ahead",
            "Active devices whose latest reading is in the future.",
            format!(
                "SELECT count(*) AS devices
                FROM (SELECT d.id {LATEST}
                      HAVING max(r.measured_at) > now() + interval '1 s') ahead"
            ),
        ),
        value(
            "Conflicts",
            "Readings in the selected time that had the time of a stored reading and another \
             value.",
            "SELECT count(*) AS conflicts FROM conflict WHERE $__timeFilter(seen_at)".into(),
        ),
        Panel::new(
            "Silent",
            Kind::Table,
            "short",
            HALF,
            "Silent devices; those that stopped last come first.",
        )
        .sql(format!(
            "SELECT d.external_id AS device, d.name, max(r.measured_at) AS \"latest in 24 h\",
                d.expected_interval AS \"interval, s\"
            {LATEST} HAVING {silent}
            ORDER BY max(r.measured_at) DESC NULLS LAST LIMIT {MAX_ROWS}"
        )),
        Panel::new(
            "Noisy",
            Kind::Table,
            "short",
            HALF,
            "Devices with the most readings of the last 15 minutes.",
        )
        .sql(format!(
            "SELECT d.external_id AS device, d.name, sum(r.count)::bigint AS readings,
                d.expected_interval AS \"interval, s\"
            FROM device d
            JOIN series s ON s.device_id = d.id
            CROSS JOIN LATERAL (
                SELECT count(*) AS count FROM reading
                WHERE series_id = s.id AND measured_at >= now() - interval '15 min'
                  AND measured_at < now() + interval '1 day'
            ) r
            WHERE r.count > 0
            GROUP BY d.id ORDER BY 3 DESC LIMIT {MAX_ROWS}"
        )),
        Panel::new(
            "Clock ahead",
            Kind::Table,
            "short",
            HALF,
            "Devices whose latest reading is in the future. Readings more than 5 minutes ahead are \
             rejected and not here.",
        )
        .sql(format!(
            "SELECT d.external_id AS device, d.name, max(r.measured_at) AS latest,
                extract(epoch FROM max(r.measured_at) - now())::float8 AS \"seconds ahead\"
            {LATEST} HAVING max(r.measured_at) > now() + interval '1 s'
            ORDER BY 3 DESC LIMIT {MAX_ROWS}"
        )),
        Panel::new(
            "Latest conflicts",
            Kind::Table,
            "short",
            HALF,
            "Devices that sent two values for one time.",
        )
        .sql(format!(
            "SELECT c.seen_at AS time, d.external_id AS device, s.metric, c.measured_at,
                c.stored_value AS stored, c.offered_value AS refused
            FROM (SELECT * FROM conflict ORDER BY id DESC LIMIT {MAX_ROWS}) c
            JOIN series s ON s.id = c.series_id
            JOIN device d ON d.id = s.device_id
            ORDER BY c.id DESC"
        )),
        Panel::new(
            "Latest dead letters",
            Kind::Table,
            "short",
            HALF,
            "What could not be stored.",
        )
        .sql(format!(
            "SELECT l.dead_lettered_at AS time, l.code, l.detail, d.external_id AS device, s.metric
            FROM (SELECT * FROM dead_letter ORDER BY id DESC LIMIT {MAX_ROWS}) l
            LEFT JOIN series s ON s.id = l.series_id
            LEFT JOIN device d ON d.id = s.device_id
            ORDER BY l.id DESC"
        )),
        Panel::new(
            "How late readings arrive",
            Kind::HeatMap,
            "s",
            HALF,
            "From the clock of the device to the arrival of the request.",
        )
        .query(
            heat_map(metric::STAGE_SECONDS, &stage(Stage::MeasuredToReceived)),
            "{{le}}",
        ),
        Panel::new(
            "Readings from the future",
            Kind::Lines,
            "short",
            THIRD,
            "Readings per second that arrive before they were measured, and those that are \
             rejected for it.",
        )
        .query(
            format!(
                "sum(rate({}[{RANGE}]))",
                of(metric::CLOCK_SKEW.name, &stage(Stage::MeasuredToReceived))
            ),
            "accepted",
        )
        .query(
            format!(
                "sum(rate({}[{RANGE}]))",
                of(
                    metric::REJECTED.name,
                    &format!(
                        r#"{}="{}""#,
                        metric::LABEL_CODE,
                        schema::Rejection::MeasuredInFuture.code()
                    )
                )
            ),
            "rejected",
        ),
    ]
}

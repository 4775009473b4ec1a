//! Whether devices report as often as they should.
//!
//! In: external ids. Out: the health of each device, from the latest reading of each of its series
//! and the interval that is expected. It is computed when someone asks: ingest writes nothing for
//! it.

use std::collections::HashMap;

use crate::Pool;
use crate::reads::{ReadError, connection};

/// Devices of one query.
const SLICE: usize = 500;

/// A series is on time while its latest reading is at most this many intervals old: one reading may
/// be late.
const ON_TIME_INTERVALS: f64 = 2.0;
/// A series is lost when its latest reading is older than this many intervals.
const LOST_INTERVALS: f64 = 5.0;

const HEALTH: &str = "
    SELECT d.external_id, count(s.id),
           count(latest.at),
           count(latest.at) FILTER (
               WHERE latest.at >= now() - make_interval(secs => $2 * d.expected_interval))
    FROM device d LEFT JOIN series s ON s.device_id = d.id
    LEFT JOIN LATERAL (
        SELECT measured_at AS at FROM reading
        WHERE series_id = s.id
          AND measured_at >= now() - make_interval(secs => $3 * d.expected_interval)
        ORDER BY measured_at DESC LIMIT 1) latest ON true
    WHERE d.external_id = ANY($1) AND d.deleted_at IS NULL AND d.expected_interval IS NOT NULL
    GROUP BY d.id";

/// How well a device reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Every series is on time.
    Ok,
    /// Some series is late or lost.
    Deteriorated,
    /// Every series is lost.
    Unreachable,
    /// The device has no expected interval, or no series.
    Unknown,
}

impl Health {
    /// Every value.
    pub const ALL: [Self; 4] = [
        Self::Ok,
        Self::Deteriorated,
        Self::Unreachable,
        Self::Unknown,
    ];

    /// The name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Deteriorated => "deteriorated",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
        }
    }

    const fn of(series: i64, seen: i64, on_time: i64) -> Self {
        match (series, seen, on_time) {
            (0, _, _) => Self::Unknown,
            (_, 0, _) => Self::Unreachable,
            (series, _, on_time) if series == on_time => Self::Ok,
            _ => Self::Deteriorated,
        }
    }
}

/// The health of these devices. A device that is not in the result is [`Health::Unknown`].
///
/// # Errors
/// [`ReadError`].
pub async fn of_devices(pool: &Pool, names: &[&str]) -> Result<HashMap<String, Health>, ReadError> {
    let mut health = HashMap::with_capacity(names.len());
    for names in names.chunks(SLICE) {
        let client = connection(pool).await?;
        let statement = client.prepare_cached(HEALTH).await?;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&names, &ON_TIME_INTERVALS, &LOST_INTERVALS];
        for row in client.query(&statement, &parameters).await? {
            let own = Health::of(row.get(1), row.get(2), row.get(3));
            health.insert(row.get(0), own);
        }
    }
    Ok(health)
}

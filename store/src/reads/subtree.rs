//! The series of the devices in a subtree of components.
//!
//! In: a component and a range of time. Out: the series of its devices, each with the parts of the
//! range in which its device was in the subtree. Placements of components and of devices are
//! intersected on the way down, so that a device counts only while every component above it was
//! where the path needs it.

use schema::reading::{Micros, SeriesId};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::points::TimeRange;
use super::series::{COLUMNS, Series};
use super::{ReadError, query};
use crate::Pool;
use crate::ledger::timestamp;

/// A series and when it counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The series.
    pub series: Series,
    /// The parts of the range in which it counts, in the order of time, with gaps between them.
    pub parts: Vec<TimeRange>,
}

/// Which tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// The tree of each instant of the range.
    #[default]
    History,
    /// The present tree, for the whole range.
    Now,
}

/// The range is from `$2` to `$3`. `UNION` drops what was found before. A
/// cycle ends, because no instant has one, and the ranges on the path become empty.
const HISTORY: &str = "
    WITH RECURSIVE subtree (id, valid_from, valid_to) AS (
        SELECT $1::uuid, $2::timestamptz, $3::timestamptz
        UNION
        SELECT p.component, greatest(s.valid_from, p.valid_from), least(s.valid_to, p.valid_to)
        FROM subtree s JOIN placement p ON p.parent = s.id
        WHERE p.component IS NOT NULL
          AND greatest(s.valid_from, p.valid_from) < least(s.valid_to, p.valid_to)),
    member (device_id, valid_from, valid_to) AS (
        SELECT p.device_id, greatest(s.valid_from, p.valid_from), least(s.valid_to, p.valid_to)
        FROM subtree s JOIN placement p ON p.parent = s.id
        WHERE p.device_id IS NOT NULL
          AND greatest(s.valid_from, p.valid_from) < least(s.valid_to, p.valid_to))";

const NOW: &str = "
    WITH member (device_id, valid_from, valid_to) AS (
        SELECT id, $2::timestamptz, $3::timestamptz FROM device
        WHERE component IN (SELECT component FROM gridwatch_subtree($1)))";

/// The time zone of a component, its own or that of an ancestor. The outer `None`: there is no such
/// component.
///
/// # Errors
/// [`ReadError`].
pub async fn time_zone(pool: &Pool, component: Uuid) -> Result<Option<Option<String>>, ReadError> {
    let sql = "SELECT gridwatch_time_zone(id) FROM component WHERE id = $1";
    let rows = query(pool, sql, &[&component]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// The series of a subtree, in the order of devices and metrics; those of one metric only, if it is
/// given. `None`: they have more parts than `limit`.
///
/// # Errors
/// [`ReadError`].
pub async fn members(
    pool: &Pool,
    component: Uuid,
    metric: Option<&str>,
    range: TimeRange,
    topology: Topology,
    limit: usize,
) -> Result<Option<Vec<Member>>, ReadError> {
    let member = match topology {
        Topology::History => HISTORY,
        Topology::Now => NOW,
    };
    let sql = format!(
        "{member}
         SELECT {COLUMNS}, (extract(epoch FROM valid_from) * 1000000)::bigint,
                (extract(epoch FROM valid_to) * 1000000)::bigint
         FROM member JOIN device d ON d.id = member.device_id
         JOIN series s ON s.device_id = d.id
         WHERE ($4::text IS NULL OR s.metric = $4)
         ORDER BY d.external_id, s.metric, valid_from LIMIT $5"
    );
    let rows = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let (from, to) = (timestamp(range.from), timestamp(range.to));
    let parameters: [&(dyn ToSql + Sync); 5] = [&component, &from, &to, &metric, &rows];
    let rows = query(pool, &sql, &parameters).await?;
    if rows.len() > limit {
        return Ok(None);
    }
    let mut members: Vec<Member> = Vec::new();
    for row in &rows {
        let part = TimeRange {
            from: row.get(7),
            to: row.get(8),
        };
        match members.last_mut() {
            Some(member) if member.series.id == row.get::<_, SeriesId>(0) => {
                add_part(&mut member.parts, part);
            }
            _ => members.push(Member {
                series: Series::from_row(row),
                parts: vec![part],
            }),
        }
    }
    Ok(Some(members))
}

/// A move within the subtree is no interruption.
fn add_part(parts: &mut Vec<TimeRange>, part: TimeRange) {
    match parts.last_mut() {
        Some(last) if last.to >= part.from => last.to = last.to.max(part.to),
        _ => parts.push(part),
    }
}

/// How long a series counts in a range.
#[must_use]
pub fn overlap(parts: &[TimeRange], range: TimeRange) -> Micros {
    let of_part = |part: &TimeRange| (part.to.min(range.to) - part.from.max(range.from)).max(0);
    parts.iter().map(of_part).sum()
}

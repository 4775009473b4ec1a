//! One check of the database: reads every row of the run, and compares it with the reading that it
//! comes from.

use std::collections::HashMap;

use futures_util::{StreamExt as _, pin_mut};
use schema::reading::Micros;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::types::Type;

use super::Verdict;
use crate::harness::postgres::Timestamp;
use crate::ledger::{Ledger, Outcome};
use crate::traffic::{FUTURE, Traffic};

/// Promises that several checks can find broken.
const REJECTED: &str = "no rejected reading is stored";
const SENT: &str = "every stored reading was sent";

const SERIES: &str = "\
    SELECT s.id, d.external_id, s.metric FROM series s JOIN device d ON d.id = s.device_id \
    WHERE starts_with(d.external_id, $1)";
const DEAD_LETTERS: &str =
    "SELECT series_id, measured_at_us FROM dead_letter WHERE series_id = ANY ($1)";
const CONFLICTS: &str = "\
    SELECT series_id, (extract(epoch FROM measured_at) * 1000000)::bigint, stored_value, \
    offered_value FROM conflict WHERE series_id = ANY ($1)";
const INVALID_NAMES: &str = "\
    SELECT octet_length(external_id) FROM device WHERE external_id IN ('', $1, left($1, 256))";

/// A set of numbers, as bits.
struct BitSet(Vec<u64>);

impl BitSet {
    fn new(len: u64) -> Self {
        Self(vec![0; len.div_ceil(64) as usize])
    }

    /// Inserts a number, and returns whether it was not in the set.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = (&mut self.0[(number / 64) as usize], 1 << (number % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn contains(&self, number: u64) -> bool {
        self.0[(number / 64) as usize] & 1 << (number % 64) != 0
    }
}

/// Numbers of this run's series by their id in the database.
type SeriesById = HashMap<i32, u64>;

pub(super) struct Check<'a> {
    traffic: &'a Traffic,
    ledger: &'a Ledger,
    /// Numbers of the readings in the table `reading`.
    stored: BitSet,
    /// Numbers of the readings in the table `dead_letter`.
    dead_lettered: BitSet,
    verdict: Verdict,
}

impl<'a> Check<'a> {
    pub(super) fn new(traffic: &'a Traffic, ledger: &'a Ledger) -> Self {
        let readings = ledger.len() * traffic.scenario().batch;
        Self {
            traffic,
            ledger,
            stored: BitSet::new(readings),
            dead_lettered: BitSet::new(readings),
            verdict: Verdict::default(),
        }
    }

    /// Reads all tables.
    ///
    /// # Errors
    /// The database does not respond.
    pub(super) async fn read(&mut self, client: &Client) -> anyhow::Result<()> {
        let mut series = SeriesById::new();
        let prefix = &self.traffic.scenario().fleet.prefix;
        for row in client.query(SERIES, &[prefix]).await? {
            if let Some(number) = self.traffic.series_of(row.get(1), row.get(2)) {
                series.insert(row.get(0), number);
            }
        }
        self.read_rows(client, &series).await?;
        self.read_dead_letters(client, &series).await?;
        self.read_conflicts(client, &series).await?;
        for row in client
            .query(INVALID_NAMES, &[&self.traffic.long_name()])
            .await?
        {
            let length: i32 = row.get(0);
            self.verdict.add_violation(REJECTED, || {
                format!("a device whose name has a length of {length}")
            });
        }
        Ok(())
    }

    async fn read_rows(&mut self, client: &Client, series: &SeriesById) -> anyhow::Result<()> {
        let (first, last) = self.traffic.times(self.ledger.len());
        let copy = format!(
            "COPY (SELECT series_id, measured_at, value FROM reading \
             WHERE measured_at BETWEEN {} AND {} OR measured_at >= {}) \
             TO STDOUT (FORMAT binary)",
            timestamp(first),
            timestamp(last),
            timestamp(FUTURE)
        );
        let rows = client.copy_out(&copy).await?;
        let rows = BinaryCopyOutStream::new(rows, &[Type::INT4, Type::TIMESTAMPTZ, Type::FLOAT8]);
        pin_mut!(rows);
        while let Some(row) = rows.next().await {
            let row = row?;
            if let Some(&series) = series.get(&row.get::<i32>(0)) {
                let Timestamp(measured_at) = row.get(1);
                self.check_row(series, measured_at, row.get(2));
            }
        }
        Ok(())
    }

    async fn read_dead_letters(
        &mut self,
        client: &Client,
        series: &SeriesById,
    ) -> anyhow::Result<()> {
        let ids: Vec<i32> = series.keys().copied().collect();
        let rows = client.query_raw(DEAD_LETTERS, [&ids]).await?;
        pin_mut!(rows);
        while let Some(row) = rows.next().await {
            let row = row?;
            if let Some(number) = self.find(series, row.get(0), row.get(1)) {
                self.verdict.dead_lettered += 1;
                self.dead_lettered.insert(number);
            }
        }
        Ok(())
    }

    async fn read_conflicts(&mut self, client: &Client, series: &SeriesById) -> anyhow::Result<()> {
        let ids: Vec<i32> = series.keys().copied().collect();
        let rows = client.query_raw(CONFLICTS, [&ids]).await?;
        pin_mut!(rows);
        while let Some(row) = rows.next().await {
            let row = row?;
            if let Some(number) = self.find(series, row.get(0), row.get(1)) {
                let (stored, offered): (f64, f64) = (row.get(2), row.get(3));
                self.verdict.add_violation("a reading has one value", || {
                    format!("reading {number}: {stored} is stored and {offered} was offered")
                });
            }
        }
        Ok(())
    }

    /// The number of the reading that a row with this series id and time comes from.
    fn find(&self, series: &SeriesById, id: i32, measured_at: Micros) -> Option<u64> {
        let series = *series.get(&id)?;
        self.traffic.find(series, measured_at, self.ledger.len())
    }

    fn check_row(&mut self, series: u64, measured_at: Micros, value: f64) {
        let row = || format!("series {series} at {measured_at} µs");
        if measured_at >= FUTURE {
            self.verdict
                .add_violation(REJECTED, || format!("{}, in the future", row()));
            return;
        }
        let Some(number) = self.traffic.find(series, measured_at, self.ledger.len()) else {
            if self.traffic.is_of_this_run(measured_at) {
                self.verdict
                    .add_violation(SENT, || format!("{}: {value}", row()));
            } else {
                self.verdict.of_other_runs += 1;
            }
            return;
        };
        self.verdict.stored += 1;
        let expected = self.traffic.reading(number).value();
        if value.to_bits() != expected.to_bits() {
            self.verdict
                .add_violation("values are stored as they were sent", || {
                    format!("reading {number}: {value} instead of {expected}")
                });
        }
        if !self.stored.insert(number) {
            self.verdict
                .add_violation("each reading is stored once", || {
                    format!("reading {number} at {measured_at} µs")
                });
        }
    }

    /// Rows of this run's series.
    pub(super) fn rows(&self) -> u64 {
        self.verdict.stored + self.verdict.of_other_runs
    }

    fn is_present(&self, number: u64) -> bool {
        self.stored.contains(number) || self.dead_lettered.contains(number)
    }

    /// Calls `visit` with the number of each reading, whether it is valid, and the outcome of its
    /// request.
    fn for_each(&self, mut visit: impl FnMut(u64, bool, Outcome)) {
        let batch = self.traffic.scenario().batch;
        for request in 0..self.ledger.len() {
            let outcome = self.ledger.get(request);
            let is_request_valid = self.traffic.request_fault(request).is_none();
            for number in request * batch..(request + 1) * batch {
                let is_valid = is_request_valid && self.traffic.reading(number).fault.is_none();
                visit(number, is_valid, outcome);
            }
        }
    }

    /// Whether an accepted reading is missing.
    pub(super) fn is_incomplete(&self) -> bool {
        let mut is_incomplete = false;
        self.for_each(|number, is_valid, outcome| {
            is_incomplete |= outcome == Outcome::Accepted && is_valid && !self.is_present(number);
        });
        is_incomplete
    }

    pub(super) fn into_verdict(mut self) -> Verdict {
        let mut verdict = std::mem::take(&mut self.verdict);
        self.for_each(|number, is_valid, outcome| {
            let is_present = self.is_present(number);
            let example = || {
                let reading = self.traffic.reading(number);
                format!(
                    "reading {number} of request {}: series {} at {} µs",
                    number / self.traffic.scenario().batch,
                    reading.series,
                    reading.measured_at
                )
            };
            match (outcome, is_valid) {
                (Outcome::Accepted, true) => {
                    verdict.accepted += 1;
                    if !is_present {
                        let promise = "every accepted reading is stored or dead-lettered";
                        verdict.add_violation(promise, example);
                    }
                    if self.stored.contains(number) && self.dead_lettered.contains(number) {
                        verdict.add_violation("no dead-lettered reading is stored", example);
                    }
                }
                (Outcome::Unknown, true) => verdict.unknown += 1,
                (Outcome::Unsent, _) => {
                    verdict.rejected += 1;
                    if is_present {
                        verdict.add_violation(SENT, example);
                    }
                }
                (Outcome::Rejected, _) | (_, false) => {
                    verdict.rejected += 1;
                    if is_present {
                        verdict.add_violation(REJECTED, example);
                    }
                }
            }
        });
        verdict
    }
}

/// A `timestamptz` as an SQL expression.
fn timestamp(micros: Micros) -> String {
    format!("('epoch'::timestamptz + {micros} * interval '1 microsecond')")
}

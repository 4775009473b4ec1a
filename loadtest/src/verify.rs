//! Proof: what the database holds, against what the ledger says.
//!
//! In: a report, its ledger, the database. Out: how many readings are where they should be, and every kind of one that is
//! not, with examples. Each row leads back to the one reading that it can come from, so that one bit a reading is enough.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{StreamExt as _, pin_mut};
use schema::reading::Micros;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, NoTls};

use crate::ledger::{Fate, Ledger};
use crate::observe;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::traffic::Traffic;

/// Examples of each kind of violation.
const EXAMPLES: usize = 5;
/// Microseconds from 1970 to 2000, where PostgreSQL's clock begins.
const EPOCH: Micros = 946_684_800_000_000;
/// Time between two looks at a database that is not through yet.
const LOOK: Duration = Duration::from_millis(500);

/// What was promised and is not so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// The promise.
    pub promise: String,
    /// Readings that break it, or rows, or counters.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Readings that were accepted.
    pub accepted: u64,
    /// Readings that must not be there: rejected, or never sent.
    pub rejected: u64,
    /// Readings without a final answer, which may be there or not.
    pub unknown: u64,
    /// Rows of this run in the table.
    pub stored: u64,
    /// Its readings in the table `dead_letter`.
    pub dead_lettered: u64,
    /// Rows of this run's series that have another run's mark, within the same time.
    pub of_other_runs: u64,
    /// What is not as it was promised. Empty: all is well.
    pub violations: Vec<Violation>,
}

impl Verdict {
    fn violate(&mut self, promise: &str, example: impl FnOnce() -> String) {
        let at = self.violations.iter().position(|one| one.promise == promise).unwrap_or_else(|| {
            self.violations.push(Violation { promise: promise.to_owned(), ..Violation::default() });
            self.violations.len() - 1
        });
        let violation = &mut self.violations[at];
        violation.count += 1;
        if violation.examples.len() < EXAMPLES {
            violation.examples.push(example());
        }
    }
}

/// What to verify.
#[derive(Debug)]
pub struct Verify<'a> {
    /// Of the run.
    pub report: &'a Report,
    /// See [`Ledger`].
    pub ledger: &'a Ledger,
    /// Where the readings are.
    pub database_url: &'a str,
    /// Admin ports of every process, where the counters are to be compared.
    pub admins: &'a [String],
    /// How long what was accepted may take until it is stored.
    pub settle: Duration,
}

impl Verify<'_> {
    /// Reads the database, again and again while something that was accepted is missing and `settle` has not gone by.
    ///
    /// # Errors
    /// The database or an admin port cannot be asked. That a promise is broken is no error but the verdict.
    pub async fn execute(&self) -> anyhow::Result<Verdict> {
        let (client, connection) = tokio_postgres::connect(self.database_url, NoTls).await.context("the database")?;
        tokio::spawn(connection);
        let scenario = Scenario::parse(&self.report.scenario).context("the report's scenario")?;
        let traffic = Traffic::new(&scenario, self.report.begin);
        let begun = Instant::now();
        loop {
            let mut check = Check::new(&traffic, self.ledger);
            check.read(&client).await?;
            let is_missing = check.is_missing();
            if !is_missing || begun.elapsed() > self.settle {
                let mut verdict = check.judge();
                if self.report.counts.unlike > 0 {
                    let examples = self.report.unlike.iter().take(EXAMPLES).cloned().collect();
                    let promise = "answers say what became of what was sent".to_owned();
                    verdict.violations.push(Violation { promise, count: self.report.counts.unlike, examples });
                }
                self.compare_counters(&mut verdict).await?;
                return Ok(verdict);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The counters of the processes, since they were started, against each other and against the ledger.
    async fn compare_counters(&self, verdict: &mut Verdict) -> anyhow::Result<()> {
        if self.admins.is_empty() {
            return Ok(());
        }
        let books = observe::look(self.admins).await?.books;
        let (accepted, settled) = (books.accepted, books.settled());
        if settled < accepted || settled > accepted + books.unconfirmed {
            verdict.violate("accepted = persisted + duplicate + conflict + dead-lettered", || {
                format!("accepted {accepted} (and {} unconfirmed), settled {settled}: {books:?}", books.unconfirmed)
            });
        }
        if accepted < verdict.accepted as f64 {
            let ours = verdict.accepted;
            verdict
                .violate("the front ends count what they accept", || format!("{accepted}, but {ours} were accepted"));
        }
        Ok(())
    }
}

/// Bits by number.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: u64) -> Self {
        Self(vec![0; len.div_ceil(64) as usize])
    }

    /// Sets a bit, and says whether it was set before.
    fn set(&mut self, at: u64) -> bool {
        let (word, bit) = (&mut self.0[(at / 64) as usize], 1 << (at % 64));
        let was = *word & bit != 0;
        *word |= bit;
        was
    }

    fn get(&self, at: u64) -> bool {
        self.0[(at / 64) as usize] & 1 << (at % 64) != 0
    }
}

struct Check<'a> {
    traffic: &'a Traffic,
    ledger: &'a Ledger,
    stored: Bits,
    dead: Bits,
    verdict: Verdict,
}

impl<'a> Check<'a> {
    fn new(traffic: &'a Traffic, ledger: &'a Ledger) -> Self {
        let readings = ledger.len() * traffic.scenario().batch;
        let (stored, dead) = (Bits::new(readings), Bits::new(readings));
        Self { traffic, ledger, stored, dead, verdict: Verdict::default() }
    }

    async fn read(&mut self, client: &Client) -> anyhow::Result<()> {
        let prefix = &self.traffic.scenario().fleet.prefix;
        let names = "SELECT s.id, d.external_id, s.metric FROM series s JOIN device d ON d.id = s.device_id \
                     WHERE starts_with(d.external_id, $1)";
        let mut series = HashMap::new();
        for row in client.query(names, &[prefix]).await? {
            if let Some(number) = self.traffic.series_of(row.get(1), row.get(2)) {
                series.insert(row.get::<_, i32>(0), number);
            }
        }
        let (first, last) = self.traffic.times(self.ledger.len());
        let rows = format!(
            "COPY (SELECT series_id, measured_at, value FROM reading WHERE measured_at BETWEEN {} AND {}) \
             TO STDOUT (FORMAT binary)",
            timestamp(first),
            timestamp(last)
        );
        let rows = client.copy_out(&rows).await?;
        let rows = BinaryCopyOutStream::new(rows, &[Type::INT4, Type::TIMESTAMPTZ, Type::FLOAT8]);
        pin_mut!(rows);
        while let Some(row) = rows.next().await {
            let row = row?;
            if let Some(&series) = series.get(&row.get::<i32>(0)) {
                let Time(measured_at) = row.get(1);
                self.row(series, measured_at, row.get(2));
            }
        }
        let dead = client
            .query("SELECT series_id, measured_at_us, code FROM dead_letter WHERE series_id IS NOT NULL", &[])
            .await?;
        for row in dead {
            let number = series.get(&row.get::<_, i32>(0));
            let found = number.and_then(|&series| self.traffic.find(series, row.get(1), self.ledger.len()));
            if let Some(number) = found {
                self.verdict.dead_lettered += 1;
                self.dead.set(number);
            }
        }
        let conflicts = client
            .query(
                "SELECT series_id, (extract(epoch FROM measured_at) * 1000000)::bigint, stored_value, offered_value \
                 FROM conflict",
                &[],
            )
            .await?;
        for row in conflicts {
            let number = series.get(&row.get::<_, i32>(0));
            let found = number.and_then(|&series| self.traffic.find(series, row.get(1), self.ledger.len()));
            if let Some(number) = found {
                let (stored, offered): (f64, f64) = (row.get(2), row.get(3));
                let text = || format!("reading {number}: {stored} is stored and {offered} was offered");
                self.verdict.violate("a reading has one value", text);
            }
        }
        Ok(())
    }

    fn row(&mut self, series: u64, measured_at: Micros, value: f64) {
        let Some(number) = self.traffic.find(series, measured_at, self.ledger.len()) else {
            if self.traffic.is_of_this_run(measured_at) {
                let text = || format!("series {series} at {measured_at} µs: {value}");
                self.verdict.violate("what is stored was sent", text);
            } else {
                self.verdict.of_other_runs += 1;
            }
            return;
        };
        self.verdict.stored += 1;
        let expected = self.traffic.reading(number).value();
        if value.to_bits() != expected.to_bits() {
            let text = || format!("reading {number}: {value} instead of {expected}");
            self.verdict.violate("values are stored as they were sent", text);
        }
        if self.stored.set(number) {
            self.verdict.violate("each reading is stored once", || format!("reading {number} at {measured_at} µs"));
        }
    }

    /// Calls `visit` with each reading that was numbered, whether it is good, and the fate of its request.
    fn each(&self, mut visit: impl FnMut(u64, bool, Fate)) {
        let batch = self.traffic.scenario().batch;
        for request in 0..self.ledger.len() {
            let fate = self.ledger.get(request);
            let is_hostile = self.traffic.hostile(request).is_some();
            for number in request * batch..(request + 1) * batch {
                visit(number, !is_hostile && self.traffic.reading(number).bad.is_none(), fate);
            }
        }
    }

    fn is_missing(&self) -> bool {
        let mut is_missing = false;
        self.each(|number, good, fate| {
            is_missing |= fate == Fate::Accepted && good && !self.stored.get(number) && !self.dead.get(number);
        });
        is_missing
    }

    fn judge(mut self) -> Verdict {
        let mut verdict = std::mem::take(&mut self.verdict);
        self.each(|number, good, fate| {
            let is_there = self.stored.get(number) || self.dead.get(number);
            let text = || {
                let reading = self.traffic.reading(number);
                format!(
                    "reading {number} of request {}: series {} at {} µs",
                    number / self.traffic.scenario().batch,
                    reading.series,
                    reading.measured_at
                )
            };
            match (fate, good) {
                (Fate::Accepted, true) => {
                    verdict.accepted += 1;
                    if !is_there {
                        verdict.violate("what was accepted is stored or dead-lettered", text);
                    }
                    if self.stored.get(number) && self.dead.get(number) {
                        verdict.violate("what is dead-lettered is not stored", text);
                    }
                }
                (Fate::Unknown, true) => verdict.unknown += 1,
                (Fate::Unsent, _) => {
                    if is_there {
                        verdict.violate("what is stored was sent", text);
                    }
                }
                (Fate::Rejected, _) | (_, false) => {
                    verdict.rejected += 1;
                    if is_there {
                        verdict.violate("what was rejected is not stored", text);
                    }
                }
            }
        });
        verdict
    }
}

fn timestamp(micros: Micros) -> String {
    format!("('epoch'::timestamptz + {micros} * interval '1 microsecond')")
}

/// A `timestamptz` in microseconds since 1970.
struct Time(Micros);

impl<'a> FromSql<'a> for Time {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?).saturating_add(EPOCH)))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }
}

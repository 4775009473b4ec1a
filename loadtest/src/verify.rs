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
use crate::observe::{self, Books};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::traffic::{FUTURE, Traffic};

/// A promise that several looks can find broken.
const REJECTED: &str = "what was rejected is not stored";
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
        let at = self
            .violations
            .iter()
            .position(|one| one.promise == promise)
            .unwrap_or_else(|| {
                self.violations.push(Violation {
                    promise: promise.to_owned(),
                    ..Violation::default()
                });
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
    /// Reads the database, again and again while something may still be under way and `settle` has not gone by: something
    /// that was accepted is missing, the counters do not agree, or, where there are none, rows still come in.
    ///
    /// # Errors
    /// The database or an admin port cannot be asked. That a promise is broken is no error but the verdict.
    pub async fn execute(&self) -> anyhow::Result<Verdict> {
        let (client, connection) = tokio_postgres::connect(self.database_url, NoTls)
            .await
            .context("the database")?;
        tokio::spawn(connection);
        let scenario = Scenario::parse(&self.report.scenario).context("the report's scenario")?;
        let traffic = Traffic::new(&scenario, self.report.begin);
        let (begun, mut before) = (Instant::now(), None);
        loop {
            let is_over = begun.elapsed() >= self.settle;
            // Before the tables: what the counters have is in them.
            let books = self.books().await?;
            let agree = books.is_none_or(|books| Self::agree(&books));
            let mut check = None;
            if agree || is_over {
                let mut now = Check::new(&traffic, self.ledger);
                now.read(&client).await?;
                let rows = now.verdict.stored + now.verdict.of_other_runs;
                let is_still = books.is_some() || before.replace(rows) == Some(rows);
                let is_through = agree && is_still && !now.is_missing();
                check = (is_through || is_over).then_some(now);
            }
            let Some(check) = check else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let mut verdict = check.judge();
            if self.report.counts.unlike > 0 {
                let examples = self.report.unlike.iter().take(EXAMPLES).cloned().collect();
                let promise = "answers say what became of what was sent".to_owned();
                verdict.violations.push(Violation {
                    promise,
                    count: self.report.counts.unlike,
                    examples,
                });
            }
            if let Some(books) = books {
                Self::compare(&books, &mut verdict);
            }
            return Ok(verdict);
        }
    }

    /// The counters of the processes, since they were started.
    async fn books(&self) -> anyhow::Result<Option<Books>> {
        match self.admins {
            [] => Ok(None),
            admins => Ok(Some(observe::look(admins).await?.books)),
        }
    }

    /// Whether everything accepted is settled, and nothing else but what nobody was promised.
    fn agree(books: &Books) -> bool {
        books.settled() >= books.accepted && books.settled() <= books.accepted + books.unconfirmed
    }

    /// The counters against each other and against the ledger.
    fn compare(books: &Books, verdict: &mut Verdict) {
        let (accepted, settled) = (books.accepted, books.settled());
        if !Self::agree(books) {
            verdict.violate(
                "accepted = persisted + duplicate + conflict + dead-lettered",
                || {
                    format!(
                        "accepted {accepted} (and {} unconfirmed), settled {settled}: {books:?}",
                        books.unconfirmed
                    )
                },
            );
        }
        if accepted < verdict.accepted as f64 {
            let ours = verdict.accepted;
            verdict.violate("the front ends count what they accept", || {
                format!("{accepted}, but {ours} were accepted")
            });
        }
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
        Self {
            traffic,
            ledger,
            stored,
            dead,
            verdict: Verdict::default(),
        }
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
            "COPY (SELECT series_id, measured_at, value FROM reading WHERE measured_at BETWEEN {} AND {} \
             OR measured_at >= {}) TO STDOUT (FORMAT binary)",
            timestamp(first),
            timestamp(last),
            timestamp(FUTURE)
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
        let ids: Vec<i32> = series.keys().copied().collect();
        let dead = "SELECT series_id, measured_at_us FROM dead_letter WHERE series_id = ANY ($1)";
        let dead = client.query_raw(dead, [&ids]).await?;
        pin_mut!(dead);
        while let Some(row) = dead.next().await {
            let row = row?;
            if let Some(number) = self.find(&series, row.get(0), row.get(1)) {
                self.verdict.dead_lettered += 1;
                self.dead.set(number);
            }
        }
        let conflicts = "SELECT series_id, (extract(epoch FROM measured_at) * 1000000)::bigint, stored_value, offered_value \
                         FROM conflict WHERE series_id = ANY ($1)";
        let conflicts = client.query_raw(conflicts, [&ids]).await?;
        pin_mut!(conflicts);
        while let Some(row) = conflicts.next().await {
            let row = row?;
            if let Some(number) = self.find(&series, row.get(0), row.get(1)) {
                let (stored, offered): (f64, f64) = (row.get(2), row.get(3));
                let text =
                    || format!("reading {number}: {stored} is stored and {offered} was offered");
                self.verdict.violate("a reading has one value", text);
            }
        }
        let long = self.traffic.long_name();
        let bad_names = "SELECT octet_length(external_id) FROM device WHERE external_id IN ('', $1, left($1, 256))";
        for row in client.query(bad_names, &[&long]).await? {
            let text = || {
                format!(
                    "a device with a name of {} characters",
                    row.get::<_, i32>(0)
                )
            };
            self.verdict.violate(REJECTED, text);
        }
        Ok(())
    }

    /// The reading that a row with the time in microseconds comes from.
    fn find(&self, series: &HashMap<i32, u64>, id: i32, measured_at: Micros) -> Option<u64> {
        self.traffic
            .find(*series.get(&id)?, measured_at, self.ledger.len())
    }

    fn row(&mut self, series: u64, measured_at: Micros, value: f64) {
        if measured_at >= FUTURE {
            self.verdict.violate(REJECTED, || {
                format!("series {series} at {measured_at} µs, in the future")
            });
            return;
        }
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
            self.verdict
                .violate("values are stored as they were sent", text);
        }
        if self.stored.set(number) {
            self.verdict.violate("each reading is stored once", || {
                format!("reading {number} at {measured_at} µs")
            });
        }
    }

    /// Calls `visit` with each reading that was numbered, whether it is good, and the fate of its request.
    fn each(&self, mut visit: impl FnMut(u64, bool, Fate)) {
        let batch = self.traffic.scenario().batch;
        for request in 0..self.ledger.len() {
            let fate = self.ledger.get(request);
            let is_hostile = self.traffic.hostile(request).is_some();
            for number in request * batch..(request + 1) * batch {
                visit(
                    number,
                    !is_hostile && self.traffic.reading(number).bad.is_none(),
                    fate,
                );
            }
        }
    }

    fn is_missing(&self) -> bool {
        let mut is_missing = false;
        self.each(|number, good, fate| {
            is_missing |= fate == Fate::Accepted
                && good
                && !self.stored.get(number)
                && !self.dead.get(number);
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
                    verdict.rejected += 1;
                    if is_there {
                        verdict.violate("what is stored was sent", text);
                    }
                }
                (Fate::Rejected, _) | (_, false) => {
                    verdict.rejected += 1;
                    if is_there {
                        verdict.violate(REJECTED, text);
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
        Ok(Self(
            i64::from_be_bytes(raw.try_into()?).saturating_add(EPOCH),
        ))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }
}

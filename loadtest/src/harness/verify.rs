//! Verification: the contents of the database, compared with the ledger.
//!
//! In: a report, its ledger, and the database. Out: a [`Verdict`] with the number of readings in
//! each state, and every broken promise with examples. Each row identifies the reading that it
//! comes from, so one bit per reading is enough. A broken promise is a result; an unavailable
//! database or process is an error.

mod check;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use testbed::postgres::connect;

use self::check::Check;
use crate::harness::report::Report;
use crate::harness::scrape::{Books, scrape};
use crate::ledger::Ledger;
use crate::scenario::Scenario;
use crate::traffic::Traffic;

/// Limit of examples for each broken promise.
const MAX_EXAMPLES: usize = 5;
/// Interval of reads while the database is not complete.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A broken promise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// The promise.
    pub promise: String,
    /// Number of readings, rows or counters that break it.
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
    /// Readings that must not be stored: rejected or never sent.
    pub rejected: u64,
    /// Readings without a final response, which may be stored or not.
    pub unknown: u64,
    /// Rows of this run in the table.
    pub stored: u64,
    /// Readings of this run in the table `dead_letter`.
    pub dead_lettered: u64,
    /// Rows of this run's series with the mark of another run, within the same time.
    pub of_other_runs: u64,
    /// Broken promises; empty if every promise holds.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Counts one case of a broken promise.
    fn add_violation(&mut self, promise: &str, example: impl FnOnce() -> String) {
        let known = self
            .violations
            .iter()
            .position(|own| own.promise == promise);
        let index = known.unwrap_or_else(|| {
            self.violations.push(Violation {
                promise: promise.to_owned(),
                ..Violation::default()
            });
            self.violations.len() - 1
        });
        let violation = &mut self.violations[index];
        violation.count += 1;
        if violation.examples.len() < MAX_EXAMPLES {
            violation.examples.push(example());
        }
    }
}

/// What to verify.
#[derive(Debug)]
pub struct Verify<'a> {
    /// The report of the run.
    pub report: &'a Report,
    /// The ledger of the run.
    pub ledger: &'a Ledger,
    /// The database that stores the readings.
    pub database_url: &'a str,
    /// Admin address of every process, to compare their counters; may be empty.
    pub admins: &'a [String],
    /// Time limit until everything accepted is stored.
    pub drain_timeout: Duration,
}

impl Verify<'_> {
    /// Reads the database, and repeats that up to the time limit while readings may be in flight:
    /// an accepted reading is missing, the counters do not balance, or, without counters, the
    /// number of rows grows.
    ///
    /// # Errors
    /// The database or a process does not respond, or the scenario of the report is not valid.
    pub async fn execute(&self) -> anyhow::Result<Verdict> {
        let client = connect(self.database_url).await.context("the database")?;
        let scenario = Scenario::parse(&self.report.scenario).context("the report's scenario")?;
        let traffic = Traffic::new(&scenario, self.report.begin);
        let (started, mut rows_before) = (Instant::now(), None);
        loop {
            let is_last = started.elapsed() >= self.drain_timeout;
            // Before the tables, which then contain everything that is counted.
            let books = self.books().await?;
            let is_balanced = books.is_none_or(|books| is_balanced(&books));
            if is_balanced || is_last {
                let mut check = Check::new(&traffic, self.ledger);
                check.read(&client).await?;
                let rows = check.rows();
                let is_stable = books.is_some() || rows_before.replace(rows) == Some(rows);
                if is_last || (is_balanced && is_stable && !check.is_incomplete()) {
                    let mut verdict = check.into_verdict();
                    self.add_mismatches(&mut verdict);
                    if let Some(books) = books {
                        check_books(&books, &mut verdict);
                    }
                    return Ok(verdict);
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Adds the mismatched responses of the run.
    fn add_mismatches(&self, verdict: &mut Verdict) {
        let count = self.report.counts.mismatched;
        if count > 0 {
            let examples = self.report.examples.iter().take(MAX_EXAMPLES);
            verdict.violations.push(Violation {
                promise: "every response matches its request".to_owned(),
                count,
                examples: examples.cloned().collect(),
            });
        }
    }

    /// The counters of the processes since their start; none without admin addresses.
    async fn books(&self) -> anyhow::Result<Option<Books>> {
        match self.admins {
            [] => Ok(None),
            admins => Ok(Some(scrape(admins).await?.books)),
        }
    }
}

/// Whether every accepted reading is processed, and nothing else but unconfirmed readings.
fn is_balanced(books: &Books) -> bool {
    let processed = books.processed();
    processed >= books.accepted && processed <= books.accepted + books.unconfirmed
}

/// Compares the counters with each other and with the ledger.
fn check_books(books: &Books, verdict: &mut Verdict) {
    let Books {
        accepted,
        unconfirmed,
        ..
    } = *books;
    if !is_balanced(books) {
        let processed = books.processed();
        verdict.add_violation(
            "accepted = persisted + duplicate + conflict + dead-lettered",
            || {
                format!(
                    "accepted {accepted} (and {unconfirmed} unconfirmed), processed {processed}: \
                     persisted {}, duplicate {}, conflict {}, dead-lettered {}",
                    books.persisted, books.duplicate, books.conflict, books.dead_lettered
                )
            },
        );
    }
    let in_ledger = verdict.accepted;
    if accepted < in_ledger as f64 {
        verdict.add_violation("the front ends count every accepted reading", || {
            format!("{accepted} are counted, {in_ledger} were accepted")
        });
    }
}

//! The balance of the books (every counter adds up), and what is stored in the tables.
//!
//! In: the counters of the running processes and the rows of the tables. Out: nothing, or an error
//! that states what was expected and what was found. The books balance when
//! `received = accepted + rejected + unavailable` and
//! `accepted = persisted + duplicate + conflict + dead-lettered`.

use std::collections::{BTreeMap, HashMap};

use anyhow::ensure;
use testbed::process::Process;
use testbed::wait::until_ok;

use super::{BEGIN, LIMIT, SentRequest, Site, try_connect};

/// Readings by outcome of the front ends that are running.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrontEndCounters {
    pub received: u64,
    pub accepted: u64,
    pub rejected: u64,
    pub unavailable: u64,
    /// The part of `unavailable` that may be stored nevertheless.
    pub unconfirmed: u64,
}

/// What became of the readings that were accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcomes {
    pub persisted: u64,
    pub duplicate: u64,
    pub conflict: u64,
    pub dead_lettered: u64,
}

impl Outcomes {
    fn sum(self) -> u64 {
        self.persisted + self.duplicate + self.conflict + self.dead_lettered
    }
}

/// Rows of the tables that hold readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub reading: u64,
    pub conflict: u64,
    pub dead_letter: u64,
}

/// Every number that has to balance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Books {
    /// Sums over the front ends that are running; `None` if there are none.
    pub front_ends: Option<FrontEndCounters>,
    /// Whether every front end that was started is running. The counters of the others are lost.
    pub front_ends_complete: bool,
    /// Whether accepted readings reach the ledger: a worker is running, or the queue was drained.
    pub drained: bool,
    /// The counters of the worker; `None` if one that was started is no longer running.
    pub worker: Option<Outcomes>,
    /// Readings in the ledger.
    pub ledger_readings: u64,
    /// The same by outcome.
    pub ledger: Outcomes,
    /// Rows in the tables.
    pub rows: Rows,
}

impl Books {
    /// Compares the numbers; the error states the first two that differ.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ledger_readings = self.ledger_readings;
        if let Some(front) = self.front_ends {
            let FrontEndCounters {
                received,
                accepted,
                rejected,
                unavailable,
                unconfirmed,
            } = front;
            if received != accepted + rejected + unavailable {
                return Err(format!(
                    "expected received {received} = accepted {accepted} + rejected {rejected} \
                     + unavailable {unavailable}"
                ));
            }
            let lost = self.drained && ledger_readings < accepted;
            let invented = self.front_ends_complete && ledger_readings > accepted + unconfirmed;
            if lost || invented {
                return Err(format!(
                    "expected {accepted} accepted readings (and up to {unconfirmed} unconfirmed) \
                     in the ledger, but the ledger has {ledger_readings}"
                ));
            }
        }
        let sum = self.ledger.sum();
        if sum != ledger_readings {
            return Err(format!(
                "expected {ledger_readings} outcomes in the ledger, got {sum}"
            ));
        }
        for (table, expected, rows) in [
            ("reading", self.ledger.persisted, self.rows.reading),
            ("conflict", self.ledger.conflict, self.rows.conflict),
            (
                "dead_letter",
                self.ledger.dead_lettered,
                self.rows.dead_letter,
            ),
        ] {
            if rows != expected {
                return Err(format!(
                    "expected {expected} rows in {table} as the ledger has, got {rows}"
                ));
            }
        }
        if let Some(worker) = self.worker {
            for (outcome, expected, counted) in [
                ("persisted", self.ledger.persisted, worker.persisted),
                ("duplicate", self.ledger.duplicate, worker.duplicate),
                ("conflict", self.ledger.conflict, worker.conflict),
                (
                    "dead_lettered",
                    self.ledger.dead_lettered,
                    worker.dead_lettered,
                ),
            ] {
                if counted != expected {
                    return Err(format!(
                        "expected the worker to count {expected} {outcome} as the ledger has, \
                         got {counted}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn readings(process: &Process, outcome: &str) -> anyhow::Result<u64> {
    Ok(process.try_metric(&format!("gridwatch_readings_{outcome}"))? as u64)
}

impl Site {
    async fn read_books(&self) -> anyhow::Result<Books> {
        let running = self.running_front_ends();
        let sum = |outcome: &str| {
            running
                .iter()
                .map(|front| readings(front, outcome))
                .sum::<anyhow::Result<u64>>()
        };
        let front_ends = if running.is_empty() {
            None
        } else {
            Some(FrontEndCounters {
                received: sum("received_total")?,
                accepted: sum("accepted_total")?,
                rejected: sum("rejected_total")?,
                unavailable: sum("unavailable_total")?,
                unconfirmed: sum("unavailable_total{reason=\"unconfirmed\"}")?,
            })
        };
        let worker = match (self.workers_started, &self.worker) {
            (1, Some(worker)) => Some(Outcomes {
                persisted: readings(worker, "persisted_total")?,
                duplicate: readings(worker, "duplicate_total")?,
                conflict: readings(worker, "conflict_total")?,
                dead_lettered: readings(worker, "dead_lettered_total")?,
            }),
            _ => None,
        };
        // One statement, so that all numbers come from one snapshot.
        let row = try_connect(&self.database_url)
            .await?
            .query_one(
                "SELECT coalesce(sum(readings), 0)::bigint, coalesce(sum(stored), 0)::bigint,
                        coalesce(sum(duplicates), 0)::bigint, coalesce(sum(conflicts), 0)::bigint,
                        coalesce(sum(dead_letters), 0)::bigint,
                        (SELECT count(*) FROM reading), (SELECT count(*) FROM conflict),
                        (SELECT count(*) FROM dead_letter WHERE batch_id IS NOT NULL)
                 FROM batch",
                &[],
            )
            .await?;
        let number = |column: usize| row.get::<_, i64>(column) as u64;
        Ok(Books {
            front_ends,
            front_ends_complete: running.len() == self.front_ends_started,
            drained: self.worker.is_some() || self.queue_drained,
            worker,
            ledger_readings: number(0),
            ledger: Outcomes {
                persisted: number(1),
                duplicate: number(2),
                conflict: number(3),
                dead_lettered: number(4),
            },
            rows: Rows {
                reading: number(5),
                conflict: number(6),
                dead_letter: number(7),
            },
        })
    }

    /// Compares the books once.
    pub(crate) async fn check_books(&self) -> anyhow::Result<()> {
        let books = self.read_books().await?;
        books
            .check()
            .map_err(|difference| anyhow::anyhow!("{difference}; all numbers: {books:?}"))
    }

    /// Waits until every accepted reading is processed and the books balance.
    pub(crate) async fn wait_for_books(&self) -> anyhow::Result<()> {
        until_ok("the books balance", self.books_limit, async || {
            self.check_books().await
        })
        .await
    }

    /// As [`Site::wait_for_books`]; an error fails the test. A site asserts the same when it is
    /// dropped; tests that stop a process afterwards call this while its counters can be read.
    pub(crate) async fn assert_books(&self) {
        if let Err(error) = self.wait_for_books().await {
            panic!("{error:#}");
        }
    }
}

/// Compares the table with the requests: every accepted reading is stored, every stored reading was
/// sent, and every value is stored as it was sent. The key of the table ensures that each is there
/// once.
pub(crate) async fn check_stored(
    database: &tokio_postgres::Client,
    sent: &[SentRequest],
) -> anyhow::Result<()> {
    let rows = database
        .query(
            "SELECT external_id, extract(epoch FROM measured_at)::bigint - $1, value
             FROM reading
             JOIN series ON series.id = series_id
             JOIN device ON device.id = device_id",
            &[&(BEGIN / 1_000_000)],
        )
        .await?;
    let mut stored: HashMap<(String, i64), f64> = rows
        .iter()
        .map(|row| ((row.get(0), row.get(1)), row.get(2)))
        .collect();
    let mut missing = BTreeMap::new();
    for request in sent {
        let device = &request.device;
        for at in request.first..request.first + request.count {
            match stored.remove(&(device.clone(), at)) {
                Some(value) => ensure!(
                    value == at as f64,
                    "{device} at {at} is stored as {value}, expected {at}"
                ),
                None if request.accepted => *missing.entry(device).or_insert(0) += 1,
                None => {}
            }
        }
    }
    ensure!(missing.is_empty(), "accepted and not stored: {missing:?}");
    let more = stored.len();
    ensure!(more == 0, "{more} readings are stored that were not sent");
    Ok(())
}

/// Waits until [`check_stored`] succeeds.
pub(crate) async fn assert_stored(site: &Site, sent: &[SentRequest]) {
    let stored = until_ok("every accepted reading is stored", LIMIT, async || {
        check_stored(&try_connect(&site.database_url).await?, sent).await
    });
    if let Err(error) = stored.await {
        panic!("{error:#}");
    }
}

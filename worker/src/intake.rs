//! Intake: deliveries into loads, loads to writers, and acknowledgements back, in one loop.
//!
//! In: deliveries. Out: every delivery is acknowledged after its commit, or rejected after its reason was committed, or
//! given back. What is held is bounded by the source's prefetch and by the rows of a load; at the bound nothing more is taken.

use std::sync::Arc;

use schema::partition::{Days, MAX_DAYS};
use schema::reading::check_calendar;
use schema::{Batch, clock, metric};
use service::health::Health;
use service::source::{Delivery, Payload, Source, Token};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::settle::{Run, Settlement};
use crate::store::{Poison, Taken};
use crate::writer::{WriteError, Writer};

/// Readings that must have gathered before a load goes to a further connection while another is writing.
const FURTHER_ROWS: usize = 10_000;

/// Days after which a load takes no further batch: each is a partition that the transaction locks.
const FULL_DAYS: usize = MAX_DAYS;

/// Deliveries that are written together.
#[derive(Debug, Default)]
struct Load {
    taken: Vec<Taken>,
    poison: Vec<Poison>,
    poisoned: Vec<Token>,
    rows: usize,
    days: Days,
    /// The last delivery that is a batch.
    last: Option<Token>,
    generation: u64,
}

impl Load {
    fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.poison.is_empty()
    }

    /// Whether as much has gathered as one transaction may hold.
    fn is_full(&self, config: Config) -> bool {
        self.rows >= config.max_rows || self.days.len() >= FULL_DAYS
    }

    fn add(&mut self, delivery: Delivery) {
        if delivery.token.generation > self.generation {
            // What was gathered came over a connection that is gone: the broker delivers it again.
            *self = Self {
                generation: delivery.token.generation,
                ..Self::default()
            };
        }
        let message = match delivery.payload {
            Payload::Batch(batch) => return self.take(delivery.token, batch),
            Payload::Message(message) => message,
        };
        match Batch::decode(&message) {
            Ok(batch) => self.take(delivery.token, Arc::new(batch)),
            Err(error) => {
                let digest = Sha256::digest(&message).into();
                tracing::warn!(code = error.code(), reason = %error, "a message is no batch; it becomes a dead letter");
                self.poison.push(Poison {
                    digest,
                    code: error.code(),
                    detail: error.to_string(),
                });
                self.poisoned.push(delivery.token);
            }
        }
    }

    fn take(&mut self, token: Token, batch: Arc<Batch>) {
        self.rows += batch.len();
        // A time beyond the calendar becomes a dead letter, and must not become a partition.
        batch
            .measured_at
            .iter()
            .filter(|&&at| check_calendar(at).is_ok())
            .for_each(|&at| self.days.insert(at));
        self.last = Some(token);
        self.taken.push(Taken {
            batch,
            dequeued_at: clock::now(),
        });
    }
}

/// A load that was written.
struct Written {
    run: Run,
    rows: usize,
    poison: Vec<(Token, &'static str)>,
    result: Result<(), WriteError>,
}

/// Works until `stop` or a fatal failure, then drains.
///
/// # Errors
/// [`WriteError::Fatal`].
pub async fn run(
    config: Config,
    mut source: Box<dyn Source>,
    writer: Arc<Writer>,
    health: &Health,
    stop: CancellationToken,
) -> Result<(), WriteError> {
    let mut settlement = Settlement::default();
    let mut writing: JoinSet<Written> = JoinSet::new();
    let mut load = Load::default();
    let mut fatal = None;
    let mut writing_rows = 0;
    let unsettled = metrics::gauge!(metric::WORKER_UNSETTLED.name);
    while fatal.is_none() {
        // A further connection is worth its commits only when there is much to do: two that share a trickle commit twice as
        // often, half as much.
        let worth = writing.is_empty() || load.rows >= FURTHER_ROWS;
        if !load.is_empty() && worth && writing.len() < config.writers {
            let generation = load.generation;
            let next = std::mem::replace(
                &mut load,
                Load {
                    generation,
                    ..Load::default()
                },
            );
            writing_rows += next.rows;
            let run = settlement.begin(next.last);
            writing.spawn(write(writer.clone(), next, run));
        }
        unsettled.set((writing_rows + load.rows) as f64);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(written) = writing.join_next() => {
                writing_rows -= written.as_ref().map_or(0, |written| written.rows);
                fatal = settle(&mut *source, &mut settlement, written).await.err();
            }
            delivery = source.next(), if !load.is_full(config) => {
                load.add(delivery);
                while !load.is_full(config) && let Some(delivery) = source.ready() {
                    load.add(delivery);
                }
            }
        }
    }
    health.drain();
    let drain = async {
        while let Some(written) = writing.join_next().await {
            let result = settle(&mut *source, &mut settlement, written).await;
            fatal = fatal.take().or(result.err());
        }
    };
    if tokio::time::timeout(config.grace, drain).await.is_err() {
        tracing::warn!(
            "transactions were still open at the end of the grace period; the broker delivers them again"
        );
    }
    source.close().await;
    fatal.map_or(Ok(()), Err)
}

async fn write(writer: Arc<Writer>, load: Load, run: Run) -> Written {
    let result = writer.write(&load.taken, &load.poison, &load.days).await;
    let poison = load
        .poisoned
        .into_iter()
        .zip(load.poison.iter().map(|poison| poison.code))
        .collect();
    Written {
        run,
        rows: load.rows,
        poison,
        result,
    }
}

/// Acknowledges what a finished load allows to acknowledge. Returns the failure that ends the process.
async fn settle(
    source: &mut dyn Source,
    settlement: &mut Settlement,
    written: Result<Written, tokio::task::JoinError>,
) -> Result<(), WriteError> {
    let written =
        written.map_err(|error| WriteError::Fatal(format!("a writer panicked: {error}")))?;
    match written.result {
        Ok(()) => {
            for (token, code) in written.poison {
                if source.reject(token).await {
                    metrics::counter!(metric::POISON_MESSAGES.name, metric::LABEL_CODE => code)
                        .increment(1);
                }
            }
            if let Some(token) = settlement.done(written.run) {
                source.acknowledge_through(token).await;
            }
            Ok(())
        }
        // Not done in the settlement: nothing from here on is acknowledged on this connection.
        Err(WriteError::Stopped) => Ok(()),
        Err(fatal) => Err(fatal),
    }
}

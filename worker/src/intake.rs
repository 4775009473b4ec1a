//! Intake: deliveries into transactions, and transactions into acknowledgements.
//!
//! In: deliveries of the source. Out: a transaction for each free connection, and acknowledgements
//! of what is committed. On a fatal error or at the stop signal it drains: open transactions may
//! finish, and everything else is returned to the queue.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use schema::batch::DecodeError;
use schema::metric;
use service::Context;
use tokio::task::{JoinError, JoinSet};
use transport::{DeliveryTag, Source};

use crate::Config;
use crate::ack_tracker::{AckTracker, TransactionId};
use crate::pending::PendingTransaction;
use crate::writer::WriteError;

/// Number of gathered readings from which a transaction starts while another one is open.
///
/// A second concurrent transaction pays off only under load. At low load it would double the
/// commits and halve the readings of each.
const CONCURRENT_ROWS: usize = 10_000;

/// Writes transactions.
pub(crate) trait TransactionWriter: Send + Sync + 'static {
    /// Writes one transaction.
    ///
    /// # Errors
    /// [`WriteError`]; the caller must not acknowledge any of its deliveries.
    fn write(
        &self,
        transaction: &PendingTransaction,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// A transaction that has ended.
struct Ended {
    id: TransactionId,
    rows: usize,
    /// Poison messages with their codes.
    poison: Vec<(DeliveryTag, &'static str)>,
    result: Result<(), WriteError>,
}

/// Works until the stop signal or a fatal error, then drains.
///
/// # Errors
/// [`WriteError::Fatal`].
pub(crate) async fn run(
    context: &Context,
    config: Config,
    mut source: Box<dyn Source>,
    writer: Arc<impl TransactionWriter>,
) -> Result<(), WriteError> {
    let mut tracker = AckTracker::default();
    let mut open: JoinSet<Ended> = JoinSet::new();
    let mut open_rows = 0;
    let mut pending = PendingTransaction::default();
    let mut fatal = None;
    // An alert is about the increase of the counter, which begins with its first value.
    for code in DecodeError::CODES {
        metrics::counter!(metric::POISON_MESSAGES.name, metric::LABEL_CODE => code).increment(0);
    }
    let unacknowledged = metrics::gauge!(metric::WORKER_UNSETTLED.name);
    while fatal.is_none() {
        let may_start = open.is_empty() || pending.rows >= CONCURRENT_ROWS;
        if !pending.is_empty() && may_start && open.len() < config.writers {
            let transaction = std::mem::take(&mut pending);
            open_rows += transaction.rows;
            let id = tracker.begin(transaction.last);
            open.spawn(write(writer.clone(), transaction, id));
        }
        unacknowledged.set((open_rows + pending.rows) as f64);
        tokio::select! {
            biased;
            () = context.stop.cancelled() => break,
            Some(ended) = open.join_next() => {
                open_rows -= ended.as_ref().map_or(0, |ended| ended.rows);
                fatal = acknowledge(&mut *source, &mut tracker, ended).await.err();
            }
            delivery = source.next(), if !pending.is_full(config.max_rows) => {
                pending.add(delivery);
                while !pending.is_full(config.max_rows)
                    && let Some(delivery) = source.try_next()
                {
                    pending.add(delivery);
                }
            }
        }
    }
    context.health.begin_drain();
    let drain = async {
        while let Some(ended) = open.join_next().await {
            let result = acknowledge(&mut *source, &mut tracker, ended).await;
            fatal = fatal.take().or(result.err());
        }
    };
    if tokio::time::timeout(config.grace, drain).await.is_err() {
        tracing::warn!(
            "transactions were still open at the end of the grace period; \
             their messages will be delivered again"
        );
    }
    source.close().await;
    fatal.map_or(Ok(()), Err)
}

async fn write(
    writer: Arc<impl TransactionWriter>,
    transaction: PendingTransaction,
    id: TransactionId,
) -> Ended {
    let result = writer.write(&transaction).await;
    let codes = transaction.poison.iter().map(|poison| poison.code);
    Ended {
        id,
        rows: transaction.rows,
        poison: transaction.poison_tags.into_iter().zip(codes).collect(),
        result,
    }
}

/// Acknowledges what can be acknowledged after a transaction has ended. Returns the error that ends
/// the process.
async fn acknowledge(
    source: &mut dyn Source,
    tracker: &mut AckTracker,
    ended: Result<Ended, JoinError>,
) -> Result<(), WriteError> {
    let ended = ended.map_err(|error| WriteError::Fatal(format!("a writer panicked: {error}")))?;
    match ended.result {
        Ok(()) => {
            for (tag, code) in ended.poison {
                if source.reject(tag).await {
                    let name = metric::POISON_MESSAGES.name;
                    metrics::counter!(name, metric::LABEL_CODE => code).increment(1);
                }
            }
            if let Some(tag) = tracker.commit(ended.id) {
                source.acknowledge_through(tag).await;
            }
            Ok(())
        }
        // The tracker keeps it open, so that nothing after it is acknowledged on this connection.
        Err(WriteError::Stopped) => Ok(()),
        Err(fatal) => Err(fatal),
    }
}

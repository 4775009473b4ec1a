//! The next transaction, while its deliveries are gathered.
//!
//! In: deliveries. Out: decoded batches, poison messages, and the days that they write to. Any
//! bytes are accepted: a message that is not a valid batch becomes a poison message.

use std::sync::Arc;

use schema::partition::{Days, MAX_DAYS};
use schema::reading::check_calendar;
use schema::{Batch, clock};
use service::log_limit::LogLimit;
use sha2::{Digest as _, Sha256};
use store::transaction::{PoisonMessage, ReceivedBatch};
use transport::{Delivery, DeliveryTag, Payload};

/// Limits the line about poison messages, of all transactions.
static POISON_LOG: LogLimit = LogLimit::new();

/// Deliveries that are going to be stored in one transaction.
#[derive(Debug, Default)]
pub(crate) struct PendingTransaction {
    /// The valid batches.
    pub batches: Vec<ReceivedBatch>,
    /// The messages that are not valid batches.
    pub poison: Vec<PoisonMessage>,
    /// The deliveries of the poison messages, in their order.
    pub poison_tags: Vec<DeliveryTag>,
    /// Number of readings.
    pub rows: usize,
    /// The partitions that the readings belong to.
    pub days: Days,
    /// The last delivery that is a valid batch.
    pub last: Option<DeliveryTag>,
    /// The generation of the deliveries.
    pub generation: u64,
}

impl PendingTransaction {
    /// Whether it has no deliveries.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.poison.is_empty()
    }

    /// Whether it has as many readings, or readings of as many days, as a transaction should have.
    /// Each day is a partition that the transaction locks.
    pub(crate) fn is_full(&self, max_rows: usize) -> bool {
        self.rows >= max_rows || self.days.len() >= MAX_DAYS
    }

    /// Adds a delivery.
    pub(crate) fn add(&mut self, delivery: Delivery) {
        if delivery.tag.generation > self.generation {
            // The earlier deliveries came over a connection that is closed. They are delivered
            // again.
            *self = Self {
                generation: delivery.tag.generation,
                ..Self::default()
            };
        }
        let message = match delivery.payload {
            Payload::Batch(batch) => return self.add_batch(delivery.tag, batch),
            Payload::Message(message) => message,
        };
        match Batch::decode(&message) {
            Ok(batch) => self.add_batch(delivery.tag, Arc::new(batch)),
            Err(error) => {
                let code = error.code();
                if let Some(messages) = POISON_LOG.count() {
                    tracing::warn!(
                        messages,
                        code,
                        reason = %error,
                        "messages are not valid batches; moving them to the dead-letter queue"
                    );
                }
                self.poison.push(PoisonMessage {
                    digest: Sha256::digest(&message).into(),
                    code,
                    detail: error.to_string(),
                });
                self.poison_tags.push(delivery.tag);
            }
        }
    }

    fn add_batch(&mut self, tag: DeliveryTag, batch: Arc<Batch>) {
        self.rows += batch.len();
        // A time outside the calendar becomes a dead letter and must not become a partition.
        let valid_times = batch.measured_at.iter().copied();
        for time in valid_times.filter(|&time| check_calendar(time).is_ok()) {
            self.days.insert(time);
        }
        self.last = Some(tag);
        self.batches.push(ReceivedBatch {
            batch,
            dequeued_at: clock::now(),
        });
    }
}

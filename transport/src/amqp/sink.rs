//! The sink that publishes to RabbitMQ: a batch is a persistent message.
//!
//! In: batches. Out: a batch is durable when the broker has acknowledged its message and has not
//! returned it. A supervisor keeps one connection open and replaces it when it breaks. A batch
//! whose connection broke is published again on the next one under the same id, which the ledger
//! makes safe; after the deadline it is unconfirmed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Confirmation};
use schema::{Batch, metric, topology};
use service::health::ComponentHealth;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{AmqpConnection, Broker};
use crate::{Sink, SinkError};

/// How often the supervisor checks its connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What a client learns about a connection that broke; the cause is in the log.
const BROKEN: &str = "the connection to the broker broke before it confirmed the readings";

/// AMQP's delivery mode of a message that is written to disk.
const PERSISTENT: u8 = 2;

type CurrentConnection = Option<Arc<AmqpConnection>>;

/// Publishes batches to RabbitMQ.
pub struct AmqpSink {
    current: watch::Receiver<CurrentConnection>,
}

impl AmqpSink {
    /// Starts the supervisor. It closes its connection and ends at `stop`; the caller awaits it.
    pub fn start(
        broker: Broker,
        health: ComponentHealth,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (sender, current) = watch::channel(None);
        let supervisor = tokio::spawn(supervise(broker, health, sender, stop));
        (Self { current }, supervisor)
    }

    /// Waits for a connection other than the one that failed. `None` after the supervisor has
    /// ended.
    async fn connection(&self, failed: Option<&Arc<AmqpConnection>>) -> CurrentConnection {
        let is_other = |connection: &Arc<AmqpConnection>| {
            failed.is_none_or(|failed| !Arc::ptr_eq(failed, connection))
        };
        let mut current = self.current.clone();
        let connection = current
            .wait_for(|connection| connection.as_ref().is_some_and(is_other))
            .await
            .ok()?;
        connection.clone()
    }

    async fn send(&self, batch: &Batch, deadline: Instant) -> Result<(), SinkError> {
        let message_id = batch.id.to_string();
        let payload = batch.encode();
        let mut failed: CurrentConnection = None;
        loop {
            let waiting = self.connection(failed.as_ref());
            let Ok(Some(connection)) = tokio::time::timeout_at(deadline, waiting).await else {
                return Err(refused(&failed, "the broker is unavailable"));
            };
            match publish(&connection, &message_id, &payload).await {
                Ok(Confirmation::Ack(None)) => return Ok(()),
                Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => {
                    // The queue was deleted. The next connection declares it.
                    connection.broken.cancel();
                    return Err(refused(&failed, "the broker has no queue for readings"));
                }
                Ok(Confirmation::Nack(None)) => {
                    let reason = "the broker refused the message because the queue is full";
                    return Err(refused(&failed, reason));
                }
                Ok(Confirmation::NotRequested) => {
                    let reason = "the broker does not confirm messages";
                    return Err(SinkError::Unconfirmed(reason.into()));
                }
                Err(error) => {
                    // The supervisor logs it, once for all batches.
                    connection.fail(&error);
                    metrics::counter!(metric::SINK_RETRIES.name).increment(1);
                    tracing::debug!(
                        %error,
                        batch = %batch.id,
                        "the connection broke before the broker confirmed a batch"
                    );
                    failed = Some(connection);
                }
            }
        }
    }
}

impl Sink for AmqpSink {
    fn deliver(
        &self,
        batch: Arc<Batch>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), SinkError>> {
        async move { self.send(&batch, deadline).await }.boxed()
    }
}

/// The refusal of an attempt. It is a refusal of the batch only if no earlier attempt may have
/// stored it.
fn refused(failed: &CurrentConnection, reason: &str) -> SinkError {
    match failed {
        None => SinkError::Refused(reason.into()),
        Some(_) => SinkError::Unconfirmed(BROKEN.into()),
    }
}

async fn publish(
    connection: &AmqpConnection,
    message_id: &str,
    payload: &[u8],
) -> Result<Confirmation, lapin::Error> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message_id.into());
    let queue = topology::READINGS.into();
    connection
        .channel
        .basic_publish("".into(), queue, options, payload, properties)
        .await?
        .await
}

/// Keeps one usable connection in `current` until `stop`.
async fn supervise(
    broker: Broker,
    health: ComponentHealth,
    current: watch::Sender<CurrentConnection>,
    stop: CancellationToken,
) {
    loop {
        let connecting = broker.connect("gridwatch ingest-api", &health, |_| {
            async { Ok(()) }.boxed()
        });
        let Some((connection, ())) = stop.run_until_cancelled(connecting).await else {
            return;
        };
        let connection = Arc::new(connection);
        current.send_replace(Some(connection.clone()));
        while connection.usable() && !stop.is_cancelled() {
            if connection.blocked() {
                health.unready(format!(
                    "RabbitMQ at {broker} is out of memory or disk and blocks publishers; waiting; \
                     free memory or disk there"
                ));
            } else {
                health.ready();
            }
            tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                () = connection.broken.cancelled() => {}
                () = stop.cancelled() => {}
            }
        }
        if !stop.is_cancelled() {
            health.unready(connection.failure(&broker));
        }
        current.send_replace(None);
        // Closing fails the confirmations that are still pending on this connection.
        connection.close().await;
    }
}

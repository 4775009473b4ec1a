//! The sink in front of RabbitMQ: a batch is a persistent message, durable when the broker has confirmed it.
//!
//! In: batches. Out: only an `Ack` without a return counts as durable. A supervisor keeps one connection: it makes
//! another when this one breaks, as often as it takes. A batch whose connection broke is sent once more on the next one,
//! under the same id, which the ledger makes harmless; after the deadline it is given up as unconfirmed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Confirmation};
use schema::{Batch, metric, topology};
use service::amqp::{Broker, Link};
use service::health::Part;
use service::sink::{Sink, SinkError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the supervisor looks at its connection.
const LOOK: Duration = Duration::from_millis(100);
/// Pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);

/// What a client is told of a connection that broke; the cause is for the log.
const BROKEN: &str = "the connection to the broker broke before it had confirmed";

/// AMQP's delivery mode of a message that is written to disk.
const PERSISTENT: u8 = 2;

type Current = Option<Arc<Link>>;

/// See the module.
pub struct AmqpSink {
    current: watch::Receiver<Current>,
}

impl AmqpSink {
    /// Starts the supervisor; it closes its connection and ends at `stop`.
    pub fn start(
        broker: Broker,
        health: Part,
        stop: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, current) = watch::channel(None);
        let supervisor = tokio::spawn(supervise(broker, health, sender, stop));
        (Self { current }, supervisor)
    }

    /// A connection other than the one that has failed; none once the supervisor has ended.
    async fn link(&self, failed: Option<&Arc<Link>>) -> Option<Arc<Link>> {
        let fit = |link: &Arc<Link>| failed.is_none_or(|failed| !Arc::ptr_eq(failed, link));
        let mut current = self.current.clone();
        let link = current
            .wait_for(|link| link.as_ref().is_some_and(fit))
            .await
            .ok()?;
        link.clone()
    }

    async fn send(&self, batch: &Batch, deadline: Instant) -> Result<(), SinkError> {
        let message_id = batch.id.to_string();
        let payload = batch.encode();
        let mut failed: Option<Arc<Link>> = None;
        loop {
            let waiting = self.link(failed.as_ref());
            let Ok(Some(link)) = tokio::time::timeout_at(deadline, waiting).await else {
                return Err(match failed {
                    None => SinkError::Refused("the broker cannot be reached".into()),
                    Some(_) => SinkError::Unconfirmed(BROKEN.into()),
                });
            };
            match publish(&link, &message_id, &payload).await {
                Ok(Confirmation::Ack(None)) => return Ok(()),
                Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => {
                    // The queue is gone. Connecting anew declares it.
                    link.broken.cancel();
                    return Err(refused(&failed, "the broker has no queue for readings"));
                }
                Ok(Confirmation::Nack(None)) => {
                    return Err(refused(
                        &failed,
                        "the broker refused the message: the queue is full",
                    ));
                }
                Ok(Confirmation::NotRequested) => {
                    return Err(SinkError::Unconfirmed(
                        "the broker does not confirm messages".into(),
                    ));
                }
                Err(error) => {
                    link.broken.cancel();
                    metrics::counter!(metric::SINK_RETRIES.name).increment(1);
                    tracing::warn!(%error, batch = %batch.id, "the connection broke before the broker had confirmed a batch");
                    failed = Some(link);
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

/// A refusal of this attempt: of the batch only where no earlier attempt may have stored it.
fn refused(failed: &Option<Arc<Link>>, reason: &str) -> SinkError {
    match failed {
        None => SinkError::Refused(reason.into()),
        Some(_) => SinkError::Unconfirmed(BROKEN.into()),
    }
}

async fn publish(
    link: &Link,
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
    link.channel
        .basic_publish("".into(), queue, options, payload, properties)
        .await?
        .await
}

async fn supervise(
    broker: Broker,
    health: Part,
    current: watch::Sender<Current>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let link = match stop
            .run_until_cancelled(broker.link("gridwatch ingest-api", &health))
            .await
        {
            None => break,
            Some(Ok(link)) => Arc::new(link),
            Some(Err(error)) => {
                health.unready(format!("cannot connect to {broker}: {error}"));
                stop.run_until_cancelled(tokio::time::sleep(RECONNECT))
                    .await;
                continue;
            }
        };
        health.ready();
        current.send_replace(Some(link.clone()));
        while link.usable() {
            if link.blocked() {
                health.unready("the broker is out of memory or disk and takes nothing");
            } else {
                health.ready();
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = link.broken.cancelled() => {}
                () = stop.cancelled() => break,
            }
        }
        if !stop.is_cancelled() {
            health.unready(format!("the connection to {broker} broke"));
        }
        current.send_replace(None);
        // Whatever waits for a confirmation on it is told that none will come.
        link.close().await;
    }
}

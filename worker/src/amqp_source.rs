//! The source behind RabbitMQ: messages of the queue, taken with a bounded prefetch.
//!
//! In: a broker. Out: deliveries and their acknowledgements. When the connection breaks another is made, as often as it
//! takes; each is a generation, and acknowledgements of an earlier generation go nowhere, because the broker delivers those
//! messages again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::Consumer;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use schema::topology;
use service::amqp::{Broker, Link};
use service::health::Part;
use service::source::{Delivery, Payload, Source, Token};
use tokio::task::JoinHandle;

/// Pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);

/// See the module.
pub struct AmqpSource {
    broker: Broker,
    prefetch: u16,
    health: Part,
    generation: u64,
    /// The stream of the consumer has ended. It says so once, and then nothing ever again.
    ended: bool,
    consuming: Option<(Arc<Link>, Consumer)>,
    /// A task of its own, so that a `next` that is given up does not begin anew.
    connecting: Option<JoinHandle<(Arc<Link>, Consumer)>>,
}

impl AmqpSource {
    /// A source that connects when the first message is asked for.
    pub fn new(broker: Broker, prefetch: u16, health: Part) -> Self {
        Self {
            broker,
            prefetch,
            health,
            generation: 0,
            ended: false,
            consuming: None,
            connecting: None,
        }
    }

    async fn take(&mut self) -> Delivery {
        loop {
            if !self.ended
                && let Some((_, consumer)) = &mut self.consuming
            {
                let next = consumer.next().await;
                if let Some(delivery) = self.accept(next) {
                    return delivery;
                }
            }
            if let Some((link, _)) = self.consuming.take() {
                self.health
                    .unready(format!("the connection to {} broke", self.broker));
                link.close().await;
            }
            let (broker, prefetch, health) =
                (self.broker.clone(), self.prefetch, self.health.clone());
            let connecting = self
                .connecting
                .get_or_insert_with(|| tokio::spawn(connect(broker, prefetch, health)));
            let connected = connecting.await;
            self.connecting = None;
            if let Ok(consuming) = connected {
                self.generation += 1;
                self.ended = false;
                self.consuming = Some(consuming);
            }
        }
    }

    /// A delivery, or nothing where the stream says that the connection or the queue is gone.
    fn accept(
        &mut self,
        next: Option<lapin::Result<lapin::message::Delivery>>,
    ) -> Option<Delivery> {
        match next {
            Some(Ok(delivery)) => {
                let token = Token {
                    generation: self.generation,
                    tag: delivery.delivery_tag,
                };
                Some(Delivery {
                    token,
                    payload: Payload::Message(Bytes::from(delivery.data)),
                })
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the consumer broke");
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                None
            }
        }
    }

    fn current(&self, token: Token) -> Option<&Arc<Link>> {
        self.consuming
            .as_ref()
            .filter(|_| token.generation == self.generation)
            .map(|(link, _)| link)
    }
}

impl Source for AmqpSource {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        self.take().boxed()
    }

    fn ready(&mut self) -> Option<Delivery> {
        if self.ended {
            return None;
        }
        let next = self.consuming.as_mut()?.1.next().now_or_never()?;
        self.accept(next)
    }

    fn acknowledge_through(&mut self, token: Token) -> BoxFuture<'_, ()> {
        async move {
            let Some(link) = self.current(token) else {
                return;
            };
            let options = BasicAckOptions { multiple: true };
            if let Err(error) = link.channel.basic_ack(token.tag, options).await {
                tracing::warn!(%error, "cannot acknowledge; the broker will deliver again");
            }
        }
        .boxed()
    }

    fn reject(&mut self, token: Token) -> BoxFuture<'_, bool> {
        async move {
            let Some(link) = self.current(token) else {
                return false;
            };
            let options = BasicNackOptions {
                multiple: false,
                requeue: false,
            };
            let sent = link.channel.basic_nack(token.tag, options).await;
            if let Err(error) = &sent {
                tracing::warn!(%error, "cannot reject; the broker will deliver again");
            }
            sent.is_ok()
        }
        .boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        async move {
            if let Some(connecting) = self.connecting.take() {
                connecting.abort();
            }
            if let Some((link, _)) = self.consuming.take() {
                // What is not acknowledged goes back to the queue with the connection.
                link.close().await;
            }
        }
        .boxed()
    }
}

async fn connect(broker: Broker, prefetch: u16, health: Part) -> (Arc<Link>, Consumer) {
    loop {
        match consume(&broker, prefetch, &health).await {
            Ok(consuming) => {
                health.ready();
                return consuming;
            }
            Err(error) => health.unready(format!("cannot connect to {broker}: {error}")),
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn consume(
    broker: &Broker,
    prefetch: u16,
    health: &Part,
) -> lapin::Result<(Arc<Link>, Consumer)> {
    let link = broker.link("gridwatch worker", health).await?;
    link.channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    let options = BasicConsumeOptions::default();
    let queue = topology::READINGS.into();
    let consumer = link
        .channel
        .basic_consume(
            queue,
            "gridwatch-worker".into(),
            options,
            FieldTable::default(),
        )
        .await?;
    Ok((Arc::new(link), consumer))
}

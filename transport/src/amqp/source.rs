//! The source that consumes from RabbitMQ, with a bounded prefetch.
//!
//! In: messages of the queue. Out: deliveries, which are acknowledged on the connection that they
//! came from. A broken connection is replaced. Each connection is a generation; acknowledgements of
//! an earlier generation are dropped, because the broker delivers those messages again.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use schema::topology;
use service::health::ComponentHealth;
use tokio::task::JoinHandle;

use super::connection::{AmqpConnection, Broker, cause};
use crate::{Delivery, DeliveryTag, Payload, Source};

/// Consumes batches from RabbitMQ.
pub struct AmqpSource {
    broker: Broker,
    prefetch: u16,
    health: ComponentHealth,
    generation: u64,
    /// The stream of the consumer has ended. It reports that once and must not be polled again.
    ended: bool,
    consuming: Option<(AmqpConnection, Consumer)>,
    /// A separate task, so that a cancelled `next` does not start to connect from the beginning.
    connecting: Option<JoinHandle<(AmqpConnection, Consumer)>>,
}

impl AmqpSource {
    /// A source that connects when the first message is requested.
    pub fn new(broker: Broker, prefetch: u16, health: ComponentHealth) -> Self {
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

    async fn receive(&mut self) -> Delivery {
        loop {
            if !self.ended
                && let Some((_, consumer)) = &mut self.consuming
            {
                let next = consumer.next().await;
                if let Some(delivery) = self.accept(next) {
                    return delivery;
                }
            }
            if let Some((connection, _)) = self.consuming.take() {
                self.health.unready(connection.failure(&self.broker));
                connection.close().await;
            }
            let (broker, prefetch) = (self.broker.clone(), self.prefetch);
            let health = self.health.clone();
            let connecting = self.connecting.get_or_insert_with(|| {
                tokio::spawn(async move {
                    let name = "gridwatch worker";
                    broker
                        .connect(name, &health, |channel| consume(channel, prefetch))
                        .await
                })
            });
            let connected = connecting.await;
            self.connecting = None;
            if let Ok(consuming) = connected {
                self.generation += 1;
                self.ended = false;
                self.consuming = Some(consuming);
            }
        }
    }

    /// A delivery, or `None` when the stream reports that the connection or the queue is lost.
    fn accept(
        &mut self,
        next: Option<lapin::Result<lapin::message::Delivery>>,
    ) -> Option<Delivery> {
        match next {
            Some(Ok(delivery)) => Some(Delivery {
                tag: DeliveryTag {
                    generation: self.generation,
                    tag: delivery.delivery_tag,
                },
                payload: Payload::Message(Bytes::from(delivery.data)),
            }),
            Some(Err(error)) => {
                // It is logged when the connection is replaced.
                if let Some((connection, _)) = &self.consuming {
                    connection.fail(&error);
                }
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                None
            }
        }
    }

    /// The connection of a delivery, unless it was replaced.
    fn connection(&self, tag: DeliveryTag) -> Option<&AmqpConnection> {
        self.consuming
            .as_ref()
            .filter(|_| tag.generation == self.generation)
            .map(|(connection, _)| connection)
    }
}

impl Source for AmqpSource {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        self.receive().boxed()
    }

    fn try_next(&mut self) -> Option<Delivery> {
        if self.ended {
            return None;
        }
        let next = self.consuming.as_mut()?.1.next().now_or_never()?;
        self.accept(next)
    }

    fn acknowledge_through(&mut self, tag: DeliveryTag) -> BoxFuture<'_, ()> {
        async move {
            let Some(connection) = self.connection(tag) else {
                return;
            };
            let options = BasicAckOptions { multiple: true };
            if let Err(error) = connection.channel.basic_ack(tag.tag, options).await {
                let error = cause(&error);
                tracing::debug!(error, "cannot acknowledge; the broker will deliver again");
            }
        }
        .boxed()
    }

    fn reject(&mut self, tag: DeliveryTag) -> BoxFuture<'_, bool> {
        async move {
            let Some(connection) = self.connection(tag) else {
                return false;
            };
            let options = BasicNackOptions {
                multiple: false,
                requeue: false,
            };
            let sent = connection.channel.basic_nack(tag.tag, options).await;
            if let Err(error) = &sent {
                let error = cause(error);
                tracing::debug!(error, "cannot reject; the broker will deliver again");
            }
            sent.is_ok()
        }
        .boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        async move {
            if let Some(connecting) = self.connecting.take() {
                connecting.abort();
                let _ = connecting.await;
            }
            if let Some((connection, _)) = self.consuming.take() {
                // The broker puts unacknowledged messages back into the queue.
                connection.close().await;
            }
        }
        .boxed()
    }
}

fn consume(channel: &Channel, prefetch: u16) -> BoxFuture<'_, lapin::Result<Consumer>> {
    async move {
        let qos = BasicQosOptions::default();
        channel.basic_qos(prefetch, qos).await?;
        let queue = topology::READINGS.into();
        let consumer_tag = "gridwatch-worker".into();
        let options = BasicConsumeOptions::default();
        let arguments = FieldTable::default();
        channel
            .basic_consume(queue, consumer_tag, options, arguments)
            .await
    }
    .boxed()
}

//! Connections to RabbitMQ.
//!
//! In: a URL. Out: a [`Link`], one connection with one channel, on which the topology is declared. A link that has broken
//! is thrown away and another is made; nothing is recovered in place, because what was in flight on a broken channel has
//! to be decided by whoever sent it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lapin::options::{
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use schema::topology::{self, Argument};
use tokio_util::sync::CancellationToken;

use crate::health::Part;

/// How long connecting and declaring may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Seconds between heartbeats: a broker that fell silent is noticed after about two of them.
const HEARTBEAT: u16 = 5;

/// Where the broker is. Its text forms show no password.
#[derive(Clone)]
pub struct Broker(AMQPUri);

impl FromStr for Broker {
    type Err = String;

    /// Reads `amqp://user:password@host:port/vhost`, or `amqps://…`. The error repeats nothing of the input.
    fn from_str(url: &str) -> Result<Self, String> {
        let mut uri = AMQPUri::from_str(url)
            .map_err(|_| "not an AMQP URL such as amqp://user:password@host:5672/%2f".to_owned())?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self(uri))
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}/{}",
            self.0.authority.host, self.0.authority.port, self.0.vhost
        )
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({self})")
    }
}

/// One connection with one channel. Publishing and consuming have a link each: while the broker has a connection
/// blocked, nothing is written on it, not even acknowledgements.
pub struct Link {
    connection: Connection,
    /// The channel; in confirm mode.
    pub channel: Channel,
    /// Cancelled by whoever finds that the link does not work.
    pub broken: CancellationToken,
}

impl Broker {
    /// Connects, opens a channel in confirm mode and declares the topology. Waits for a broker that does not answer, and
    /// says so in the health: an attempt that is given up leaves its thread and its socket behind in lapin.
    ///
    /// # Errors
    /// lapin's: the broker could not be reached, refused, or does not accept the topology. Worth another try later.
    pub async fn link(&self, name: &str, health: &Part) -> Result<Link, lapin::Error> {
        let making = async {
            let properties = ConnectionProperties::default().with_connection_name(name.into());
            let connection = Connection::connect_uri(self.0.clone(), properties).await?;
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            declare(&channel).await?;
            metrics::counter!(schema::metric::CONNECTS.name).increment(1);
            Ok(Link {
                connection,
                channel,
                broken: CancellationToken::new(),
            })
        };
        let mut making = std::pin::pin!(making);
        loop {
            match tokio::time::timeout(CONNECT, &mut making).await {
                Ok(made) => return made,
                Err(_) => health.unready(format!("{self} does not answer")),
            }
        }
    }
}

impl Link {
    /// Whether it can still carry anything.
    pub fn usable(&self) -> bool {
        !self.broken.is_cancelled()
            && self.connection.status().connected()
            && self.channel.status().connected()
    }

    /// Whether the broker has stopped reading from it, by an alarm on memory or disk.
    pub fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Says good-bye to the broker, which gives back what is not acknowledged.
    pub async fn close(&self) {
        let closing = self.connection.close(200, "bye".into());
        if !matches!(tokio::time::timeout(CONNECT, closing).await, Ok(Ok(()))) {
            tracing::debug!("the broker did not answer the good-bye");
        }
    }
}

async fn declare(channel: &Channel) -> Result<(), lapin::Error> {
    let durable_exchange = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let dead_letter_exchange = topology::DEAD_LETTER_EXCHANGE;
    let none = FieldTable::default;
    channel
        .exchange_declare(
            dead_letter_exchange.into(),
            ExchangeKind::Direct,
            durable_exchange,
            none(),
        )
        .await?;
    for (queue, arguments) in [
        (topology::DEAD_LETTERS, topology::DEAD_LETTERS_ARGUMENTS),
        (topology::READINGS, topology::READINGS_ARGUMENTS),
    ] {
        let mut table = FieldTable::default();
        for &(key, value) in arguments {
            let value = match value {
                Argument::Text(text) => AMQPValue::LongString(text.into()),
                Argument::Integer(number) => AMQPValue::LongLongInt(number),
            };
            table.insert(key.into(), value);
        }
        let durable = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        channel.queue_declare(queue.into(), durable, table).await?;
    }
    let dead_letters = topology::DEAD_LETTERS;
    channel
        .queue_bind(
            dead_letters.into(),
            dead_letter_exchange.into(),
            dead_letters.into(),
            QueueBindOptions::default(),
            none(),
        )
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_display_nor_errors_repeat_a_password() {
        let broker: Broker = "amqp://grid:hunter2@mq:5673/site".parse().unwrap();
        assert_eq!(broker.to_string(), "mq:5673/site");
        assert_eq!(format!("{broker:?}"), "Broker(mq:5673/site)");
        let error = "amqp//grid:hunter2@mq".parse::<Broker>().unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

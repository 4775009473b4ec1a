//! Connections to RabbitMQ.
//!
//! In: a URL. Out: an [`AmqpConnection`] with one channel, on which the topology is declared. A
//! broken connection is discarded and another one is opened. Nothing is recovered in place, because
//! its user has to decide what becomes of the messages that were in flight.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lapin::options::{
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind};
use schema::topology::{self, Argument};
use service::health::ComponentHealth;
use tokio_util::sync::CancellationToken;

/// How long connecting may take before the broker counts as silent, and how long closing may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Seconds between heartbeats. A silent broker is noticed after about two of them.
const HEARTBEAT: u16 = 5;

/// A broker and how to connect to it. Its text forms contain no user and no password.
#[derive(Clone)]
pub struct Broker(AMQPUri);

impl FromStr for Broker {
    type Err = String;

    /// Parses `amqp://user:password@host:port/vhost` or `amqps://…`. The error repeats nothing of
    /// the input.
    fn from_str(url: &str) -> Result<Self, String> {
        let mut uri = AMQPUri::from_str(url)
            .map_err(|_| "not an AMQP URL such as amqp://user:password@host:5672/%2f".to_owned())?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self(uri))
    }
}

/// Host and port, and the virtual host if it is not the default one, `/`.
impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.0.authority;
        write!(f, "{}:{}", authority.host, authority.port)?;
        match self.0.vhost.as_str() {
            "/" => Ok(()),
            vhost => write!(f, "/{vhost}"),
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({self})")
    }
}

/// A connection with one channel in confirm mode.
///
/// Publishers and consumers have separate connections: while the broker blocks a connection,
/// nothing is written on it, not even acknowledgements.
pub(super) struct AmqpConnection {
    connection: Connection,
    /// The channel.
    pub channel: Channel,
    /// Cancelled by a user who finds that the connection does not work.
    pub broken: CancellationToken,
    /// What the first such user found.
    cause: OnceLock<String>,
}

impl Broker {
    /// Opens a connection and prepares it with `setup`. Retries until that succeeds, and reports
    /// each failure as the health of the broker.
    pub(super) async fn connect<T>(
        &self,
        name: &str,
        health: &ComponentHealth,
        setup: impl for<'a> Fn(&'a Channel) -> BoxFuture<'a, lapin::Result<T>>,
    ) -> (AmqpConnection, T) {
        loop {
            match self.try_connect(name, health, &setup).await {
                Ok(connected) => {
                    metrics::counter!(schema::metric::CONNECTS.name).increment(1);
                    health.ready();
                    return connected;
                }
                Err(error) => {
                    let cause = cause(&error);
                    health.unready(self.cannot_connect(&cause));
                }
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// That connecting failed, without the name of the user.
    fn cannot_connect(&self, cause: &str) -> String {
        let user = format!(" for user '{}'", self.0.authority.userinfo.username);
        let cause = cause.replace(&user, "");
        format!("cannot connect to RabbitMQ at {self}: {cause}; retrying; check --amqp-url")
    }

    /// One attempt. It is never abandoned because of its duration, only reported: lapin would leave
    /// a thread and a socket behind.
    async fn try_connect<T>(
        &self,
        name: &str,
        health: &ComponentHealth,
        setup: &impl for<'a> Fn(&'a Channel) -> BoxFuture<'a, lapin::Result<T>>,
    ) -> Result<(AmqpConnection, T), lapin::Error> {
        let attempt = async {
            let properties = ConnectionProperties::default().with_connection_name(name.into());
            let connection = Connection::connect_uri(self.0.clone(), properties).await?;
            let channel = connection.create_channel().await?;
            let options = ConfirmSelectOptions::default();
            channel.confirm_select(options).await?;
            declare(&channel).await?;
            let prepared = setup(&channel).await?;
            let connection = AmqpConnection {
                connection,
                channel,
                broken: CancellationToken::new(),
                cause: OnceLock::new(),
            };
            Ok((connection, prepared))
        };
        let mut attempt = std::pin::pin!(attempt);
        loop {
            match tokio::time::timeout(CONNECT_TIMEOUT, &mut attempt).await {
                Ok(result) => return result,
                Err(_) => health.unready(format!(
                    "RabbitMQ at {self} does not respond; waiting; check --amqp-url"
                )),
            }
        }
    }
}

impl AmqpConnection {
    /// Whether the connection can still be used.
    pub(super) fn usable(&self) -> bool {
        !self.broken.is_cancelled()
            && self.connection.status().connected()
            && self.channel.status().connected()
    }

    /// Reports that the connection does not work any more.
    pub(super) fn fail(&self, error: &lapin::Error) {
        // The first error names the cause, unless the connection had broken before.
        let follows = matches!(
            error.kind(),
            ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_)
        );
        if !follows {
            let _ = self.cause.set(cause(error));
        }
        self.broken.cancel();
    }

    /// That the connection broke, with the cause if it is known.
    pub(super) fn failure(&self, broker: &Broker) -> String {
        match self.cause.get() {
            Some(cause) => {
                format!("the connection to RabbitMQ at {broker} broke: {cause}; reconnecting")
            }
            None => format!("the connection to RabbitMQ at {broker} broke; reconnecting"),
        }
    }

    /// Whether the broker has blocked the connection because of a memory or disk alarm.
    pub(super) fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Closes the connection. The broker puts unacknowledged messages back into the queue.
    pub(super) async fn close(&self) {
        let closing = self.connection.close(200, "closing".into());
        let closed = tokio::time::timeout(CONNECT_TIMEOUT, closing).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::debug!("the broker did not confirm that the connection is closed");
        }
    }
}

/// The cause of an error, without the names that the library has for its kinds.
pub(super) fn cause(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::IOError(error) => error.to_string(),
        _ => error.to_string(),
    }
}

async fn declare(channel: &Channel) -> Result<(), lapin::Error> {
    let exchange = topology::DEAD_LETTER_EXCHANGE;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let no_arguments = FieldTable::default;
    channel
        .exchange_declare(
            exchange.into(),
            ExchangeKind::Direct,
            durable,
            no_arguments(),
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
    let (queue, routing_key) = (topology::DEAD_LETTERS, topology::DEAD_LETTERS);
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            routing_key.into(),
            QueueBindOptions::default(),
            no_arguments(),
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_text_forms_nor_errors_contain_the_password() {
        let broker: Broker = "amqp://grid:hunter2@mq:5673/site".parse().unwrap();
        assert_eq!(broker.to_string(), "mq:5673/site");
        assert_eq!(format!("{broker:?}"), "Broker(mq:5673/site)");
        for default in ["amqp://mq:5673", "amqp://mq:5673/%2f", "amqp://mq:5673//"] {
            let broker: Broker = default.parse().unwrap();
            assert_eq!(broker.to_string(), "mq:5673", "{default}");
        }
        let refused = "NOT_ALLOWED - access to vhost 'site' refused for user 'grid'";
        let sentence = broker.cannot_connect(refused);
        assert_eq!(
            sentence,
            "cannot connect to RabbitMQ at mq:5673/site: NOT_ALLOWED - access to vhost 'site' \
             refused; retrying; check --amqp-url"
        );
        let error = "amqp//grid:hunter2@mq".parse::<Broker>().unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

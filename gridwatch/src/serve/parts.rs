//! The parts that more than one command opens: the queue, the spool, and their settings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::ingest_api as front_end;
use anyhow::bail;
use front_end::{Confirms, UnknownDevices, coalesce};
use service::Context;
use service::health::Component;
use store::Database;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transport::Sink;
use transport::amqp::{AmqpSink, Broker};
use transport::failover::FailoverSink;
use transport::spool::{self, Spool, SpoolSource};

use crate::UsageError;
use crate::config::{AmqpUrl, DatabaseUrl, FrontEndOptions, SpoolOptions, WriterOptions, missing};

/// Upper bound on the memory of all bodies in flight in one process, in bytes.
const BODY_BUDGET: usize = 96 * 1024 * 1024;
/// Connections of the front end to PostgreSQL: one refreshes the registry, one registers.
pub(super) const FRONT_END_CONNECTIONS: usize = 2;
/// Upper bound on the time of a statement of the front end.
pub(super) const FRONT_END_STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Upper bound on the time of a statement of the worker: a COPY of a full transaction on a slow
/// disk.
pub(super) const WORKER_STATEMENT_TIMEOUT: Duration = Duration::from_secs(300);
/// Default of `--max-in-flight` with a queue.
const IN_FLIGHT_QUEUED: usize = 4;
/// Default of `--max-in-flight` without a queue: as many batches as a transaction of the worker
/// has.
const IN_FLIGHT_DIRECT: usize = 64;
/// Bytes after which a segment of the spool is closed and another one is started.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

impl FrontEndOptions {
    /// The settings of a front end.
    pub(crate) fn config(
        &self,
        unknown_devices: UnknownDevices,
        grace: Duration,
        confirms: Confirms,
    ) -> front_end::Config {
        let in_flight = match confirms {
            Confirms::Enqueued => IN_FLIGHT_QUEUED,
            Confirms::Committed => IN_FLIGHT_DIRECT,
        };
        front_end::Config {
            unknown_devices,
            max_series: self.max_series,
            max_body_bytes: self.max_body_bytes,
            body_budget_bytes: BODY_BUDGET,
            max_connections: self.max_connections,
            coalesce: coalesce::Config {
                max_in_flight: self.max_in_flight.unwrap_or(in_flight),
                max_pending: self.max_pending,
                deliver_timeout: self.deliver_timeout,
            },
            future_tolerance: self.future_tolerance,
            horizon: self.horizon,
            confirms,
            grace,
        }
    }
}

impl WriterOptions {
    /// The settings of a worker.
    pub(crate) fn config(&self, grace: Duration) -> ::worker::Config {
        ::worker::Config {
            writers: self.writers,
            max_rows: self.max_rows,
            grace,
        }
    }

    /// Connections of a worker to PostgreSQL.
    pub(crate) fn connections(&self) -> usize {
        self.writers + ::worker::SPARE_CONNECTIONS
    }
}

impl DatabaseUrl {
    /// Parses the URL, for a process with this name.
    ///
    /// # Errors
    /// [`UsageError`]: it is not a valid URL.
    pub(crate) fn parse(
        &self,
        name: &str,
        statement_timeout: Duration,
    ) -> Result<Database, UsageError> {
        let url = self.database_url.as_deref().unwrap_or_default();
        if url.is_empty() {
            return Err(UsageError(missing("database-url", "URL")));
        }
        let place = place("--database-url", self.database_url_file.as_deref());
        let database: Database = url
            .parse()
            .map_err(|error| UsageError(format!("{place}: {error}")))?;
        Ok(database.named(name, statement_timeout))
    }
}

impl AmqpUrl {
    /// Parses the URL.
    ///
    /// # Errors
    /// [`UsageError`]: it is not a valid URL.
    pub(crate) fn parse(&self) -> Result<Broker, UsageError> {
        let url = self.amqp_url.as_deref().unwrap_or_default();
        if url.is_empty() {
            return Err(UsageError(missing("amqp-url", "URL")));
        }
        let place = place("--amqp-url", self.amqp_url_file.as_deref());
        broker(url).map_err(|reason| UsageError(format!("{place}: {reason}")))
    }
}

/// Where a URL was given.
fn place(flag: &str, file: Option<&Path>) -> String {
    match file {
        Some(file) => format!("{flag}-file {}", file.display()),
        None => flag.to_owned(),
    }
}

fn broker(url: &str) -> Result<Broker, String> {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // Without a colon in front of it, an '@' behind the authority does not end a password.
    let before_at = rest.split_once('@').map(|(before, _)| before);
    if !authority.contains('@') && before_at.is_some_and(|before| before.contains(':')) {
        // A part of the password would be the port or the virtual host, which are printed.
        let sentence = "'/', '?', '#' and '@' must be encoded in a user name, a \
                        password and a virtual host: write %2F, %3F, %23, %40";
        return Err(sentence.into());
    }
    url.parse().map_err(|error: String| error)
}

/// The sink in front of RabbitMQ, with or without a spool as fallback, and its tasks.
pub(super) struct Queue {
    sink: Arc<dyn Sink>,
    drain: Option<JoinHandle<()>>,
    supervisor: JoinHandle<()>,
    stop: CancellationToken,
}

impl Queue {
    /// Starts to connect. With a spool, batches that RabbitMQ does not confirm within
    /// `primary_timeout` go there.
    pub(super) fn start(
        context: &Context,
        broker: Broker,
        spool: Option<(Spool, SpoolSource)>,
        primary_timeout: Duration,
    ) -> Self {
        let stop = CancellationToken::new();
        let health = context.health.component(Component::Broker);
        let (primary, supervisor) = AmqpSink::start(broker, health, stop.clone());
        let primary: Arc<dyn Sink> = Arc::new(primary);
        let (sink, drain) = match spool {
            None => (primary, None),
            Some((spool, source)) => {
                context.health.set_fallback(Component::Broker);
                let (sink, drain) =
                    FailoverSink::start(primary, spool, source, primary_timeout, stop.clone());
                let sink: Arc<dyn Sink> = Arc::new(sink);
                (sink, Some(drain))
            }
        };
        Self {
            sink,
            drain,
            supervisor,
            stop,
        }
    }

    /// The sink for the front end.
    pub(super) fn sink(&self) -> Arc<dyn Sink> {
        self.sink.clone()
    }

    /// Closes the connection. Batches that are not delivered remain in the spool.
    pub(super) async fn close(self) {
        self.stop.cancel();
        for task in self.drain.into_iter().chain([self.supervisor]) {
            let _ = task.await;
        }
    }
}

/// An open spool, and the tasks that observe it.
pub(super) struct OpenSpool {
    spool: Spool,
    guard: spool::Guard,
    monitor: JoinHandle<()>,
    on_failure: JoinHandle<()>,
    stop: CancellationToken,
}

impl OpenSpool {
    /// Opens the spool in a directory, which comes from a flag. The source hands out at most
    /// `prefetch` records ahead of their acknowledgement. A disk that fails stops the process.
    ///
    /// # Errors
    /// [`UsageError`]: the directory cannot be used, or another process uses it.
    pub(super) async fn open(
        context: &Context,
        (flag, directory): (&str, &Path),
        options: &SpoolOptions,
        prefetch: usize,
    ) -> Result<(Self, Spool, SpoolSource), UsageError> {
        let config = spool::Config {
            directory: directory.to_owned(),
            max_bytes: options.spool_max_bytes,
            segment_bytes: SEGMENT_BYTES,
        };
        // Opening reads the whole spool.
        let (spool, source, guard) =
            tokio::task::spawn_blocking(move || spool::open(config, prefetch))
                .await
                .map_err(|error| UsageError(error.to_string()))?
                .map_err(|error| UsageError(unusable(flag, &error)))?;
        let stop = CancellationToken::new();
        let health = context.health.component(Component::Spool);
        let monitor = tokio::spawn(spool::monitor(spool.clone(), health, stop.clone()));
        let (failed, process_stop, own_stop) = (spool.failed(), context.stop.clone(), stop.clone());
        let on_failure = tokio::spawn(async move {
            if own_stop
                .run_until_cancelled(failed.cancelled())
                .await
                .is_some()
            {
                process_stop.cancel();
            }
        });
        let open = Self {
            spool: spool.clone(),
            guard,
            monitor,
            on_failure,
            stop,
        };
        Ok((open, spool, source))
    }

    /// Waits until everything is synced.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let _ = self.monitor.await;
        let _ = self.on_failure.await;
        let _ = tokio::task::spawn_blocking(move || self.guard.close()).await;
        if self.spool.failed().is_cancelled() {
            bail!(
                "the disk of the queue failed; check it: \
                 readings that were accepted earlier may be lost with it"
            );
        }
        Ok(())
    }
}

/// Why the directory of a queue cannot be used, and what to do.
fn unusable(flag: &str, error: &spool::OpenError) -> String {
    let what_to_do = match error {
        spool::OpenError::InUse(_) => "end that process, or choose another directory",
        spool::OpenError::Io(..) => {
            "the directory and its files must be readable and writable for this user"
        }
    };
    format!("{flag}: cannot open the queue on disk: {error}; {what_to_do}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_missing_or_not_encoded_is_refused_without_its_password() {
        let amqp = |url: &str| AmqpUrl {
            amqp_url: Some(url.to_owned()),
            amqp_url_file: None,
        };
        let broker = |url: &str| amqp(url).parse();
        let mut database = DatabaseUrl {
            database_url: Some(String::new()),
            database_url_file: None,
        };
        let timeout = FRONT_END_STATEMENT_TIMEOUT;
        let error = database.parse("test", timeout).unwrap_err().to_string();
        assert!(error.starts_with("--database-url is missing: "), "{error}");
        let error = broker("").unwrap_err().to_string();
        assert!(error.starts_with("--amqp-url is missing: "), "{error}");
        // A URL that comes from a file is blamed on the file.
        database.database_url = Some("postgres://u:hunt@er2@db/x".into());
        database.database_url_file = Some("/run/secrets/db".into());
        let error = database.parse("test", timeout).unwrap_err().to_string();
        let place = "--database-url-file /run/secrets/db: ";
        assert!(
            error.starts_with(place) && !error.contains("er2"),
            "{error}"
        );
        for url in [
            "amqp://grid:12/hunter2@mq/site",
            "amqp://grid:12?hunter2@mq/site",
            "amqp://grid:12#hunter2@mq/site",
            "amqp://gr/id:hunter2@mq/site",
            "amqp://grid:hunter2/x@mq/site",
            "amqp//grid:hunter2@mq",
            "grid:hunter2@mq",
            "http://grid:hunter2@mq",
            "amqp://grid:hunter2@mq:port",
            "amqp://grid:hunter2@mq?heartbeat=hunter2",
        ] {
            let error = broker(url).unwrap_err().to_string();
            assert!(
                error.starts_with("--amqp-url: ") && !error.contains("hunter2"),
                "{url}: {error}"
            );
        }
        for url in [
            "amqp://grid:hun@ter2@mq/site",
            "amqp://grid:hun%40ter2@mq/site",
        ] {
            assert_eq!(broker(url).unwrap().to_string(), "mq:5672/site");
        }
        for (url, expected) in [
            ("amqp://mq/si@te", "mq:5672/si@te"),
            ("amqp://mq/site?name=a@b", "mq:5672/site"),
            ("amqp://mq?name=a@b", "mq:5672"),
            ("amqp://grid:hunter2@mq/site?name=a@b", "mq:5672/site"),
        ] {
            assert_eq!(broker(url).unwrap().to_string(), expected);
        }
        broker("amqp://mq").unwrap();
        broker("amqp://mq/%2f?heartbeat=5").unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_reported_with_what_to_do() {
        let denied = std::io::ErrorKind::PermissionDenied.into();
        let error = spool::OpenError::Io("/data/queue".into(), denied);
        let sentence = unusable("--data", &error);
        assert!(
            sentence.starts_with("--data: cannot open the queue on disk: /data/queue: permission")
                && sentence.contains("writable for this user"),
            "{sentence}"
        );
    }
}

//! Connections to PostgreSQL: one place that knows the URL, TLS and time-outs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// After how long a peer that acknowledges nothing counts as gone. PostgreSQL's futures are never cancelled (the server
/// would go on by itself), so this is what ends a wait for a host that fell silent.
const SILENCE: Duration = Duration::from_secs(15);

/// Where the database is and how to reach it.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: MakeRustlsConnect,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

/// Host, port and database, without user and password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".into(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        write!(
            f,
            "{host}:{port}/{}",
            self.config.get_dbname().unwrap_or_default()
        )
    }
}

impl FromStr for Database {
    type Err = String;

    /// Reads `postgres://user:password@host:port/database?sslmode=…`. The error repeats nothing of the input, which may
    /// hold a password.
    fn from_str(url: &str) -> Result<Self, String> {
        let mut config = Config::from_str(url).map_err(|error| {
            let cause = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            format!("not a PostgreSQL URL such as postgres://user@host:5432/database ({cause})")
        })?;
        if config.get_hosts().is_empty() {
            return Err(
                "the PostgreSQL URL names no host; it should look like postgres://user@host:5432/database".into()
            );
        }
        config.connect_timeout(CONNECT).tcp_user_timeout(SILENCE);
        config
            .keepalives_idle(SILENCE)
            .keepalives_interval(SILENCE / 3)
            .keepalives_retries(3);
        let mut roots = RootCertStore::empty();
        if config.get_ssl_mode() != SslMode::Disable {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls),
        })
    }
}

impl Database {
    /// The same database, with `application_name` for `pg_stat_activity` and a bound on each statement's time.
    #[must_use]
    pub fn named(mut self, application_name: &str, statement_timeout: Duration) -> Self {
        self.config.application_name(application_name);
        let own = self.config.get_options().unwrap_or_default();
        // So that the server, too, notices a peer that is gone, and rolls back what it has left locked.
        let options = format!(
            "-c statement_timeout={} -c tcp_keepalives_idle={idle} -c tcp_keepalives_interval={interval} \
             -c tcp_keepalives_count=3 -c tcp_user_timeout={user} {own}",
            statement_timeout.as_millis(),
            idle = SILENCE.as_secs(),
            interval = SILENCE.as_secs() / 3,
            user = SILENCE.as_millis(),
        );
        self.config.options(options);
        self
    }

    /// One connection. It ends when the client is dropped.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = %words(&error), "connection to PostgreSQL lost");
            }
        });
        Ok(client)
    }

    /// A pool of at most `size` connections, made when they are first needed.
    ///
    /// # Errors
    /// Never in practice: only a pool without a runtime cannot be built.
    pub fn pool(&self, size: usize) -> anyhow::Result<Pool> {
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), recycling);
        Ok(Pool::builder(manager).max_size(size).build()?)
    }
}

/// An error of tokio-postgres in one line: its own words say only the kind, the cause says what happened.
pub fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_display_nor_errors_repeat_a_password() {
        let database: Database = "postgres://grid:hunter2@db:6432/readings".parse().unwrap();
        assert_eq!(database.to_string(), "db:6432/readings");
        assert_eq!(format!("{database:?}"), "Database(db:6432/readings)");
        let error = "postgres://grid:hunter2@db:port/readings"
            .parse::<Database>()
            .unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

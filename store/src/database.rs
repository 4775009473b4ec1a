//! Connections to PostgreSQL: the one place that knows the URL, TLS and timeouts.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::cause;
use crate::tls::{self, Roots, Verification};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After how long a peer that acknowledges nothing counts as lost. A query does not end with the
/// future that waits for it, because the server would go on executing it; this timeout is what ends
/// a wait for a silent host. [`Pool::cancel`] asks the server to end one.
const PEER_TIMEOUT: Duration = Duration::from_secs(15);

/// The shape of a URL, for error messages.
const EXAMPLE: &str = "postgres://user@host:5432/database";

/// A database and how to connect to it. Its text forms contain no user and no password.
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

/// Host, port and database.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".into(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().unwrap_or_default();
        write!(f, "{host}:{port}/{database}")
    }
}

impl FromStr for Database {
    type Err = String;

    /// Parses `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…`. The
    /// `key=value` form of libpq is accepted too, without `sslrootcert`, `verify-ca` and
    /// `verify-full`. The error repeats nothing of the input, which may contain a password.
    fn from_str(url: &str) -> Result<Self, String> {
        let before_query = &url[..query(url).unwrap_or(url.len())];
        if is_url(url) && before_query.matches('@').count() > 1 {
            // The driver ends the password at the first one, so that the rest of the password
            // would become the host.
            return Err(format!(
                "the PostgreSQL URL has more than one '@'; write %40 for '@', %2F for '/', %3F \
                 for '?' and %25 for '%' in names and passwords, as in {EXAMPLE}"
            ));
        }
        let (url, tls_options) = TlsOptions::extract(url)?;
        let mut config = Config::from_str(&url).map_err(|error| {
            let cause = invalid_option(&error).unwrap_or("it cannot be parsed".into());
            format!("not a PostgreSQL URL such as {EXAMPLE}: {cause}")
        })?;
        if config.get_hosts().is_empty() {
            return Err(format!(
                "the PostgreSQL URL has no host; it should look like {EXAMPLE}"
            ));
        }
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(PEER_TIMEOUT)
            .keepalives_idle(PEER_TIMEOUT)
            .keepalives_interval(PEER_TIMEOUT / 3)
            .keepalives_retries(3);
        // In the `key=value` form the driver parses the modes that it knows.
        let (mode, verification) = match tls_options.resolve()? {
            Some((mode, verification)) => (mode, verification),
            None => (config.get_ssl_mode(), Verification::Off),
        };
        config.ssl_mode(mode);
        let tls = MakeRustlsConnect::new(tls::config(&verification)?);
        Ok(Self { config, tls })
    }
}

impl Database {
    /// The same database, with `application_name` for `pg_stat_activity` and an upper bound on the
    /// time of each statement.
    #[must_use]
    pub fn named(mut self, application_name: &str, statement_timeout: Duration) -> Self {
        self.config.application_name(application_name);
        let own = self.config.get_options().unwrap_or_default();
        // With the keepalives the server, too, notices that a client is lost, and releases its
        // locks.
        // The readings of a series are found by its key, in the order of time. With the default
        // cost of a page, which is that of a rotating disk, the planner collects and sorts them
        // instead, which takes four times as long when they are in memory.
        let options = format!(
            "-c statement_timeout={} -c random_page_cost=1.1 -c tcp_keepalives_idle={idle} \
             -c tcp_keepalives_interval={interval} -c tcp_keepalives_count=3 \
             -c tcp_user_timeout={user} {own}",
            statement_timeout.as_millis(),
            idle = PEER_TIMEOUT.as_secs(),
            interval = PEER_TIMEOUT.as_secs() / 3,
            user = PEER_TIMEOUT.as_millis(),
        );
        self.config.options(options);
        self
    }

    /// Opens one connection. It closes when the client is dropped.
    ///
    /// # Errors
    /// The server is unreachable or refuses the connection.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        // This task ends with the client, whose requests wait for it.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = %cause(&error), "connection to PostgreSQL lost");
            }
        });
        Ok(client)
    }

    /// A pool of at most `size` connections, which are opened when they are first needed.
    ///
    /// # Errors
    /// Never in practice: only a pool without a runtime cannot be built.
    pub fn pool(&self, size: usize) -> anyhow::Result<Pool> {
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), recycling);
        Ok(Pool {
            connections: deadpool_postgres::Pool::builder(manager)
                .max_size(size)
                .build()?,
            server: Some(Arc::new(self.clone())),
        })
    }

    /// A text without the name of the user.
    fn without_user(&self, text: &str) -> String {
        let user = self.config.get_user().unwrap_or_default();
        let quoted = format!(" \"{user}\"");
        text.replace(&format!(" for user{quoted}"), "")
            .replace(&quoted, "")
    }
}

/// A pool of connections, which knows its server for error messages. Clones share everything.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    /// `None` for the embedded PostgreSQL.
    server: Option<Arc<Database>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?})", self.server)
    }
}

impl Pool {
    /// Ends the statement that a connection is executing, and closes the connection: by the time
    /// that the server is asked, another statement must not be the one that it ends. In the
    /// embedded PostgreSQL, which cannot be asked, the statement ends by itself.
    pub(crate) fn cancel(&self, client: deadpool_postgres::Object) {
        let Some(server) = self.server.clone() else {
            return;
        };
        let token = client.cancel_token();
        drop(deadpool_postgres::Object::take(client));
        // No other task waits for this one: it ends with the timeout, and has nothing to clean up.
        tokio::spawn(async move {
            let cancel = token.cancel_query(server.tls.clone());
            let cancelled = tokio::time::timeout(CONNECT_TIMEOUT, cancel).await;
            if let Ok(Err(error)) = cancelled {
                tracing::debug!(error = %cause(&error), "a statement cannot be cancelled");
            }
        });
    }
}

/// A pool of connections to the embedded PostgreSQL.
impl From<deadpool_postgres::Pool> for Pool {
    fn from(connections: deadpool_postgres::Pool) -> Self {
        Self {
            connections,
            server: None,
        }
    }
}

impl std::ops::Deref for Pool {
    type Target = deadpool_postgres::Pool;

    fn deref(&self) -> &deadpool_postgres::Pool {
        &self.connections
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// What the driver does not accept, without any part of the text, where a password may be.
fn invalid_option(error: &tokio_postgres::Error) -> Option<String> {
    let cause = std::error::Error::source(error)?.to_string();
    if cause.starts_with("unknown option ") {
        return Some("it has an unknown option".into());
    }
    // This one has a name from the driver's own list.
    cause
        .starts_with("invalid value for option ")
        .then(|| cause.replace('`', "'"))
}

/// Checks that PostgreSQL responds on a connection of the pool.
///
/// # Errors
/// A sentence with the cause.
pub async fn is_reachable(pool: &Pool) -> Result<(), String> {
    let client = get(pool).await?;
    let response = client.simple_query("").await;
    response.map(drop).map_err(|error| cause(&error))
}

/// A connection of the pool.
///
/// # Errors
/// A sentence with the cause.
pub async fn get(pool: &Pool) -> Result<deadpool_postgres::Object, String> {
    let connection = pool.get().await;
    connection.map_err(|error| {
        let cause = cause(&error);
        match &pool.server {
            None => format!("cannot connect to the embedded PostgreSQL: {cause}"),
            Some(server) => format!(
                "cannot connect to PostgreSQL at {server}: {}; retrying; check --database-url",
                server.without_user(&cause)
            ),
        }
    })
}

/// The two parameters of a URL that the driver does not know in full.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsOptions {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl TlsOptions {
    /// Takes `sslmode` and `sslrootcert` out of the query of a URL.
    fn extract(text: &str) -> Result<(String, Self), String> {
        let mut options = Self::default();
        let Some(query) = query(text).filter(|_| is_url(text)) else {
            return Ok((text.to_owned(), options));
        };
        let (base, query) = (&text[..query], &text[query + 1..]);
        let mut rest = Vec::new();
        for parameter in query.split('&') {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => options.sslmode = Some(value.to_owned()),
                Some(("sslrootcert", value)) => {
                    options.sslrootcert = Some(percent_decode(value)?);
                }
                _ => rest.push(parameter),
            }
        }
        let text = match rest.as_slice() {
            [] => base.to_owned(),
            rest => format!("{base}?{}", rest.join("&")),
        };
        Ok((text, options))
    }

    /// What the driver and the TLS layer have to do; `None` if there are no options.
    fn resolve(self) -> Result<Option<(SslMode, Verification)>, String> {
        let roots = match self.sslrootcert.as_deref() {
            Some("system") | None => Roots::System,
            Some(path) => Roots::File(PathBuf::from(path)),
        };
        // As in libpq: a root certificate makes `require` verify, and `system` is only for
        // `verify-full`, which is then the default.
        let (mode, verification) = match (self.sslmode.as_deref(), self.sslrootcert.as_deref()) {
            (None, None) => return Ok(None),
            (None | Some("verify-full"), Some("system")) => {
                (SslMode::Require, Verification::Full(roots))
            }
            (Some(_), Some("system")) => {
                return Err("sslrootcert=system needs sslmode=verify-full".into());
            }
            (Some("disable"), _) => (SslMode::Disable, Verification::Off),
            (None | Some("allow" | "prefer"), _) => (SslMode::Prefer, Verification::Off),
            (Some("require"), None) => (SslMode::Require, Verification::Off),
            (Some("require" | "verify-ca"), _) => (SslMode::Require, Verification::Ca(roots)),
            (Some("verify-full"), _) => (SslMode::Require, Verification::Full(roots)),
            (Some(_), _) => {
                return Err(
                    "sslmode must be disable, allow, prefer, require, verify-ca \
                            or verify-full"
                        .into(),
                );
            }
        };
        Ok(Some((mode, verification)))
    }
}

/// The offset of the '?' before the query of a URL.
fn query(url: &str) -> Option<usize> {
    // A '?' before the first '@' belongs to the password.
    let at = url.find('@').unwrap_or(0);
    url[at..].find('?').map(|query| at + query)
}

fn percent_decode(text: &str) -> Result<String, String> {
    let invalid = || "sslrootcert: invalid percent-encoding".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (hex, tail) = rest.split_at_checked(2).ok_or_else(invalid)?;
        let hex = std::str::from_utf8(hex).map_err(|_| invalid())?;
        bytes.push(u8::from_str_radix(hex, 16).map_err(|_| invalid())?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_text_forms_nor_errors_contain_the_password() {
        let database: Database = "postgres://grid:hunter2@db:6432/readings".parse().unwrap();
        assert_eq!(database.to_string(), "db:6432/readings");
        assert_eq!(format!("{database:?}"), "Database(db:6432/readings)");
        // The passwords have the letters X and Z, which no error has.
        for url in [
            "postgres://grid:XZ@db:port/readings",
            "postgres://grid:XZ@db/readings?sslmode=XZ",
            "postgres://grid:X@Z@db/readings",
            "postgres://grid:X@Z/Z@db/readings",
            "postgres://grid:X@Z?Z=@db/readings",
            "postgres://grid:XZ@db/readings?Z=X",
            "postgres://grid:XZ",
            "postgres//grid:XZ@db/readings",
            "postgresql+driver://grid:XZ@db/readings",
            "XZ",
            "host=db password=X Z=1",
            "host=db password='XZ",
            "host=db password=XZ port=XZ",
            "host=db password=X Z",
            "password=XZ",
        ] {
            let error = url.parse::<Database>().unwrap_err();
            assert!(!error.contains(['X', 'Z']), "{url}: {error}");
        }
    }

    #[test]
    fn a_password_may_have_any_character_that_is_encoded_and_most_that_are_not() {
        for (url, password) in [
            ("postgres://grid:s3cr%40et@db/readings", "s3cr@et"),
            ("postgres://grid:a/b@db/readings", "a/b"),
            ("postgres://grid:a?sslmode=b@db/readings", "a?sslmode=b"),
            ("postgres://grid:a:b@db/readings?sslmode=disable", "a:b"),
        ] {
            let database: Database = url.parse().unwrap();
            assert_eq!(database.to_string(), "db:5432/readings", "{url}");
            assert_eq!(database.config.get_password(), Some(password.as_bytes()));
        }
    }

    #[test]
    fn the_query_may_have_an_at_sign() {
        for parameters in [
            "application_name=a@b",
            "sslmode=disable&sslrootcert=/etc/a@b.pem",
        ] {
            let url = format!("postgres://grid:pw@db/readings?{parameters}");
            let database: Database = url.parse().unwrap();
            assert_eq!(database.to_string(), "db:5432/readings", "{url}");
            assert_eq!(database.config.get_password(), Some(&b"pw"[..]), "{url}");
        }
    }

    #[test]
    fn an_option_that_is_not_valid_is_named() {
        let error = "postgres://grid@db:port/readings".parse::<Database>();
        let error = error.unwrap_err();
        assert!(
            error.ends_with("invalid value for option 'port'"),
            "{error}"
        );
    }

    #[test]
    fn sslmode_means_what_it_means_in_libpq() {
        let file = || Roots::File("/etc/grid ca.pem".into());
        let prefer = || Some((SslMode::Prefer, Verification::Off));
        let require = |verification| Some((SslMode::Require, verification));
        for (parameters, expected) in [
            ("", None),
            (
                "?sslmode=disable",
                Some((SslMode::Disable, Verification::Off)),
            ),
            ("?sslmode=allow", prefer()),
            ("?sslmode=prefer", prefer()),
            ("?sslrootcert=/etc/grid%20ca.pem", prefer()),
            ("?sslmode=require", require(Verification::Off)),
            (
                "?sslmode=require&sslrootcert=/etc/grid%20ca.pem",
                require(Verification::Ca(file())),
            ),
            (
                "?sslrootcert=/etc/grid%20ca.pem&sslmode=verify-ca",
                require(Verification::Ca(file())),
            ),
            (
                "?connect_timeout=3&sslmode=verify-full",
                require(Verification::Full(Roots::System)),
            ),
            (
                "?sslrootcert=system",
                require(Verification::Full(Roots::System)),
            ),
        ] {
            let url = format!("postgres://grid@db/readings{parameters}");
            let (rest, options) = TlsOptions::extract(&url).unwrap();
            assert!(!rest.contains("ssl"), "{rest}");
            assert_eq!(options.resolve().unwrap(), expected, "{url}");
        }
        for parameters in ["sslmode=require&sslrootcert=system", "sslmode=full"] {
            let url = format!("postgres://grid@db/readings?{parameters}");
            url.parse::<Database>().expect_err(&url);
        }
    }

    #[test]
    fn the_key_value_form_keeps_its_sslmode_or_is_refused() {
        for (text, expected) in [
            ("host=db dbname=x", SslMode::Prefer),
            ("host=db sslmode=require dbname=x", SslMode::Require),
            ("host=db sslmode = require", SslMode::Require),
            ("host=db\nsslmode='require'", SslMode::Require),
        ] {
            let database: Database = text.parse().unwrap();
            assert_eq!(database.config.get_ssl_mode(), expected, "{text}");
        }
        for option in ["sslmode=verify-full", "sslrootcert=/etc/ca.pem"] {
            let text = format!("host=db {option}");
            text.parse::<Database>().expect_err(&text);
        }
    }

    #[test]
    fn a_missing_root_certificate_is_an_error_that_names_the_file() {
        let url = "postgres://grid@db/readings?sslmode=verify-ca&sslrootcert=/nowhere/ca.pem";
        let error = url.parse::<Database>().unwrap_err();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }
}

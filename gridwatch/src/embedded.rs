//! PostgreSQL in this process: PGlite, which is PostgreSQL 17 compiled to WebAssembly.
//!
//! In: a directory. Out: a pool of one connection, over a socket in that directory. PGlite is one
//! backend that lives as long as its connection. The next connection recovers from what the last
//! one left, which works only with fsync off. That costs nothing, because the WebAssembly system
//! calls behind fsync do not reach the disk. Durability comes from outside: `transport::synced`
//! syncs the file system before it acknowledges to the queue.
//!
//! Nothing is written outside the data directory. The settings for memory and disk, and their
//! figures, are in docs/decisions/0014.

mod cluster;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pglite_oxide::PgliteServer;
use store::Object;
use store::error::cause;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_util::sync::CancellationToken;

use crate::UsageError;

/// Upper bound on the length of a socket's path in Linux.
const MAX_SOCKET_PATH: usize = 107;
/// How long closing may take. What is committed is safe without it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The only setting of where PGlite unpacks its files: 99 MB of compiled code, time zones, and the
/// tables of an empty database. A new database reads these from there until its second start, when
/// [`cluster::make_whole`] copies them.
const CACHE_VARIABLE: &str = "XDG_CACHE_HOME";
/// The directory for them in the data directory.
const CACHE: &str = "cache";
/// The directory of [`confine_to`]. It is of this program alone; the user may have set the others.
const CONFINED_VARIABLE: &str = "_GRIDWATCH_CONFINED_TO";
/// Settings of the allocator of this process: no huge pages, and free memory is returned at once.
const ALLOCATOR_SETTINGS: [(&str, &str); 2] =
    [("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "0")];

/// Settings of PostgreSQL. There is no `statement_timeout`, because PGlite has no timer and ignores
/// it (17.5: with 200 ms, a statement of 2 s ends normally). So statements have to be short.
const POSTGRES_SETTINGS: [(&str, &str); 6] = [
    ("fsync", "off"),
    // All of it is resident from the start. The page cache of the kernel holds the same pages.
    ("shared_buffers", "16MB"),
    // As [`store::database::Database::named`] sets it for a server.
    ("random_page_cost", "1.1"),
    // Checkpoints remove old segments of the write-ahead log instead of keeping them for reuse.
    ("wal_recycle", "off"),
    ("wal_init_zero", "off"),
    ("min_wal_size", "32MB"),
];

/// PGlite has no process that makes checkpoints: without these, the write-ahead log would grow
/// until the process stops.
const CHECKPOINT_POLL: Duration = Duration::from_secs(1);
const CHECKPOINT_DUE: &str = "
    SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn) >= 32 * 1024 * 1024
    FROM pg_control_checkpoint()";

#[derive(Default)]
struct Server {
    running: Option<PgliteServer>,
    /// Why it did not start.
    failure: Option<String>,
}

type SharedServer = Arc<Mutex<Server>>;

/// The running database.
pub(crate) struct Embedded {
    server: SharedServer,
    socket: PathBuf,
    stop: CancellationToken,
    checkpoints: JoinHandle<()>,
}

/// Makes the embedded database keep all of its files in a directory, which is an absolute path.
/// They would be in the home directory otherwise, which a service may not have, and a copy of the
/// data directory would lack a part of the database.
///
/// Only environment variables can configure that, and a process cannot change its own safely. So
/// this replaces the process by itself with other variables, once. Call it before there is
/// anything to lose: it returns if this process has been replaced already, or on failure.
///
/// # Errors
/// The program cannot be started again.
pub(crate) fn confine_to(directory: &Path) -> anyhow::Result<()> {
    if confined_to().as_deref() == Some(directory) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut command = Command::new(env::current_exe()?);
    command
        .arg0(arguments.next().unwrap_or_default())
        .args(arguments)
        .env(CONFINED_VARIABLE, directory)
        .env("HOME", directory)
        .env(CACHE_VARIABLE, directory.join(CACHE));
    for (name, value) in ALLOCATOR_SETTINGS {
        if env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    let error = command.exec();
    Err(anyhow::Error::new(error)
        .context("cannot restart with the settings of the embedded database"))
}

/// The directory of [`confine_to`], if this process has been confined.
pub(crate) fn confined_to() -> Option<PathBuf> {
    env::var_os(CONFINED_VARIABLE).map(PathBuf::from)
}

impl Embedded {
    /// A pool on the data in a directory, which is created if it does not exist. The database
    /// starts with the first connection.
    ///
    /// # Errors
    /// [`UsageError`]: the directory cannot be used.
    pub(crate) fn pool(directory: &Path) -> anyhow::Result<(Self, Pool)> {
        let unusable =
            |error: std::io::Error| UsageError(format!("--data: {}: {error}", directory.display()));
        fs::create_dir_all(directory).map_err(unusable)?;
        let directory = directory.canonicalize().map_err(unusable)?;
        // PostgreSQL defines this name.
        let socket = directory.join(".s.PGSQL.5432");
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(UsageError(format!(
                "--data: {} is too long for the path of a socket; choose a shorter directory",
                socket.display()
            ))
            .into());
        }
        let mut config = Config::new();
        config
            .host_path(&directory)
            .user("postgres")
            .dbname("postgres")
            .application_name("gridwatch standalone");
        let server = SharedServer::default();
        let connector = Connector {
            server: server.clone(),
            directory,
            socket: socket.clone(),
        };
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_connect(config, connector, recycling);
        let pool = Pool::builder(manager).max_size(1).build()?;
        let stop = CancellationToken::new();
        let embedded = Self {
            server,
            socket,
            checkpoints: tokio::spawn(make_checkpoints(pool.clone(), stop.clone())),
            stop,
        };
        Ok((embedded, pool))
    }

    /// The connection of the pool.
    ///
    /// # Errors
    /// The reason why the database does not start.
    pub(crate) async fn connect(&self, pool: &Pool) -> anyhow::Result<Object> {
        match pool.get().await {
            Ok(client) => Ok(client),
            Err(error) => {
                let failure = self.server.lock().await.failure.take();
                let reason = failure.unwrap_or_else(|| cause(&error));
                anyhow::bail!("cannot start the embedded PostgreSQL: {reason}")
            }
        }
    }

    /// Stops the database. The pool must be closed before.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.checkpoints.await;
        if let Some(server) = self.server.lock().await.running.take() {
            let closing = tokio::task::spawn_blocking(|| server.shutdown());
            let closed = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
            if !matches!(closed, Ok(Ok(Ok(())))) {
                tracing::debug!(
                    "the embedded PostgreSQL did not shut down cleanly; \
                     it recovers at the next start"
                );
            }
        }
        let _ = fs::remove_file(&self.socket);
    }
}

/// Opens the pool's connection, and starts the database for it.
struct Connector {
    server: SharedServer,
    directory: PathBuf,
    socket: PathBuf,
}

impl Connect for Connector {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let config = config.clone();
        async move {
            let mut server = self.server.lock().await;
            let old = server.running.take();
            let (directory, socket) = (self.directory.clone(), self.socket.clone());
            let starting = tokio::task::spawn_blocking(move || {
                drop(old);
                start(&directory, &socket)
            });
            match starting.await.map_err(anyhow::Error::from).flatten() {
                Ok(started) => server.running = Some(started),
                // Connecting fails below, and is retried.
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "cannot start the embedded PostgreSQL");
                    server.failure = Some(error);
                }
            }
            let (client, connection) = config.connect(NoTls).await?;
            let task = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    let error = cause(&error);
                    tracing::warn!(error, "connection to the embedded PostgreSQL lost");
                }
            });
            Ok((client, task))
        }
        .boxed()
    }
}

fn start(directory: &Path, socket: &Path) -> anyhow::Result<PgliteServer> {
    tracing::info!(directory = %directory.display(), "starting the embedded PostgreSQL");
    cluster::make_whole(directory)?;
    PgliteServer::builder()
        .path(directory)
        .unix(socket)
        .database("postgres")
        .postgres_configs(POSTGRES_SETTINGS)
        .start()
}

/// Makes a checkpoint whenever there is enough write-ahead log to remove, until `stop` or until the
/// pool is closed.
async fn make_checkpoints(pool: Pool, stop: CancellationToken) {
    let mut failing = false;
    let pause = || stop.run_until_cancelled(tokio::time::sleep(CHECKPOINT_POLL));
    while pause().await.is_some() && !pool.is_closed() {
        let result = checkpoint_if_due(&pool).await;
        // A failure is logged once, because the worker reports why the database is unavailable.
        if let Err(error) = &result
            && !failing
            && !pool.is_closed()
        {
            let error = cause(error.as_ref());
            tracing::warn!(error, "cannot make a checkpoint; the write-ahead log grows");
        }
        failing = result.is_err();
    }
}

async fn checkpoint_if_due(pool: &Pool) -> anyhow::Result<()> {
    let client = pool.get().await?;
    if client.query_one(CHECKPOINT_DUE, &[]).await?.get(0) {
        client.batch_execute("CHECKPOINT").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use testbed::wait::until_async;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_write_ahead_log_does_not_grow_without_limit() {
        let directory = tempfile::tempdir().unwrap();
        let (embedded, pool) = Embedded::pool(directory.path()).unwrap();
        let client = embedded.connect(&pool).await.unwrap();
        let is_due = async |client: &Object| {
            let row = client.query_one(CHECKPOINT_DUE, &[]).await.unwrap();
            row.get::<_, bool>(0)
        };
        let statement = "CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 50000)";
        client.batch_execute(statement).await.unwrap();
        // There is one connection, so that no checkpoint can have been made yet.
        assert!(is_due(&client).await);
        drop(client);
        until_async("a checkpoint was made", CLOSE_TIMEOUT * 6, async || {
            !is_due(&pool.get().await.unwrap()).await
        })
        .await;
        pool.close();
        embedded.stop().await;
    }

    /// Runs statements in a database that PGlite opens by itself.
    fn run_alone(directory: &Path, statements: &'static str) -> anyhow::Result<()> {
        let server = PgliteServer::builder()
            .path(directory)
            .database("postgres")
            .postgres_configs(POSTGRES_SETTINGS)
            .start()?;
        let url = server.database_url();
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            let connection = tokio::spawn(connection);
            let result = client.batch_execute(statements).await;
            drop(client);
            connection.await??;
            Ok::<_, anyhow::Error>(result?)
        })?;
        server.shutdown()
    }

    /// The files that a kill can leave when it comes in the middle of a first write to a table, or
    /// of a start.
    const INTERRUPTED: [(&str, usize); 5] = [
        ("base/5/6239", 0),
        ("base/5/1255", 16_384),
        ("PG_VERSION", 0),
        (".pglite-oxide-pgdata-overlay.json", 10),
        ("../.pglite-oxide-runtime-layout.json", 3),
    ];
    /// It reads the first of these tables, an index, and the second one as a whole.
    const READ: &str = "SET enable_seqscan = off;
        SELECT * FROM pg_publication_namespace WHERE pnnspid = 1 AND pnpubid = 1;
        SET enable_seqscan = on;
        SELECT count(prosrc) FROM pg_proc";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_first_write_that_a_kill_interrupted_is_repaired() {
        for (file, length) in INTERRUPTED {
            let parent = tempfile::tempdir().unwrap();
            let directory = parent.path().to_owned();
            let create = || "CREATE TABLE kept AS SELECT 7 AS value";
            let copied = directory.clone();
            let created = tokio::task::spawn_blocking(move || run_alone(&copied, create()));
            created.await.unwrap().unwrap();
            let tables = directory.join("tmp/pglite/base");
            let manifest = fs::read_to_string(tables.join(".pglite-oxide-pgdata-overlay.json"));
            let template = cluster::template(&cluster::templates(), &manifest.unwrap());
            let template = template.unwrap().unwrap();
            let path = tables.join(file);
            let whole = fs::read(&path).or_else(|_| fs::read(template.join(file)));
            fs::write(&path, &whole.unwrap()[..length]).unwrap();

            for _ in 0..2 {
                let (embedded, pool) = Embedded::pool(&directory).unwrap();
                let client = embedded.connect(&pool).await.unwrap();
                client.batch_execute(READ).await.unwrap();
                let row = client.query_one("SELECT value FROM kept", &[]).await;
                assert_eq!(row.unwrap().get::<_, i32>(0), 7, "{file}");
                drop(client);
                pool.close();
                embedded.stop().await;
            }
        }
    }

    #[tokio::test]
    async fn a_database_that_does_not_start_is_reported_with_the_cause() {
        let directory = tempfile::tempdir().unwrap();
        let (embedded, pool) = Embedded::pool(directory.path()).unwrap();
        fs::write(directory.path().join("tmp"), "in the way").unwrap();
        let error = embedded.connect(&pool).await.unwrap_err().to_string();
        let place = directory.path().join("tmp").display().to_string();
        assert!(
            error.starts_with("cannot start the embedded PostgreSQL: ") && error.contains(&place),
            "{error}"
        );
    }
}

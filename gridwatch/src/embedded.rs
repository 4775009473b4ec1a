//! PostgreSQL in this process: PGlite, which is PostgreSQL 17 compiled to WebAssembly.
//!
//! In: a directory. Out: a pool of one connection, over a socket in that directory. PGlite is one
//! backend that lives as long as its connection. The next connection recovers from what the last
//! one left, which works only with fsync off. That costs nothing, because the WebAssembly system
//! calls behind fsync do not reach the disk. Durability comes from outside: `transport::synced`
//! syncs the file system before it acknowledges to the queue.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pglite_oxide::PgliteServer;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::UsageError;

/// Upper bound on the length of a socket's path in Linux.
const MAX_SOCKET_PATH: usize = 107;
/// How long closing may take. What is committed is safe without it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

type Server = Arc<Mutex<Option<PgliteServer>>>;

/// The running database.
pub(crate) struct Embedded {
    server: Server,
    socket: PathBuf,
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
        let server = Server::default();
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
        Ok((Self { server, socket }, pool))
    }

    /// Stops the database. The pool must be closed before.
    pub(crate) async fn stop(self) {
        if let Some(server) = self.server.lock().await.take() {
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
    server: Server,
    directory: PathBuf,
    socket: PathBuf,
}

impl Connect for Connector {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let config = config.clone();
        async move {
            let mut server = self.server.lock().await;
            let old = server.take();
            let (directory, socket) = (self.directory.clone(), self.socket.clone());
            let starting = tokio::task::spawn_blocking(move || {
                drop(old);
                start(&directory, &socket)
            });
            match starting.await.map_err(anyhow::Error::from).flatten() {
                Ok(started) => *server = Some(started),
                // Connecting fails below, and is retried.
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "cannot start the embedded PostgreSQL");
                }
            }
            let (client, connection) = config.connect(NoTls).await?;
            let task = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::warn!(%error, "connection to the embedded PostgreSQL lost");
                }
            });
            Ok((client, task))
        }
        .boxed()
    }
}

fn start(directory: &Path, socket: &Path) -> anyhow::Result<PgliteServer> {
    tracing::info!(directory = %directory.display(), "starting the embedded PostgreSQL");
    PgliteServer::builder()
        .path(directory)
        .unix(socket)
        .database("postgres")
        .postgres_config("fsync", "off")
        .start()
}

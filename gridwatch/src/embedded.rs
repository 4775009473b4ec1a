//! PostgreSQL in this process: PGlite, PostgreSQL 17 compiled to WebAssembly, behind a socket in the data folder.
//!
//! In: a folder. Out: a pool of one connection. PGlite is one backend that lives as long as its connection; the next one
//! recovers what the last one left, which it can do with fsync off only. That costs nothing: the WebAssembly system calls
//! behind fsync do not reach the disk. So what PostgreSQL would do is done from outside: before an acknowledgement lets go
//! of what is in the queue, [`SyncedSource`] syncs the file system.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pglite_oxide::PgliteServer;
use service::source::{Delivery, Source, Token};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_util::sync::CancellationToken;

use crate::Usage;

/// Longest path of a socket that Linux takes.
const LONGEST_SOCKET: usize = 107;
/// How long closing may take; what is committed is safe without it.
const CLOSE: Duration = Duration::from_secs(5);

type Server = Arc<Mutex<Option<PgliteServer>>>;

/// The running database.
pub struct Embedded {
    server: Server,
    socket: PathBuf,
}

impl Embedded {
    /// A pool on the data of a folder, which is made where it is missing. The database starts with the first connection.
    ///
    /// # Errors
    /// [`Usage`]: the folder cannot be used.
    pub fn pool(folder: &Path) -> anyhow::Result<(Self, Pool)> {
        let unusable =
            |error: std::io::Error| Usage(format!("--data: {}: {error}", folder.display()));
        fs::create_dir_all(folder).map_err(unusable)?;
        let folder = folder.canonicalize().map_err(unusable)?;
        // The name is PostgreSQL's.
        let socket = folder.join(".s.PGSQL.5432");
        if socket.as_os_str().len() > LONGEST_SOCKET {
            let sentence = format!(
                "--data: {} is too long for a socket; choose a shorter folder",
                socket.display()
            );
            return Err(Usage(sentence).into());
        }
        let mut config = Config::new();
        config
            .host_path(&folder)
            .user("postgres")
            .dbname("postgres")
            .application_name("gridwatch standalone");
        let server = Server::default();
        let opening = Opening {
            server: server.clone(),
            folder,
            socket: socket.clone(),
        };
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let pool = Pool::builder(Manager::from_connect(config, opening, recycling))
            .max_size(1)
            .build()?;
        Ok((Self { server, socket }, pool))
    }

    /// Closes it. The pool must be closed before.
    pub async fn stop(self) {
        if let Some(server) = self.server.lock().await.take() {
            let closing = tokio::task::spawn_blocking(|| server.shutdown());
            if !matches!(tokio::time::timeout(CLOSE, closing).await, Ok(Ok(Ok(())))) {
                tracing::debug!(
                    "the embedded PostgreSQL was left as it was; it recovers at the next start"
                );
            }
        }
        let _ = fs::remove_file(&self.socket);
    }
}

/// How the pool's connection is made.
struct Opening {
    server: Server,
    folder: PathBuf,
    socket: PathBuf,
}

impl Connect for Opening {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let config = config.clone();
        async move {
            let mut server = self.server.lock().await;
            let (old, folder, socket) = (server.take(), self.folder.clone(), self.socket.clone());
            let opened = tokio::task::spawn_blocking(move || {
                drop(old);
                open(&folder, &socket)
            });
            match opened.await.map_err(anyhow::Error::from).flatten() {
                Ok(opened) => *server = Some(opened),
                // Connecting fails below, and is tried again.
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "the embedded PostgreSQL does not start"
                ),
            }
            let (client, connection) = config.connect(NoTls).await?;
            let carrying = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::warn!(%error, "connection to the embedded PostgreSQL lost");
                }
            });
            Ok((client, carrying))
        }
        .boxed()
    }
}

fn open(folder: &Path, socket: &Path) -> anyhow::Result<PgliteServer> {
    tracing::info!(folder = %folder.display(), "starting the embedded PostgreSQL");
    PgliteServer::builder()
        .path(folder)
        .unix(socket)
        .database("postgres")
        .postgres_config("fsync", "off")
        .start()
}

/// A source whose acknowledgements wait until what was committed before is on the disk.
pub struct SyncedSource<S> {
    source: S,
    folder: Arc<File>,
    failed: CancellationToken,
}

impl<S: Source> SyncedSource<S> {
    /// `source`, with the file system of `folder` synced before each acknowledgement. A sync that fails cancels `failed` and
    /// acknowledges nothing any more.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn new(source: S, folder: &Path, failed: CancellationToken) -> std::io::Result<Self> {
        Ok(Self {
            source,
            folder: Arc::new(File::open(folder)?),
            failed,
        })
    }

    async fn acknowledge(&mut self, token: Token) {
        let folder = self.folder.clone();
        let synced = tokio::task::spawn_blocking(move || rustix::fs::syncfs(&folder)).await;
        match synced {
            Ok(Ok(())) if !self.failed.is_cancelled() => {
                self.source.acknowledge_through(token).await
            }
            other => {
                tracing::error!(?other, "the disk of the embedded PostgreSQL has failed");
                self.failed.cancel();
            }
        }
    }
}

impl<S: Source> Source for SyncedSource<S> {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        self.source.next()
    }

    fn ready(&mut self) -> Option<Delivery> {
        self.source.ready()
    }

    fn acknowledge_through(&mut self, token: Token) -> BoxFuture<'_, ()> {
        self.acknowledge(token).boxed()
    }

    fn reject(&mut self, token: Token) -> BoxFuture<'_, bool> {
        self.source.reject(token)
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.source.close()
    }
}

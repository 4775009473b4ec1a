//! PostgreSQL in this process: PGlite, PostgreSQL 17 compiled to WebAssembly, behind a socket in the data folder.
//!
//! In: a folder. Out: a pool of one connection. PGlite is one backend that lives as long as its connection, and after it ends
//! the next one has to recover, which it cannot do with fsync on: it ends in a panic over a folder that the WebAssembly
//! system calls do not know how to sync. So every new connection goes over a backend with fsync off, which recovers and
//! makes a checkpoint; everything is synced from outside; and then one is opened with fsync on. Every commit of that one is
//! on the disk. Power that fails between the checkpoint and the sync, a tenth of a second at the start, may cost the
//! database.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pglite_oxide::PgliteServer;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};

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
        let unusable = |error: std::io::Error| Usage(format!("--data: {}: {error}", folder.display()));
        fs::create_dir_all(folder).map_err(unusable)?;
        let folder = folder.canonicalize().map_err(unusable)?;
        // The name is PostgreSQL's.
        let socket = folder.join(".s.PGSQL.5432");
        if socket.as_os_str().len() > LONGEST_SOCKET {
            let sentence = format!("--data: {} is too long for a socket; choose a shorter folder", socket.display());
            return Err(Usage(sentence).into());
        }
        let mut config = Config::new();
        config.host_path(&folder).user("postgres").dbname("postgres").application_name("gridwatch standalone");
        let server = Server::default();
        let opening = Opening { server: server.clone(), folder, socket: socket.clone() };
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_connect(config, opening, recycling)).max_size(1).build()?;
        Ok((Self { server, socket }, pool))
    }

    /// Closes it. The pool must be closed before.
    pub async fn stop(self) {
        if let Some(server) = self.server.lock().await.take() {
            let closing = tokio::task::spawn_blocking(|| server.shutdown());
            if !matches!(tokio::time::timeout(CLOSE, closing).await, Ok(Ok(Ok(())))) {
                tracing::debug!("the embedded PostgreSQL was left as it was; it recovers at the next start");
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
                Err(error) => tracing::error!(error = format!("{error:#}"), "the embedded PostgreSQL does not start"),
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
    let start = |fsync| {
        PgliteServer::builder()
            .path(folder)
            .unix(socket)
            .database("postgres")
            .postgres_config("fsync", fsync)
            .postgres_config("synchronous_commit", fsync)
            .start()
    };
    tracing::info!(folder = %folder.display(), "starting the embedded PostgreSQL");
    let server = start("off")?;
    checkpoint(&server.database_url()).context("it does not recover")?;
    server.shutdown()?;
    sync_all(folder)?;
    start("on")
}

fn checkpoint(url: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let connection = tokio::spawn(connection);
        client.batch_execute("CHECKPOINT").await?;
        drop(client);
        Ok(connection.await??)
    })
}

/// Syncs every file and folder below.
fn sync_all(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_all(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

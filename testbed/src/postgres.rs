//! A private PostgreSQL server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::node::{Node, User};
use crate::{find, free_port, wait};

const PLACES: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/bin",
];
const LIMIT: Duration = Duration::from_secs(60);

/// Its superuser, who needs no password.
const SUPERUSER: &str = "gridwatch";

/// A server with a cluster of its own. `fsync` is on, as in earnest.
#[derive(Debug)]
pub struct Postgres {
    node: Option<Node>,
    folder: PathBuf,
    port: u16,
    user: Option<User>,
}

impl Postgres {
    /// Makes a cluster and starts its server.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start; the error has its last words.
    pub fn start() -> anyhow::Result<Self> {
        let user = User::instead_of_root(&["postgres", "nobody"])?;
        let folder = tempfile::Builder::new()
            .prefix("gridwatch-postgres-")
            .tempdir()?
            .keep();
        if let Some(user) = user {
            user.own(&folder)?;
        }
        let mut initdb = Command::new(find("initdb", PLACES)?);
        initdb.arg("-D").arg(folder.join("data")).args([
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
        ]);
        initdb.arg("--no-sync").current_dir(&folder);
        if let Some(user) = user {
            user.apply(&mut initdb);
        }
        let output = initdb.output().context("initdb")?;
        ensure!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut postgres = Self {
            node: None,
            folder,
            port: free_port()?,
            user,
        };
        postgres.resume()?;
        Ok(postgres)
    }

    /// Starts the server again after [`Postgres::crash`], on the same port and data.
    ///
    /// # Errors
    /// It does not start.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let mut server = Command::new(find("postgres", PLACES)?);
        server
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-p")
            .arg(self.port.to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "shared_buffers=512MB",
            "max_wal_size=4GB",
            "log_min_messages=warning",
        ] {
            server.arg("-c").arg(setting);
        }
        let node = Node::start(&self.folder, self.user, &server)?;
        let ready = || {
            Command::new(find("pg_isready", PLACES).unwrap_or_default())
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .is_ok_and(|status| status.success())
        };
        wait::until(
            &format!("PostgreSQL accepts connections; its log: {}", node.log()),
            LIMIT,
            ready,
        );
        self.node = Some(node);
        Ok(())
    }

    /// Ends the server as a crash would: at once, without a checkpoint.
    ///
    /// # Errors
    /// It does not run.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        self.node
            .as_mut()
            .context("not running")?
            .stop_with("QUIT")?;
        self.node = None;
        Ok(())
    }

    /// The URL of a database on this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Its address, for a faulty link in front of it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The server's process, where it runs.
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Node::pid)
    }

    /// Its folder, for a look at its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.node.take().is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

//! A private PostgreSQL server, and connections to databases.
//!
//! It listens on a free port of loopback and accepts its superuser without a password. It ends, and
//! its files are removed, with the process that started it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio_postgres::{Client, NoTls};

use crate::node::{Node, User};
use crate::{find, free_port, wait};

const SEARCH_PATHS: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/bin",
];
const LIMIT: Duration = Duration::from_secs(60);

/// The superuser, who needs no password.
const SUPERUSER: &str = "postgres";

/// Connects to a database without TLS. The connection closes when the client is dropped.
///
/// # Errors
/// The URL is not valid, or the server is unavailable or rejects the connection.
pub async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("cannot connect to PostgreSQL")?;
    // The client reports the errors of its connection.
    tokio::spawn(connection);
    Ok(client)
}

/// A server with its own database cluster. `fsync` is on, as in production.
#[derive(Debug)]
pub struct Postgres {
    node: Option<Node>,
    directory: PathBuf,
    port: u16,
    user: Option<User>,
}

impl Postgres {
    /// Creates a cluster and starts its server.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start; the error contains the end of its log.
    pub fn start() -> anyhow::Result<Self> {
        let user = User::instead_of_root(&["postgres", "nobody"])?;
        let directory = tempfile::Builder::new()
            .prefix("gridwatch-postgres-")
            .tempdir()?
            .keep();
        if let Some(user) = user {
            user.chown(&directory)?;
        }
        let mut initdb = Command::new(find("initdb", SEARCH_PATHS)?);
        initdb.arg("-D").arg(directory.join("data")).args([
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
        ]);
        initdb.arg("--no-sync").current_dir(&directory);
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
            directory,
            port: free_port()?,
            user,
        };
        postgres.restart()?;
        Ok(postgres)
    }

    /// Starts the server again after [`Postgres::crash`], on the same port and data.
    ///
    /// # Errors
    /// PostgreSQL does not start; the error contains the end of its log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let mut server = Command::new(find("postgres", SEARCH_PATHS)?);
        server
            .arg("-D")
            .arg(self.directory.join("data"))
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
        let node = Node::start(&self.directory, self.user, &server)?;
        let ready = || {
            Command::new(find("pg_isready", SEARCH_PATHS).unwrap_or_default())
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .is_ok_and(|status| status.success())
        };
        wait::try_until("PostgreSQL accepts connections", LIMIT, || Ok(ready()))
            .with_context(|| node.log())?;
        self.node = Some(node);
        Ok(())
    }

    /// Ends the server as a crash does: at once, without a checkpoint.
    ///
    /// # Errors
    /// The server is not running.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        self.node
            .as_mut()
            .context("PostgreSQL is not running")?
            .stop_with("QUIT")?;
        self.node = None;
        Ok(())
    }

    /// Installs a certificate and its key. The setting `ssl = on` uses them after a reload.
    ///
    /// # Errors
    /// The files cannot be copied, or not be given to the server's user.
    pub fn install_certificate(&self, certificate: &Path, key: &Path) -> anyhow::Result<()> {
        for (from, name) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = self.directory.join("data").join(name);
            std::fs::copy(from, &to)?;
            // PostgreSQL refuses a key that others can read.
            std::fs::set_permissions(&to, Permissions::from_mode(0o600))?;
            if let Some(user) = self.user {
                user.chown(&to)?;
            }
        }
        Ok(())
    }

    /// The URL of a database on this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Its address (`host:port`), for a faulty proxy in front of it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Node::pid)
    }

    /// The directory of its files and its log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.node.take().is_none() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

//! A private RabbitMQ node.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::node::Node;
use crate::{find, free_port, wait};

/// Debian's programs of the same name on PATH insist on being root or rabbitmq; these do not.
const PLACES: &[&str] = &[
    "/usr/lib/rabbitmq/bin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/sbin",
];
const LIMIT: Duration = Duration::from_secs(120);

/// `guest`, salted and hashed as RabbitMQ's documentation on passwords says. The node listens on loopback only.
const PASSWORD_HASH: &str = "Z3JpZIZBZbBl9lOthC+0VlNCYnc+zdnlr7Ob/4saf9j9ovBa";

/// Distribution on loopback only. And schedulers that have nothing to do sleep: on a machine that the broker shares, its
/// busy waiting takes the processor from those that it waits for (rabbitmq.com/docs/runtime, "Busy Waiting").
const ERLANG: &str =
    "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none";

/// Starts epmd in the server's own session, so that it ends with it; left to itself it would become a daemon.
const WITH_EPMD: &str = r#"
epmd -address 127.0.0.1 &
until epmd -names >/dev/null 2>&1; do sleep 0.05; done
exec "$@"
"#;

/// A node with as many virtual hosts as it was asked for: `t0`, `t1`, …
#[derive(Debug)]
pub struct RabbitMq {
    node: Option<Node>,
    folder: PathBuf,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    vhosts: usize,
    used: AtomicUsize,
}

impl RabbitMq {
    /// Starts a node.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or does not start; the error has its last words.
    pub fn start(vhosts: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("gridwatch-rabbitmq-")
            .tempdir()?
            .keep();
        let (port, distribution_port, epmd_port) = (free_port()?, free_port()?, free_port()?);
        let names = |each: fn(usize) -> String| (0..vhosts).map(each).collect::<Vec<_>>().join(",");
        let definitions = format!(
            r#"{{"users": [{{"name": "guest", "password_hash": "{PASSWORD_HASH}", "tags": "administrator",
            "hashing_algorithm": "rabbit_password_hashing_sha256"}}], "vhosts": [{}], "permissions": [{}]}}"#,
            names(|n| format!(r#"{{"name": "t{n}"}}"#)),
            names(|n| format!(
                r#"{{"user": "guest", "vhost": "t{n}", "configure": ".*", "write": ".*", "read": ".*"}}"#
            )),
        );
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nload_definitions = {}\nlog.file = false\nlog.console = true\n\
             log.console.level = warning\n",
            folder.join("definitions.json").display()
        );
        std::fs::write(folder.join("definitions.json"), definitions)?;
        std::fs::write(folder.join("rabbitmq.conf"), config)?;
        std::fs::write(folder.join("enabled_plugins"), "[].\n")?;
        let used = AtomicUsize::new(0);
        let mut rabbitmq = Self {
            node: None,
            folder,
            port,
            distribution_port,
            epmd_port,
            vhosts,
            used,
        };
        rabbitmq.resume()?;
        Ok(rabbitmq)
    }

    /// Starts the node again after [`RabbitMq::stop`] or [`RabbitMq::crash`], on the same ports and data.
    ///
    /// # Errors
    /// It does not start.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let mut server = Command::new("sh");
        server
            .arg("-c")
            .arg(WITH_EPMD)
            .arg("rabbitmq")
            .arg(find_program("rabbitmq-server")?);
        self.environment(&mut server);
        let node = Node::start(&self.folder, None, &server)?;
        let address = self.address();
        wait::until(
            &format!("RabbitMQ listens; its log: {}", node.log()),
            LIMIT,
            || TcpStream::connect(&address).is_ok(),
        );
        self.node = Some(node);
        Ok(())
    }

    /// Ends the node in its own order.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.end("TERM")
    }

    /// Ends the node as a crash would. A queue that was declared less than half a second before does not survive that:
    /// RabbitMQ 3.10 keeps the names of its queues' logs in a file that it writes at that interval.
    ///
    /// # Errors
    /// It does not run.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        self.end("KILL")
    }

    fn end(&mut self, signal: &str) -> anyhow::Result<()> {
        self.node
            .as_mut()
            .context("not running")?
            .stop_with(signal)?;
        self.node = None;
        Ok(())
    }

    /// A virtual host that nobody has used yet.
    ///
    /// # Errors
    /// All are in use.
    pub fn vhost(&self) -> anyhow::Result<String> {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        ensure!(
            number < self.vhosts,
            "the node has {} virtual hosts and all are in use; ask for more",
            self.vhosts
        );
        Ok(format!("t{number}"))
    }

    /// The URL of a virtual host on this node.
    pub fn url(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@{}/{vhost}", self.address())
    }

    /// Its address, for a faulty link in front of it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs `rabbitmqctl` against it. Takes a second or two.
    ///
    /// # Errors
    /// It fails; the error has its words.
    pub fn control(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(find_program("rabbitmqctl")?);
        self.environment(&mut command);
        let output = command
            .arg("-n")
            .arg(self.name())
            .args(arguments)
            .output()?;
        ensure!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }

    /// The first process of its session, where it runs; the broker is one of its children.
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Node::pid)
    }

    /// Its folder, for a look at its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn name(&self) -> String {
        format!("gridwatch-{}@localhost", self.port)
    }

    fn environment(&self, command: &mut Command) {
        let folder = &self.folder;
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", self.name())
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("logs"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                folder.join("enabled_plugins"),
            )
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string());
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if self.node.take().is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn find_program(program: &str) -> anyhow::Result<PathBuf> {
    // Debian's wrappers of the same name are on PATH: the places come first.
    let own = PLACES
        .iter()
        .map(|place| Path::new(place).join(program))
        .find(|file| file.is_file());
    own.map_or_else(|| find(program, &[]), Ok)
}

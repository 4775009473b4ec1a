//! A private RabbitMQ node.
//!
//! It listens on a free port of loopback, with one user and a fixed number of virtual hosts. It
//! ends, and its files are removed, with the process that started it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::node::Node;
use crate::{find, free_port, wait};

/// Debian's wrappers of the same name on `PATH` must run as root or rabbitmq; these need not.
const SEARCH_PATHS: &[&str] = &[
    "/usr/lib/rabbitmq/bin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/sbin",
];
const LIMIT: Duration = Duration::from_secs(120);

/// `guest`, salted and hashed as RabbitMQ's documentation on passwords describes. The node listens
/// on loopback only.
const PASSWORD_HASH: &str = "Z3JpZIZBZbBl9lOthC+0VlNCYnc+zdnlr7Ob/4saf9j9ovBa";

/// Distribution listens on loopback only. Idle schedulers sleep: on a shared machine, their busy
/// waiting takes CPU time from the other processes (rabbitmq.com/docs/runtime, "Busy Waiting").
const ERLANG: &str =
    "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none";

/// Starts epmd in the server's session, so that it ends with the server; otherwise it would become
/// a daemon.
const WITH_EPMD: &str = r#"
epmd -address 127.0.0.1 &
until epmd -names >/dev/null 2>&1; do sleep 0.05; done
exec "$@"
"#;

/// A node with the virtual hosts `t0`, `t1`, …
#[derive(Debug)]
pub struct RabbitMq {
    node: Option<Node>,
    directory: PathBuf,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    metrics_port: u16,
    vhosts: usize,
    used: AtomicUsize,
}

impl RabbitMq {
    /// Starts a node with this number of virtual hosts.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or does not start; the error contains the end of its log.
    pub fn start(vhosts: usize) -> anyhow::Result<Self> {
        Self::start_with_plugins(vhosts, "")
    }

    /// Starts a node that also serves its metrics, at [`RabbitMq::metrics_address`].
    ///
    /// # Errors
    /// As [`RabbitMq::start`].
    pub fn start_with_metrics(vhosts: usize) -> anyhow::Result<Self> {
        Self::start_with_plugins(vhosts, "rabbitmq_prometheus")
    }

    fn start_with_plugins(vhosts: usize, plugins: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("gridwatch-rabbitmq-")
            .tempdir()?
            .keep();
        let (port, distribution_port, epmd_port) = (free_port()?, free_port()?, free_port()?);
        let metrics_port = free_port()?;
        let names = |each: fn(usize) -> String| (0..vhosts).map(each).collect::<Vec<_>>().join(",");
        let definitions = format!(
            r#"{{"users": [{{"name": "guest", "tags": "administrator",
            "password_hash": "{PASSWORD_HASH}",
            "hashing_algorithm": "rabbit_password_hashing_sha256"}}],
            "vhosts": [{}], "permissions": [{}]}}"#,
            names(|n| format!(r#"{{"name": "t{n}"}}"#)),
            names(|n| format!(
                r#"{{"user": "guest", "vhost": "t{n}",
                "configure": ".*", "write": ".*", "read": ".*"}}"#
            )),
        );
        let mut config = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nload_definitions = {}\n\
             log.file = false\nlog.console = true\nlog.console.level = warning\n",
            directory.join("definitions.json").display()
        );
        // A node refuses settings of plugins that it does not have.
        if !plugins.is_empty() {
            config += &format!(
                "prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {metrics_port}\n\
                 prometheus.return_per_object_metrics = true\n"
            );
        }
        std::fs::write(directory.join("definitions.json"), definitions)?;
        std::fs::write(directory.join("rabbitmq.conf"), config)?;
        std::fs::write(directory.join("enabled_plugins"), format!("[{plugins}].\n"))?;
        let used = AtomicUsize::new(0);
        let mut rabbitmq = Self {
            node: None,
            directory,
            port,
            distribution_port,
            epmd_port,
            metrics_port,
            vhosts,
            used,
        };
        rabbitmq.restart()?;
        Ok(rabbitmq)
    }

    /// Starts the node again after [`RabbitMq::stop`] or [`RabbitMq::crash`], on the same ports and
    /// data.
    ///
    /// # Errors
    /// RabbitMQ does not start; the error contains the end of its log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let mut server = Command::new("sh");
        server
            .arg("-c")
            .arg(WITH_EPMD)
            .arg("rabbitmq")
            .arg(find_program("rabbitmq-server")?);
        self.environment(&mut server);
        let node = Node::start(&self.directory, None, &server)?;
        let address = self.address();
        wait::try_until("RabbitMQ listens", LIMIT, || {
            Ok(TcpStream::connect(&address).is_ok())
        })
        .with_context(|| node.log())?;
        self.node = Some(node);
        Ok(())
    }

    /// Shuts the node down in order.
    ///
    /// # Errors
    /// The node is not running.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.end("TERM")
    }

    /// Kills the node. A queue that was declared less than half a second before does not survive:
    /// RabbitMQ 3.10 writes the names of its queues' logs to a file at that interval.
    ///
    /// # Errors
    /// The node is not running.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        self.end("KILL")
    }

    fn end(&mut self, signal: &str) -> anyhow::Result<()> {
        self.node
            .as_mut()
            .context("RabbitMQ is not running")?
            .stop_with(signal)?;
        self.node = None;
        Ok(())
    }

    /// A virtual host that was not handed out before.
    ///
    /// # Errors
    /// All are in use.
    pub fn vhost(&self) -> anyhow::Result<String> {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        ensure!(
            number < self.vhosts,
            "all {} virtual hosts of the node are in use; start it with more",
            self.vhosts
        );
        Ok(format!("t{number}"))
    }

    /// The URL of a virtual host on this node.
    pub fn url(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@{}/{vhost}", self.address())
    }

    /// Its address (`host:port`), for a faulty proxy in front of it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The address (`host:port`) of the metrics of a node of [`RabbitMq::start_with_metrics`].
    /// `/metrics` has those of each queue.
    pub fn metrics_address(&self) -> String {
        format!("127.0.0.1:{}", self.metrics_port)
    }

    /// Runs `rabbitmqctl` against the node. This takes one or two seconds.
    ///
    /// # Errors
    /// The command fails; the error contains its output.
    pub fn control(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = self.control_command()?.args(arguments).output()?;
        ensure!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }

    /// `rabbitmqctl` for this node, without arguments of its own.
    ///
    /// # Errors
    /// `rabbitmqctl` is not installed.
    pub fn control_command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(find_program("rabbitmqctl")?);
        self.environment(&mut command);
        command.arg("-n").arg(self.name());
        Ok(command)
    }

    /// The process id of its session leader, while it runs; the broker is one of its children.
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Node::pid)
    }

    /// The directory of its files and its log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn name(&self) -> String {
        format!("gridwatch-{}@localhost", self.port)
    }

    fn environment(&self, command: &mut Command) {
        let directory = &self.directory;
        command
            .env("HOME", directory)
            .env("RABBITMQ_NODENAME", self.name())
            .env("RABBITMQ_MNESIA_BASE", directory.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", directory.join("logs"))
            .env("RABBITMQ_CONFIG_FILE", directory.join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                directory.join("enabled_plugins"),
            )
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string());
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if self.node.take().is_none() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn find_program(program: &str) -> anyhow::Result<PathBuf> {
    // Debian's wrappers are on `PATH`: the search paths come first.
    let installed = SEARCH_PATHS
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|file| file.is_file());
    installed.map_or_else(|| find(program, &[]), Ok)
}

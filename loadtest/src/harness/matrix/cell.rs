//! A cell: one deployment of Gridwatch, with its own database and its own virtual host.
//!
//! In: the deployment. Out: a URL to load, admin ports to scrape, and processes to watch. The
//! processes end when the cell is dropped. A process that does not start is an error.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use testbed::free_port;
use testbed::haproxy::HaProxy;
use testbed::postgres::{Postgres, connect};
use testbed::process::Process;
use testbed::rabbitmq::RabbitMq;

use super::Plan;
use crate::harness::run::WatchedProcess;
use crate::plural::plural;

/// Process name of the front ends.
pub(crate) const FRONT_END: &str = "front end";
/// Process name of the load test.
pub(crate) const GENERATOR: &str = "load generator";

/// How the front end stores readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentMode {
    /// The front end writes to PostgreSQL and responds after the commit.
    Direct,
    /// The front end publishes to RabbitMQ and responds after the confirm; a worker writes to
    /// PostgreSQL.
    Queued,
}

/// A deployment mode with a number of front ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deployment {
    pub(crate) mode: DeploymentMode,
    /// Number of front ends.
    pub(crate) instances: u16,
    /// Threads of each front end.
    pub(crate) threads: u16,
}

impl Deployment {
    /// The name in reports, such as `direct, 1 front end of 2 threads`.
    pub(crate) fn name(&self) -> String {
        let mode = match self.mode {
            DeploymentMode::Direct => "direct",
            DeploymentMode::Queued => "queued",
        };
        format!(
            "{mode}, {} of {}",
            plural(self.instances.into(), "front end"),
            plural(self.threads.into(), "thread")
        )
    }
}

/// The servers that all cells share.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) postgres: Postgres,
    pub(super) rabbitmq: RabbitMq,
}

impl Servers {
    /// Name and version of Gridwatch and each server.
    ///
    /// # Errors
    /// A program or server does not report its version.
    pub(super) async fn versions(&self, plan: &Plan) -> anyhow::Result<Vec<String>> {
        let gridwatch = Command::new(&plan.gridwatch).arg("--version").output()?;
        let client = connect(&self.postgres.url("postgres")).await?;
        let postgres: String = client.query_one("SHOW server_version", &[]).await?.get(0);
        let rabbitmq = self.rabbitmq.control(&["version"])?;
        let mut versions = vec![
            first_line(&gridwatch),
            format!("PostgreSQL {postgres}"),
            format!("RabbitMQ {}", first_line(&rabbitmq)),
        ];
        if plan.instances > 1 {
            versions.extend(HaProxy::version()?);
        }
        Ok(versions)
    }
}

fn first_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) deployment: Deployment,
    /// The URL to load.
    pub(super) url: String,
    /// Name and admin address of each process.
    pub(super) admins: Vec<(String, String)>,
    /// Processes whose CPU time is measured.
    pub(super) watched: Vec<WatchedProcess>,
    database_url: String,
    // In the order of their shutdown.
    balancer: Option<HaProxy>,
    front_ends: Vec<Process>,
    worker: Option<Process>,
    directory: tempfile::TempDir,
}

impl Cell {
    /// Creates the database and starts the processes.
    ///
    /// # Errors
    /// A process does not start.
    pub(super) async fn start(
        plan: &Plan,
        servers: &Servers,
        number: usize,
        deployment: Deployment,
    ) -> anyhow::Result<Self> {
        let database = format!("cell{number}");
        let client = connect(&servers.postgres.url("postgres")).await?;
        client
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .await?;
        let database_url = servers.postgres.url(&database);
        let amqp_url = servers.rabbitmq.url(&servers.rabbitmq.vhost()?);
        migrate(&plan.gridwatch, &database_url)?;
        let mut cell = Self {
            deployment,
            url: String::new(),
            admins: Vec::new(),
            watched: Vec::new(),
            database_url,
            balancer: None,
            front_ends: Vec::new(),
            worker: None,
            directory: tempfile::tempdir()?,
        };
        cell.start_front_ends(&plan.gridwatch, &amqp_url)?;
        if deployment.mode == DeploymentMode::Queued {
            cell.start_worker(&plan.gridwatch, &amqp_url)?;
            let pid = servers.rabbitmq.pid().context("RabbitMQ is not running")?;
            cell.watch_server("RabbitMQ", pid, false);
        }
        if let Some(balancer) = &cell.balancer {
            let pid = balancer.pid();
            cell.watch_server("HAProxy", pid, false);
        }
        let pid = servers
            .postgres
            .pid()
            .context("PostgreSQL is not running")?;
        cell.watch_server("PostgreSQL", pid, true);
        cell.watch_process(GENERATOR, std::process::id(), false);
        Ok(cell)
    }

    /// Starts the front ends, and a load balancer if there are several.
    fn start_front_ends(&mut self, gridwatch: &Path, amqp_url: &str) -> anyhow::Result<()> {
        let mut addresses = Vec::new();
        for _ in 0..self.deployment.instances {
            let (listen, admin) = (free_address()?, free_address()?);
            let threads = self.deployment.threads.to_string();
            let mut arguments = vec![
                "ingest-api",
                "--listen",
                &listen,
                "--admin",
                &admin,
                "--threads",
                &threads,
                "--database-url",
                &self.database_url,
                "--unknown-devices",
                "register",
            ];
            match self.deployment.mode {
                DeploymentMode::Direct => arguments.extend(["--sink", "direct"]),
                DeploymentMode::Queued => arguments.extend(["--amqp-url", amqp_url]),
            }
            let process = self.start_process(gridwatch, &arguments, &admin)?;
            self.admins.push((FRONT_END.to_owned(), admin));
            self.watch_process(FRONT_END, process.pid(), false);
            self.front_ends.push(process);
            addresses.push(listen);
        }
        if addresses.len() > 1 {
            self.balancer = Some(HaProxy::start(&addresses)?);
        }
        let address = self
            .balancer
            .as_ref()
            .map_or(addresses[0].as_str(), HaProxy::address);
        self.url = format!("http://{address}");
        Ok(())
    }

    fn start_worker(&mut self, gridwatch: &Path, amqp_url: &str) -> anyhow::Result<()> {
        let admin = free_address()?;
        let arguments = [
            "worker",
            "--admin",
            &admin,
            "--amqp-url",
            amqp_url,
            "--database-url",
            &self.database_url,
        ];
        let process = self.start_process(gridwatch, &arguments, &admin)?;
        self.watch_process("worker", process.pid(), true);
        self.admins.push(("worker".to_owned(), admin));
        self.worker = Some(process);
        Ok(())
    }

    /// Starts a process and waits until it is ready.
    fn start_process(
        &self,
        program: &Path,
        arguments: &[&str],
        admin: &str,
    ) -> anyhow::Result<Process> {
        let mut process = Process::start(program, arguments, admin, self.directory.path())?;
        process.try_ready()?;
        Ok(process)
    }

    fn watch_process(&mut self, name: &str, pid: u32, is_storing: bool) {
        self.watched.push(WatchedProcess {
            name: name.to_owned(),
            pid,
            is_server: false,
            is_storing,
        });
    }

    fn watch_server(&mut self, name: &str, pid: u32, is_storing: bool) {
        self.watched.push(WatchedProcess {
            name: name.to_owned(),
            pid,
            is_server: true,
            is_storing,
        });
    }

    /// Runs a checkpoint, so that the writes of one run do not slow down the next one.
    ///
    /// # Errors
    /// PostgreSQL does not respond.
    pub(super) async fn checkpoint(&self) -> anyhow::Result<()> {
        let client = connect(&self.database_url).await?;
        Ok(client.batch_execute("CHECKPOINT").await?)
    }

    /// Stops the processes: the load balancer, the front ends, the worker.
    ///
    /// # Errors
    /// A process does not end.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        drop(self.balancer.take());
        for process in self.front_ends.iter_mut().chain(&mut self.worker) {
            process.terminate()?;
        }
        Ok(())
    }
}

fn migrate(gridwatch: &Path, database_url: &str) -> anyhow::Result<()> {
    let output = Command::new(gridwatch)
        .args(["migrate", "--database-url", database_url])
        .output()
        .with_context(|| gridwatch.display().to_string())?;
    ensure!(
        output.status.success(),
        "gridwatch migrate: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn free_address() -> std::io::Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

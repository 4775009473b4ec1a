//! A cell: Gridwatch in one shape, on a database and a virtual host of its own.
//!
//! In: the shape. Out: an address to load, admin ports to ask, processes to watch. It ends with its owner.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use testbed::free_port;
use testbed::haproxy::HaProxy;
use testbed::postgres::Postgres;
use testbed::process::Process;
use testbed::rabbitmq::RabbitMq;
use tokio_postgres::NoTls;

use crate::matrix::Plan;
use crate::run::Watched;

/// What front ends are called, and the process of the load test.
pub const FRONT_END: &str = "front end";
/// See [`FRONT_END`].
pub const GENERATOR: &str = "load generator";

/// How readings get from the front end into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The front end writes them itself, and answers when they are stored.
    Direct,
    /// Over RabbitMQ and a worker; the front end answers when the queue has them.
    Queued,
}

/// See the module.
#[derive(Debug)]
pub struct Cell {
    /// See [`Way`].
    pub way: Way,
    /// Front ends.
    pub instances: u16,
    /// Threads of each.
    pub threads: u16,
    /// Where the load goes.
    pub url: String,
    /// Admin ports by what they are.
    pub admins: Vec<(String, String)>,
    /// Processes whose CPU time counts.
    pub watched: Vec<Watched>,
    database_url: String,
    // In the order of their end.
    balancer: Option<HaProxy>,
    front_ends: Vec<Process>,
    worker: Option<Process>,
    _folder: tempfile::TempDir,
}

impl Cell {
    /// Makes the database and starts the processes.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start(
        plan: &Plan,
        postgres: &Postgres,
        rabbitmq: &RabbitMq,
        number: usize,
        way: Way,
        instances: u16,
        threads: u16,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let database = format!("cell{number}");
        execute(
            &postgres.url("postgres"),
            &format!("CREATE DATABASE {database}"),
        )
        .await?;
        let (database_url, amqp_url) = (postgres.url(&database), rabbitmq.url(&rabbitmq.vhost()?));
        let migrated = Command::new(&plan.gridwatch)
            .args(["migrate", "--database-url", &database_url])
            .output();
        let migrated = migrated.with_context(|| plan.gridwatch.display().to_string())?;
        ensure!(
            migrated.status.success(),
            "gridwatch migrate: {}",
            String::from_utf8_lossy(&migrated.stderr)
        );
        let (mut admins, mut watched, mut front_ends, mut addresses) =
            (vec![], vec![], vec![], vec![]);
        for _ in 0..instances {
            let (listen, admin) = (address()?, address()?);
            let threads = threads.to_string();
            let mut arguments = vec![
                "ingest-api",
                "--listen",
                &listen,
                "--admin",
                &admin,
                "--threads",
                &threads,
            ];
            arguments.extend([
                "--database-url",
                &database_url,
                "--unknown-devices",
                "register",
            ]);
            match way {
                Way::Direct => arguments.extend(["--sink", "direct"]),
                Way::Queued => arguments.extend(["--amqp-url", &amqp_url]),
            }
            let process = start(&plan.gridwatch, &arguments, &admin, folder.path())?;
            admins.push((FRONT_END.to_owned(), admin));
            watched.push(watch(FRONT_END, process.pid()));
            front_ends.push(process);
            addresses.push(listen);
        }
        let mut worker = None;
        if way == Way::Queued {
            let admin = address()?;
            let arguments = [
                "worker",
                "--admin",
                &admin,
                "--amqp-url",
                &amqp_url,
                "--database-url",
                &database_url,
            ];
            let process = start(&plan.gridwatch, &arguments, &admin, folder.path())?;
            admins.push(("worker".to_owned(), admin));
            watched.push(Watched {
                is_storing: true,
                ..watch("worker", process.pid())
            });
            worker = Some(process);
            let pid = rabbitmq.pid().context("RabbitMQ does not run")?;
            watched.push(Watched {
                is_server: true,
                ..watch("RabbitMQ", pid)
            });
        }
        let balancer = if instances > 1 {
            Some(HaProxy::start(&addresses)?)
        } else {
            None
        };
        if let Some(balancer) = &balancer {
            watched.push(Watched {
                is_server: true,
                ..watch("HAProxy", balancer.pid())
            });
        }
        let pid = postgres.pid().context("PostgreSQL does not run")?;
        watched.push(Watched {
            is_server: true,
            is_storing: true,
            ..watch("PostgreSQL", pid)
        });
        watched.push(watch(GENERATOR, std::process::id()));
        let url = format!(
            "http://{}",
            balancer
                .as_ref()
                .map_or(addresses[0].as_str(), HaProxy::address)
        );
        Ok(Self {
            way,
            instances,
            threads,
            url,
            admins,
            watched,
            database_url,
            balancer,
            front_ends,
            worker,
            _folder: folder,
        })
    }

    /// What people call it.
    pub fn name(&self) -> String {
        name(self.way, self.instances, self.threads)
    }

    /// Lets PostgreSQL write what the last trial has left, so that the next one does not pay for it.
    ///
    /// # Errors
    /// PostgreSQL does not answer.
    pub async fn rest(&self) -> anyhow::Result<()> {
        execute(&self.database_url, "CHECKPOINT").await
    }

    /// Ends the processes in order.
    ///
    /// # Errors
    /// One does not end.
    pub fn end(mut self) -> anyhow::Result<()> {
        drop(self.balancer.take());
        for process in self.front_ends.iter_mut().chain(&mut self.worker) {
            process.terminate()?;
        }
        Ok(())
    }
}

/// What people call a shape.
pub fn name(way: Way, instances: u16, threads: u16) -> String {
    let way = match way {
        Way::Direct => "direct",
        Way::Queued => "queued",
    };
    let plural =
        |count: u16, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "{way}, {} of {}",
        plural(instances, "front end"),
        plural(threads, "thread")
    )
}

/// What runs, each with its version.
///
/// # Errors
/// One of them does not tell.
pub async fn versions(
    plan: &Plan,
    postgres: &Postgres,
    rabbitmq: &RabbitMq,
) -> anyhow::Result<Vec<String>> {
    let line = |output: std::process::Output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let gridwatch = line(Command::new(&plan.gridwatch).arg("--version").output()?);
    let (client, connection) = tokio_postgres::connect(&postgres.url("postgres"), NoTls).await?;
    tokio::spawn(connection);
    let postgres: String = client.query_one("SHOW server_version", &[]).await?.get(0);
    let rabbitmq = line(rabbitmq.control(&["version"])?);
    let mut versions = vec![
        gridwatch,
        format!("PostgreSQL {postgres}"),
        format!("RabbitMQ {rabbitmq}"),
    ];
    if plan.instances > 1 {
        versions.extend(HaProxy::version()?);
    }
    Ok(versions)
}

fn address() -> std::io::Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

fn watch(name: &str, pid: u32) -> Watched {
    Watched {
        name: name.to_owned(),
        pid,
        is_server: false,
        is_storing: false,
    }
}

fn start(
    program: &Path,
    arguments: &[&str],
    admin: &str,
    folder: &Path,
) -> anyhow::Result<Process> {
    let mut process = Process::start(program, arguments, admin, folder)?;
    process.try_ready()?;
    Ok(process)
}

async fn execute(url: &str, statement: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute(statement).await?;
    drop(client);
    connection.await??;
    Ok(())
}

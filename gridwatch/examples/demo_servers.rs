//! `make demo-servers`: `gridwatch demo` on private nodes of PostgreSQL and RabbitMQ.
//!
//! Starts the nodes, runs the demo on them, and stops them when the demo ends.

use std::path::Path;

use anyhow::{Context as _, ensure};
use testbed::postgres::Postgres;
use testbed::rabbitmq::RabbitMq;
use tokio::process::Command;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let example = std::env::current_exe()?;
    let directory = example.parent().and_then(Path::parent);
    let gridwatch = directory
        .context("the example is not in a target directory")?
        .join("gridwatch");
    println!("starting private nodes of PostgreSQL and RabbitMQ");
    let postgres = Postgres::start()?;
    let rabbitmq = RabbitMq::start(1)?;
    let database_url = postgres.url("postgres");
    let amqp_url = rabbitmq.url(&rabbitmq.vhost()?);
    println!("PostgreSQL: {database_url}\nRabbitMQ:   {amqp_url}");
    // Ctrl-C reaches both processes. This one must outlive the demo, so that the nodes do too.
    let _ignored = tokio::spawn(tokio::signal::ctrl_c());
    let status = Command::new(&gridwatch)
        .args([
            "demo",
            "--database-url",
            &database_url,
            "--amqp-url",
            &amqp_url,
        ])
        .args(std::env::args_os().skip(1))
        .status()
        .await
        .with_context(|| format!("cannot start {}", gridwatch.display()))?;
    ensure!(status.success(), "gridwatch demo failed: {status}");
    Ok(())
}

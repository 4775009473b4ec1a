//! A private Prometheus.
//!
//! In: the targets to scrape, and files of rules. Out: the results of queries over its HTTP API.
//! Prometheus ends, and its files are removed, with the process that started it.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::node::Node;
use crate::{find, free_port, wait};

const SEARCH_PATHS: &[&str] = &["/usr/local/bin", "/opt/homebrew/bin"];
const LIMIT: Duration = Duration::from_secs(60);

/// What Prometheus scrapes: the targets of a job.
#[derive(Debug, Clone)]
pub struct Job {
    /// The name of the job, which is a label.
    pub name: &'static str,
    /// The path of the metrics.
    pub path: &'static str,
    /// The addresses (`host:port`).
    pub targets: Vec<String>,
}

/// A Prometheus that scrapes every second.
#[derive(Debug)]
pub struct Prometheus {
    node: Node,
    address: String,
}

impl Prometheus {
    /// Starts Prometheus with this label on every target.
    ///
    /// # Errors
    /// Prometheus is not installed, or does not start; the error contains the end of its log.
    pub fn start(label: (&str, &str), jobs: &[Job], rules: &[PathBuf]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("gridwatch-prometheus-")
            .tempdir()?
            .keep();
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut config =
            String::from("global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n");
        config.push_str("rule_files:\n");
        // Writing to a String cannot fail.
        for file in rules {
            let _ = writeln!(config, "  - {}", file.display());
        }
        config.push_str("scrape_configs:\n");
        for job in jobs {
            let _ = writeln!(
                config,
                "  - job_name: {}\n    metrics_path: {}\n    static_configs:\n      \
                 - targets: {:?}\n        labels: {{{}: {}}}",
                job.name, job.path, job.targets, label.0, label.1
            );
        }
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, config)?;
        let mut server = Command::new(find("prometheus", SEARCH_PATHS)?);
        server
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let node = Node::start(&directory, None, &server)?;
        wait::try_until("Prometheus listens", LIMIT, || {
            Ok(TcpStream::connect(&address).is_ok())
        })
        .with_context(|| node.log())?;
        Ok(Self { node, address })
    }

    /// The address of its HTTP API.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        self.node.log()
    }
}

/// The program that checks and tests rules, which comes with Prometheus.
///
/// # Errors
/// It is not installed.
pub fn promtool() -> anyhow::Result<PathBuf> {
    find("promtool", SEARCH_PATHS)
}

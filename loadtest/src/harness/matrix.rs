//! The matrix: Gridwatch is started in each deployment mode on this machine and loaded, to answer
//! five questions.
//!
//! ```text
//! cell (front ends, worker, load balancer) ▸ search (highest rate that meets the target)
//!   ▸ measurements at 50 % and 80 % of that rate
//! ```
//!
//! In: the program, and how long to measure. Out: a [`Matrix`] with an answer and its figures for
//! each question. A cell that fails is left out, with the reason in [`Matrix::incomplete`].

mod answers;
mod cell;
pub mod page;
mod search;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use testbed::haproxy::HaProxy;
use testbed::postgres::Postgres;
use testbed::rabbitmq::RabbitMq;
use tokio_util::sync::CancellationToken;

pub use self::answers::Answer;
pub use self::cell::DeploymentMode;
use self::cell::{Cell, Deployment, Servers};
pub use self::search::{Limit, Trial};
use crate::harness::report::{Machine, Report};
use crate::scenario::{Mode, Scenario};

/// Version of the format of a matrix.
const VERSION: u32 = 2;
/// File name of the matrix in its directory.
pub const FILE: &str = "matrix.json";
/// Below this headroom, the generator itself may be the limit.
const MIN_HEADROOM: f64 = 1.5;
/// Limit of the response time at the 99th percentile, in milliseconds.
const TARGET_MS: f64 = 100.0;

/// What to measure, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program `gridwatch`.
    pub gridwatch: PathBuf,
    /// Highest number of front ends behind the load balancer.
    pub instances: u16,
    /// Readings per request.
    pub batch: u64,
    /// Connections of the generator.
    pub connections: u64,
    /// Length of a trial of the search.
    pub trial: Duration,
    /// Number of trials of the search.
    pub trials: u32,
    /// Length of the measurements at 50 % and 80 %.
    pub measure: Duration,
    /// The seed of all pseudo-random values.
    pub seed: u64,
}

/// The results of one deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CellResult {
    /// `direct` or `queued`.
    #[serde(rename = "way")]
    pub mode: DeploymentMode,
    /// Number of front ends.
    pub instances: u16,
    /// Threads of each front end.
    pub threads: u16,
    /// Readings per second in a closed loop.
    pub ceiling_per_second: f64,
    /// The highest rate that met the target, in readings per second.
    pub best_per_second: f64,
    /// Why the next higher rate did not meet the target.
    pub limit: Limit,
    /// The busiest processes in the closed loop, and how busy they were.
    pub bottleneck: String,
    /// Every trial of the search.
    pub trials: Vec<Trial>,
    /// Reports at 50 % and 80 % of the highest rate.
    pub measured: Vec<Report>,
}

impl CellResult {
    /// The name of the deployment.
    pub(crate) fn name(&self) -> String {
        let deployment = Deployment {
            mode: self.mode,
            instances: self.instances,
            threads: self.threads,
        };
        deployment.name()
    }
}

/// The results of all deployments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Version of the format.
    pub version: u32,
    /// When the matrix began, RFC 3339.
    pub started_at: String,
    /// Versions of Gridwatch, PostgreSQL, RabbitMQ and HAProxy.
    pub versions: Vec<String>,
    /// The machine of the generator and all servers.
    pub machine: Machine,
    /// The seed of all pseudo-random values.
    pub seed: u64,
    /// Readings per request.
    pub batch: u64,
    /// Connections of the generator.
    pub connections: u64,
    /// Limit of the response time at the 99th percentile, in milliseconds.
    pub target_ms: f64,
    /// Readings per second that the generator reaches against an idle server.
    pub generator_per_second: f64,
    /// The rate of the generator as a multiple of the highest rate of all cells.
    pub headroom: f64,
    /// Why cells are missing; none if all are present.
    pub incomplete: Option<String>,
    /// The five answers.
    pub answers: Vec<Answer>,
    /// One result per deployment.
    pub cells: Vec<CellResult>,
}

impl Plan {
    /// The scenario of a run.
    fn scenario(&self, mode: Mode, rate: f64, duration: Duration) -> anyhow::Result<Scenario> {
        let mode = match mode {
            Mode::Open => "open",
            Mode::Closed => "closed",
        };
        let text = format!(
            "name = 'matrix'\nmode = '{mode}'\nseed = {}\nrate = {rate}\nduration = '{}'\n\
             warm-up = '{}'\nbatch = {}\nconnections = {}\n[fleet]\ndevices = 20000\n",
            self.seed,
            humantime::format_duration(duration),
            humantime::format_duration(duration / 5),
            self.batch,
            self.connections
        );
        Scenario::parse(&text).context("the scenario of the matrix")
    }

    /// The deployments of each mode: one front end with one thread, one with a thread per core, and
    /// several with one thread each.
    fn deployments(&self) -> Vec<Deployment> {
        let cores = std::thread::available_parallelism()
            .map_or(1, |cores| cores.get() as u16)
            .max(2);
        let mut deployments = Vec::new();
        for mode in [DeploymentMode::Direct, DeploymentMode::Queued] {
            let several = (2..=self.instances).map(|instances| (instances, 1));
            let all = [(1, 1), (1, cores)].into_iter().chain(several);
            deployments.extend(all.map(|(instances, threads)| Deployment {
                mode,
                instances,
                threads,
            }));
        }
        deployments
    }

    /// Measures all deployments on private servers. `log` is called with a line for each step.
    ///
    /// # Errors
    /// A server cannot be started or does not respond. When `stop` is cancelled, the results so far
    /// are returned.
    pub async fn execute(
        &self,
        log: &mut dyn FnMut(&str),
        stop: CancellationToken,
    ) -> anyhow::Result<Matrix> {
        let started_at = jiff::Timestamp::now().to_string();
        if self.instances > 1 {
            HaProxy::version().context("several front ends require HAProxy")?;
        }
        log("starting private PostgreSQL and RabbitMQ servers …");
        let deployments = self.deployments();
        let servers = Servers {
            postgres: Postgres::start()?,
            rabbitmq: RabbitMq::start(deployments.len())?,
        };
        let versions = servers.versions(self).await?;
        let generator_per_second = search::generator_rate(self, &stop).await?;
        log(&format!(
            "the generator reaches {generator_per_second:.0} readings/s against an idle server"
        ));
        let (mut cells, mut failed): (Vec<CellResult>, Vec<String>) = (Vec::new(), Vec::new());
        for (number, deployment) in deployments.into_iter().enumerate() {
            let name = deployment.name();
            let mut log = |text: &str| log(&format!("{name}: {text}"));
            let measure = async {
                let cell = Cell::start(self, &servers, number, deployment).await?;
                let result = search::measure(self, &cell, &mut log, &stop).await?;
                if let Err(error) = cell.stop() {
                    log(&format!("{error:#}"));
                }
                anyhow::Ok(result)
            };
            match measure.await {
                Ok(Some(result)) => cells.push(result),
                // The results of the other cells took minutes, and are returned nevertheless.
                Err(error) => failed.push(format!("{name}: {error:#}")),
                Ok(None) => {
                    failed.push("the matrix was ended early".into());
                    break;
                }
            }
        }
        let best = cells
            .iter()
            .map(|cell| cell.best_per_second)
            .fold(0.0, f64::max);
        Ok(Matrix {
            version: VERSION,
            started_at,
            versions,
            machine: Machine::this(),
            seed: self.seed,
            batch: self.batch,
            connections: self.connections,
            target_ms: TARGET_MS,
            generator_per_second,
            headroom: if best > 0.0 {
                generator_per_second / best
            } else {
                0.0
            },
            incomplete: (!failed.is_empty()).then(|| failed.join("; ")),
            answers: answers::of(&cells),
            cells,
        })
    }
}

impl Matrix {
    /// Whether the generator has so little headroom that it may be the limit itself.
    pub fn is_generator_near(&self) -> bool {
        self.headroom > 0.0 && self.headroom < MIN_HEADROOM
    }
}

/// The JSON Schema of [`Matrix`].
pub fn schema() -> String {
    serde_json::to_string_pretty(&schemars::schema_for!(Matrix)).unwrap_or_default() + "\n"
}

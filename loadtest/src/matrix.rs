//! The matrix: five questions, answered by starting Gridwatch in each of its shapes on this machine and loading it.
//!
//! ```text
//! cell (front ends, worker, load balancer) ▸ search (highest rate that meets the target) ▸ measure at 50 % and 80 %
//! ```
//!
//! In: the program, and how much time there is. Out: [`Matrix`], with a sentence and its figures for each question.

pub mod answers;
pub mod cell;
pub mod page;
pub mod search;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use testbed::haproxy::HaProxy;
use testbed::postgres::Postgres;
use testbed::rabbitmq::RabbitMq;
use tokio_util::sync::CancellationToken;

use crate::matrix::answers::Answer;
use crate::matrix::cell::{Cell, Way};
use crate::matrix::search::{Limit, Trial};
use crate::report::{Machine, Report};
use crate::scenario::{Mode, Scenario};

/// Version of the form of a matrix.
pub const VERSION: u32 = 2;
/// The name of the matrix in its folder.
pub const FILE: &str = "matrix.json";
/// The generator has to reach so many times the best rate.
const NEAR: f64 = 1.5;
/// What an answer may take at the highest rate, at the 99th percentile.
pub const TARGET_MS: f64 = 100.0;

/// What to try, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program `gridwatch`.
    pub gridwatch: PathBuf,
    /// Most front ends behind the load balancer.
    pub instances: u16,
    /// Readings of a request.
    pub batch: u64,
    /// Connections of the generator.
    pub connections: u64,
    /// Length of a trial of the search.
    pub trial: Duration,
    /// Trials of the search after the ceiling is known.
    pub trials: u32,
    /// Length of a measurement at 50 % and at 80 %.
    pub measure: Duration,
    /// Everything that looks random is made from it.
    pub seed: u64,
}

/// One shape, loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Loaded {
    /// `direct`, or `queued`.
    pub way: Way,
    /// Front ends.
    pub instances: u16,
    /// Threads of each.
    pub threads: u16,
    /// Readings a second in a closed loop.
    pub ceiling_per_second: f64,
    /// The highest rate that met the target, in readings a second.
    pub best_per_second: f64,
    /// What kept the next higher one from meeting it.
    pub limit: Limit,
    /// What was busiest at the ceiling, and how busy.
    pub bottleneck: String,
    /// Every trial of the search.
    pub trials: Vec<Trial>,
    /// At 50 % and at 80 % of the best.
    pub measured: Vec<Report>,
}

/// What the matrix has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// [`VERSION`].
    pub version: u32,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// What ran: Gridwatch, PostgreSQL, RabbitMQ, HAProxy.
    pub versions: Vec<String>,
    /// Where it ran; the generator and all servers on this one machine.
    pub machine: Machine,
    /// Everything that looks random was made from it.
    pub seed: u64,
    /// Readings of a request.
    pub batch: u64,
    /// Connections of the generator.
    pub connections: u64,
    /// What an answer may take at the 99th percentile, in milliseconds.
    pub target_ms: f64,
    /// Readings a second that the generator reaches against a server that does nothing.
    pub generator_per_second: f64,
    /// How many times the best rate of all that is.
    pub headroom: f64,
    /// Why cells are missing; none where all are there.
    pub incomplete: Option<String>,
    /// The five answers.
    pub answers: Vec<Answer>,
    /// Each shape.
    pub cells: Vec<Loaded>,
}

impl Plan {
    /// The scenario of every trial.
    fn scenario(&self, mode: Mode, rate: f64, duration: Duration) -> anyhow::Result<Scenario> {
        let mode = match mode {
            Mode::Open => "open",
            Mode::Closed => "closed",
        };
        let text = format!(
            "name = 'matrix'\nmode = '{mode}'\nseed = {}\nrate = {rate}\nduration = '{}'\nwarm-up = '{}'\nbatch = {}\n\
             connections = {}\n[fleet]\ndevices = 20000\n",
            self.seed,
            humantime::format_duration(duration),
            humantime::format_duration(duration / 5),
            self.batch,
            self.connections
        );
        Scenario::parse(&text).context("the matrix' scenario")
    }

    /// Which shapes: one front end with one thread and with all, and more of them with one each, directly and queued.
    fn shapes(&self) -> Vec<(Way, u16, u16)> {
        let cores = std::thread::available_parallelism()
            .map_or(1, |cores| cores.get() as u16)
            .max(2);
        let mut shapes = Vec::new();
        for way in [Way::Direct, Way::Queued] {
            shapes.extend([(way, 1, 1), (way, 1, cores)]);
            shapes.extend((2..=self.instances).map(|instances| (way, instances, 1)));
        }
        shapes
    }

    /// Runs everything on private nodes. `say` hears of each step.
    ///
    /// # Errors
    /// A server or a process does not start, or does not tell what it has to. Ctrl-C, through `stop`, ends it with what is
    /// there.
    pub async fn execute(
        &self,
        say: &mut dyn FnMut(&str),
        stop: CancellationToken,
    ) -> anyhow::Result<Matrix> {
        let started = jiff::Timestamp::now().to_string();
        if self.instances > 1 {
            HaProxy::version().context("several instances need HAProxy in front of them")?;
        }
        say("starting private PostgreSQL and RabbitMQ nodes …");
        let shapes = self.shapes();
        let postgres = Postgres::start()?;
        let rabbitmq = RabbitMq::start(shapes.len())?;
        let versions = cell::versions(self, &postgres, &rabbitmq).await?;
        let generator_per_second = search::generator(self, &stop).await?;
        say(&format!(
            "the generator reaches {generator_per_second:.0} readings/s against a server that does nothing"
        ));
        let (mut cells, mut failed): (Vec<Loaded>, Vec<String>) = (Vec::new(), Vec::new());
        for (number, (way, instances, threads)) in shapes.into_iter().enumerate() {
            let name = cell::name(way, instances, threads);
            let mut say = |text: &str| say(&format!("{name}: {text}"));
            let loaded = async {
                let cell = Cell::start(self, &postgres, &rabbitmq, number, way, instances, threads)
                    .await?;
                let loaded = search::load(self, &cell, &mut say, &stop).await?;
                if let Err(error) = cell.end() {
                    say(&format!("{error:#}"));
                }
                anyhow::Ok(loaded)
            };
            match loaded.await {
                Ok(Some(loaded)) => cells.push(loaded),
                // What the others have found took minutes, and stays.
                Err(error) => failed.push(format!("{name}: {error:#}")),
                Ok(None) => {
                    failed.push("it was ended before its time".into());
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
            started_at: started,
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
        self.headroom > 0.0 && self.headroom < NEAR
    }
}

/// The JSON Schema of [`Matrix`].
pub fn schema() -> String {
    serde_json::to_string_pretty(&schemars::schema_for!(Matrix)).unwrap_or_default() + "\n"
}

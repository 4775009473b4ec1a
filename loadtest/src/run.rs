//! A run: threads that send, a look at everything once a second, and a report.
//!
//! In: a scenario and a target. Out: [`Report`] and [`Ledger`]. Ctrl-C ends it before its time; what was found until then is
//! reported all the same.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, Tag};
use schema::clock;
use schema::reading::Micros;
use testbed::usage;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Fate, Ledger};
use crate::meter::{Measured, Meter, Quantiles};
use crate::observe::{self, Look};
use crate::progress::Progress;
use crate::report::{Machine, ProcessUse, Report, Row, VERSION};
use crate::scenario::{Mode, Scenario};
use crate::send::{Share, Target};
use crate::traffic::Traffic;

/// Time until the first send: for the threads to be there.
const HEAD_START: Duration = Duration::from_millis(200);
/// Time between two rows.
const ROW: Duration = Duration::from_secs(1);
/// Time between two looks at what is not stored yet.
const LOOK: Duration = Duration::from_millis(250);
/// Time between two looks at whether everything is sent.
const WAKE: Duration = Duration::from_millis(50);
/// How long the processes may take to answer when the run is to stop.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Debug, Clone)]
pub struct Run {
    /// What is sent.
    pub scenario: Scenario,
    /// Where to.
    pub target: Target,
    /// Threads that send.
    pub threads: u64,
    /// Admin ports of the processes, by what they are.
    pub admins: Vec<(String, String)>,
    /// What runs on this machine and whose CPU time counts too.
    pub watched: Vec<Watched>,
    /// How long what was accepted may take until it is stored, after the last answer.
    pub settle: Duration,
    /// Where the intervals of latency go, as an HDR log.
    pub log: Option<PathBuf>,
}

/// A process of this machine.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What it is.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// Whether it is a server of several processes, all of which count.
    pub is_server: bool,
    /// Whether it works for what is stored and not for what is accepted: behind a queue that is not the same.
    pub is_storing: bool,
}

impl Watched {
    fn cpu(&self) -> f64 {
        if self.is_server {
            usage::of_server(self.pid)
        } else {
            usage::of_process(self.pid)
        }
    }
}

/// What a run has found.
#[derive(Debug)]
pub struct Found {
    /// To be read by people and programs.
    pub report: Report,
    /// What became of each request.
    pub ledger: Ledger,
    /// Everything that was measured.
    pub measured: Measured,
}

impl Run {
    /// Runs it, until its end or `stop`.
    ///
    /// # Errors
    /// A process does not tell what it has to, or this machine has no threads. A target that fails is a finding.
    pub async fn execute(
        self,
        progress: &mut Progress,
        stop: CancellationToken,
    ) -> anyhow::Result<Found> {
        let addresses: Vec<String> = self
            .admins
            .iter()
            .map(|(_, address)| address.clone())
            .collect();
        let before = observe::look(&addresses).await?;
        let (begin, started) = (
            Instant::now() + HEAD_START,
            clock::now() + HEAD_START.as_micros() as Micros,
        );
        let traffic = Arc::new(Traffic::new(
            &self.scenario,
            self.scenario.begin.unwrap_or(started),
        ));
        let threads = self.threads.min(self.scenario.connections).max(1);
        let (mut meters, mut senders) = (Vec::new(), Vec::new());
        for turn in 0..threads {
            let meter = Meter::default();
            meters.push(meter.clone());
            let share = Share {
                traffic: traffic.clone(),
                target: self.target.clone(),
                begin,
                turn: (turn, threads),
                connections: (self.scenario.connections + threads - 1 - turn) / threads,
                meter,
                stop: stop.clone(),
            };
            senders.push(share.start().context("a thread to send from")?);
        }
        let mut file = self.log.as_deref().map(LogFile::create).transpose()?;
        let mut watch = Watch {
            run: &self,
            addresses: &addresses,
            begin,
            start: Warm {
                look: before,
                watched: Vec::new(),
                at: begin,
                accepted: 0,
            },
            warm: None,
            total: Measured::default(),
            rows: Vec::new(),
            backlogs: Vec::new(),
            log: file.as_mut().map(LogFile::begin).transpose()?,
        };
        watch.start.watched = watch.cpu();
        watch
            .until_ended(&meters, &senders, progress, &stop)
            .await?;
        let sent = (Instant::now(), watch.cpu());
        let (mut ledgers, mut ended) = (Vec::new(), begin);
        for sender in senders {
            let joined = sender
                .join()
                .map_err(|_| anyhow::anyhow!("a thread that sends has panicked"))?;
            let (ledger, at) = joined?;
            ledgers.push(ledger);
            ended = ended.max(at);
        }
        let ledger = Ledger::interleave(&ledgers);
        // Ctrl-C may come before the first send.
        let seconds = (ended - begin).as_secs_f64().max(1e-3);
        let is_interrupted = stop.is_cancelled();
        let after = watch.settle(sent, &stop, progress).await;
        Ok(watch.found(
            traffic.as_ref(),
            ledger,
            seconds,
            started,
            after,
            is_interrupted,
        ))
    }
}

/// What a run gathers while it goes on.
struct Watch<'a> {
    run: &'a Run,
    addresses: &'a [String],
    begin: Instant,
    /// The processes at the begin.
    start: Warm,
    /// The processes at the end of the warm-up.
    warm: Option<Warm>,
    total: Measured,
    rows: Vec<Row>,
    /// What was accepted and not stored, with the seconds since the begin, after the warm-up.
    backlogs: Vec<(f64, f64)>,
    log: Option<Log<'a>>,
}

#[derive(Debug, Clone)]
struct Warm {
    look: Look,
    watched: Vec<f64>,
    at: Instant,
    accepted: u64,
}

/// The processes at the end.
struct After {
    /// After everything was stored; none where they did not answer any more.
    look: Option<Look>,
    watched: Vec<f64>,
    at: Instant,
    settle: Option<Duration>,
    /// When everything was sent, and the CPU time until then.
    sent: (Instant, Vec<f64>),
}

impl Watch<'_> {
    fn cpu(&self) -> Vec<f64> {
        self.run.watched.iter().map(Watched::cpu).collect()
    }

    /// Adds up what was measured, second by second, until every thread is through.
    async fn until_ended<T>(
        &mut self,
        meters: &[Meter],
        senders: &[std::thread::JoinHandle<T>],
        progress: &mut Progress,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut next = self.begin + ROW;
        let mut next_look = self.begin + self.run.scenario.warm_up;
        let ended = || senders.iter().all(std::thread::JoinHandle::is_finished);
        loop {
            let mut backlog = None;
            while Instant::now() < next && !ended() {
                tokio::time::sleep(WAKE.min(next.saturating_duration_since(Instant::now()))).await;
                if Instant::now() < next_look {
                    continue;
                }
                next_look = Instant::now() + LOOK;
                // A process that is away for a moment is a finding, not the end of the run.
                let Some(look) = self.look(stop).await else {
                    continue;
                };
                backlog = self.backlog(&look);
                if let Some(backlog) = backlog {
                    self.backlogs
                        .push((self.begin.elapsed().as_secs_f64(), backlog));
                }
                if self.warm.is_none() {
                    // What is not added up yet was accepted before, too.
                    let latest: u64 = meters
                        .iter()
                        .map(|meter| meter.lock().counts.accepted)
                        .sum();
                    let accepted = self.total.counts.accepted + latest;
                    self.warm = Some(Warm {
                        look,
                        watched: self.cpu(),
                        at: Instant::now(),
                        accepted,
                    });
                }
            }
            let is_last = ended();
            let mut part = Measured::default();
            meters.iter().for_each(|meter| meter.take(&mut part));
            let at = self.begin.elapsed();
            if backlog.is_none() {
                backlog = self.look(stop).await.and_then(|look| self.backlog(&look));
            }
            self.add(&part, at, backlog)?;
            if let Some(row) = self.rows.last() {
                progress.row(row, &self.total.counts, stop.is_cancelled());
            }
            if is_last {
                return Ok(());
            }
            // A look that took long leaves rows out; it does not make short ones.
            while next <= Instant::now() {
                next += ROW;
            }
        }
    }

    /// A look at the processes; none where one does not answer, or not before it is to stop.
    async fn look(&self, stop: &CancellationToken) -> Option<Look> {
        let looking = observe::look(self.addresses);
        if stop.is_cancelled() {
            return tokio::time::timeout(LAST_LOOK, looking).await.ok()?.ok();
        }
        stop.run_until_cancelled(looking).await?.ok()
    }

    /// What was accepted in this run and is not stored; none where no process tells.
    fn backlog(&self, look: &Look) -> Option<f64> {
        (!self.addresses.is_empty()).then(|| look.books.since(&self.start.look.books).backlog())
    }

    fn add(&mut self, part: &Measured, at: Duration, backlog: Option<f64>) -> anyhow::Result<()> {
        let before = self.rows.last().map_or(0.0, |row| row.at);
        let seconds = (at.as_secs_f64() - before).max(1e-3);
        self.total.add(part);
        if let Some(log) = &mut self.log {
            write(
                log,
                part,
                Duration::from_secs_f64(before),
                Duration::from_secs_f64(seconds),
            )?;
        }
        // The last piece may be too short for a rate.
        if seconds < ROW.as_secs_f64() / 4.0 && !self.rows.is_empty() {
            return Ok(());
        }
        self.rows.push(Row {
            at: at.as_secs_f64(),
            accepted_per_second: part.counts.accepted as f64 / seconds,
            errors: part.counts.errors,
            latency_ms: (!part.intended.is_empty()).then(|| Quantiles::from(&part.intended)),
            backlog,
        });
        Ok(())
    }

    /// Waits until everything accepted is through, as far as the processes tell. One that does not answer may come back.
    async fn settle(
        &self,
        sent: (Instant, Vec<f64>),
        stop: &CancellationToken,
        progress: &mut Progress,
    ) -> After {
        let begun = Instant::now();
        loop {
            let look = self.look(stop).await;
            let backlog = look.as_ref().and_then(|look| self.backlog(look));
            let is_settled = backlog == Some(0.0);
            if is_settled
                || self.addresses.is_empty()
                || begun.elapsed() > self.run.settle
                || stop.is_cancelled()
            {
                let settle = is_settled.then(|| begun.elapsed());
                return After {
                    look,
                    watched: self.cpu(),
                    at: Instant::now(),
                    settle,
                    sent,
                };
            }
            progress.settling(backlog);
            tokio::time::sleep(WAKE).await;
        }
    }

    /// What each process used, as this machine counts it, or as the process tells in whole seconds.
    fn processes(&self, warm: &Warm, after: &After) -> Vec<ProcessUse> {
        let accepted = (self.total.counts.accepted - warm.accepted) as f64;
        // What was accepted in the warm-up and stored after it has cost those who store it.
        let settled = after.look.as_ref().filter(|_| !self.addresses.is_empty());
        let settled = settled.map_or(accepted, |look| {
            look.books.settled() - warm.look.books.settled()
        });
        let since = |at: Instant| {
            at.saturating_duration_since(warm.at)
                .as_secs_f64()
                .max(1e-3)
        };
        let mut processes = Vec::new();
        let mut add =
            |process: &str, is_storing: bool, cpu_seconds: f64, cores: f64, memory_mib: f64| {
                let readings = if is_storing { settled } else { accepted };
                let cpu_seconds_per_million =
                    (readings > 0.0).then(|| cpu_seconds / readings * 1e6);
                let process = process.to_owned();
                processes.push(ProcessUse {
                    process,
                    cpu_seconds,
                    cores,
                    cpu_seconds_per_million,
                    memory_mib,
                });
            };
        for (at, watched) in self.run.watched.iter().enumerate() {
            let (used, sending) = (
                after.watched[at] - warm.watched[at],
                after.sent.1[at] - warm.watched[at],
            );
            let cores = sending.max(0.0) / since(after.sent.0);
            add(
                &watched.name,
                watched.is_storing,
                used,
                cores,
                usage::memory_mib(watched.pid),
            );
        }
        let Some(look) = &after.look else {
            return processes;
        };
        for (at, (name, _)) in self.run.admins.iter().enumerate() {
            if self.run.watched.iter().all(|watched| watched.name != *name) {
                let used = look.cpu[at] - warm.look.cpu[at];
                add(
                    name,
                    look.accepted[at] == 0.0,
                    used,
                    used / since(after.at),
                    look.memory[at],
                );
            }
        }
        processes
    }

    fn found(
        self,
        traffic: &Traffic,
        ledger: Ledger,
        seconds: f64,
        started: Micros,
        after: After,
        interrupted: bool,
    ) -> Found {
        let warm = self.warm.clone().unwrap_or_else(|| self.start.clone());
        let processes = self.processes(&warm, &after);
        let mut scenario = self.run.scenario.clone();
        scenario.begin = Some(traffic.begin());
        let sent = (0..ledger.len())
            .filter(|&request| ledger.get(request) != Fate::Unsent)
            .count() as u64;
        let planned = if scenario.mode == Mode::Open {
            traffic.requests()
        } else {
            sent
        };
        let (total, is_told) = (&self.total, !self.addresses.is_empty());
        let report = Report {
            version: VERSION,
            scenario: toml::to_string(&scenario).unwrap_or_default(),
            name: scenario.name.clone(),
            seed: scenario.seed,
            begin: traffic.begin(),
            target: self.run.target.uri.to_string(),
            started_at: jiff::Timestamp::from_microsecond(started)
                .map(|at| at.to_string())
                .unwrap_or_default(),
            seconds,
            interrupted,
            machine: Machine::this(),
            versions: self.start.look.versions.iter().cloned().collect(),
            counts: total.counts.clone(),
            unsent: planned - sent,
            accepted_per_second: total.counts.accepted as f64 / seconds,
            latency_ms: Quantiles::from(&total.intended),
            latency_from_send_ms: Quantiles::from(&total.sent),
            lateness_ms: Quantiles::from(&total.lateness),
            curve_ms: curve(total),
            rows: self.rows,
            books: after
                .look
                .as_ref()
                .filter(|_| is_told)
                .map(|look| look.books.since(&self.start.look.books)),
            stages: after
                .look
                .as_ref()
                .map(|look| look.stages_since(&warm.look))
                .unwrap_or_default(),
            backlog_growth_per_second: growth(&self.backlogs),
            settle_seconds: after.settle.map(|settle| settle.as_secs_f64()),
            processes,
            unlike: total.unlike.clone(),
        };
        Found {
            report,
            ledger,
            measured: self.total,
        }
    }
}

/// By how much what is not stored grew each second: the slope of the straight line nearest to these looks. A worker stores in
/// large transactions, so that single looks say little.
fn growth(backlogs: &[(f64, f64)]) -> Option<f64> {
    let count = backlogs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| backlogs.iter().map(of).sum::<f64>() / count;
    let (time, backlog) = (mean(|look| look.0), mean(|look| look.1));
    let spread: f64 = backlogs.iter().map(|look| (look.0 - time).powi(2)).sum();
    let together: f64 = backlogs
        .iter()
        .map(|look| (look.0 - time) * (look.1 - backlog))
        .sum();
    (backlogs.len() > 2 && spread > 0.0).then(|| together / spread)
}

/// Latencies from the median's neighbourhood to p99.999, closer together towards the end.
fn curve(total: &Measured) -> Vec<(f64, f64, f64)> {
    let mut points = Vec::new();
    let mut left: f64 = 1.0;
    while left >= 1e-5 && total.intended.len() as f64 * left >= 1.0 {
        let quantile = 1.0 - left;
        let at = |histogram: &hdrhistogram::Histogram<u64>| {
            histogram.value_at_quantile(quantile) as f64 / 1e3
        };
        points.push((quantile, at(&total.intended), at(&total.sent)));
        left *= 0.8;
    }
    points
}

/// Intervals of latency in the log format of HdrHistogram, which its tools merge and plot.
struct LogFile {
    file: File,
    serializer: V2DeflateSerializer,
}

type Log<'a> = IntervalLogWriter<'a, 'a, File, V2DeflateSerializer>;

impl LogFile {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self {
            file,
            serializer: V2DeflateSerializer::new(),
        })
    }

    fn begin(&mut self) -> anyhow::Result<Log<'_>> {
        let log = IntervalLogWriterBuilder::new()
            .add_comment(
                "latency in microseconds, from the intended send; tag 'sent': from the send itself",
            )
            .with_start_time(std::time::SystemTime::now())
            .begin_log_with(&mut self.file, &mut self.serializer)?;
        Ok(log)
    }
}

fn write(
    log: &mut Log<'_>,
    part: &Measured,
    from: Duration,
    lasts: Duration,
) -> anyhow::Result<()> {
    let failed = |error| anyhow::anyhow!("the log of latencies cannot be written: {error:?}");
    log.write_histogram(&part.intended, from, lasts, None)
        .map_err(failed)?;
    log.write_histogram(&part.sent, from, lasts, Tag::new("sent"))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sawtooth_does_not_grow_and_a_rising_one_does() {
        // A transaction of 30,000 readings every 0.4 s, of 100,000 readings/s that come in and so many less that go.
        let saw = |rising: f64| -> Vec<_> {
            let look = |n: i32| {
                (
                    f64::from(n) * 0.25,
                    f64::from(n * 25 % 40) * 1_000.0 + rising * f64::from(n) * 0.25,
                )
            };
            (0..30).map(look).collect()
        };
        let (steady, rising) = (growth(&saw(0.0)).unwrap(), growth(&saw(10_000.0)).unwrap());
        assert!(
            steady.abs() < 2_000.0 && (rising - steady - 10_000.0).abs() < 1.0,
            "{steady}, {rising}"
        );
        assert_eq!(growth(&[(1.0, 5.0), (2.0, 6.0)]), None);
    }
}

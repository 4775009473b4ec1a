//! The command line.

mod print;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use loadtest::ledger::Ledger;
use loadtest::matrix::{self, Plan};
use loadtest::observe;
use loadtest::plot::human;
use loadtest::progress::Progress;
use loadtest::report::{self, Report};
use loadtest::run::{Found, Run};
use loadtest::scenario::{CLOSED_RATE, MAX_BATCH, Mode, Scenario};
use loadtest::send::Target;
use loadtest::verify::Verify;
use tokio_util::sync::CancellationToken;

/// Most runs one after the other.
const MAX_REPEAT: u32 = 100;
/// The largest whole number that a scenario's TOML can hold.
const MAX_SEED: u64 = i64::MAX as u64;
/// Most connections; a port each, of those that an address has.
const MAX_CONNECTIONS: u64 = 60_000;
/// How long connecting to the target may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A wrong flag or file: one sentence, and exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

/// Load on a Gridwatch, and proof of what became of it.
///
/// Exit codes: 0 all is well, 1 it could not be done, 2 a wrong flag or file, 3 something was found: a promise is broken,
/// requests failed, a figure is worse than it was.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a scenario to a running Gridwatch, and write a report
    Run(RunArguments),
    /// Prove that the database holds what a run was told that it accepted, and nothing else
    Verify(VerifyArguments),
    /// Answer five questions by loading every shape of Gridwatch on this machine, on private nodes
    Matrix(MatrixArguments),
    /// Say whether one set of runs is worse than another, beyond their noise: exit code 3 where it is
    Compare {
        /// A report or matrix, a folder of one, or a folder of such folders (repeated runs)
        base: PathBuf,
        /// What is compared with it
        new: PathBuf,
    },
    /// Print the JSON Schema of report.json
    Schema {
        /// That of matrix.json instead
        #[arg(long)]
        matrix: bool,
    },
    /// Print the devices of a scenario, one a line, for a Gridwatch that rejects unknown ones
    Devices {
        /// A scenario file, or the name of a ready one
        scenario: PathBuf,
    },
    /// Run a server that answers 202 to everything, to measure the generator itself
    Nothing {
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:8081")]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    /// A scenario file, or the name of a ready one: lv-grid, firehose, trickle, outage, hostile
    scenario: PathBuf,
    /// The front end, or the load balancer in front of several
    #[arg(long, value_name = "URL")]
    target: String,
    /// Folder for report.json, report.html, the ledger and the log of latencies; made where it is missing
    #[arg(long, value_name = "DIR")]
    report: PathBuf,
    /// Readings a second, instead of the scenario's
    #[arg(long, value_name = "READINGS", value_parser = rate)]
    rate: Option<f64>,
    /// How long, such as 30s
    #[arg(long, value_parser = time)]
    duration: Option<Duration>,
    /// Readings of a request
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_BATCH))]
    batch: Option<u64>,
    /// Connections
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_CONNECTIONS))]
    connections: Option<u64>,
    /// Another seed: other values, other faults
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=MAX_SEED))]
    seed: Option<u64>,
    /// Time of the first measurement, to send the same bytes again; RFC 3339
    #[arg(long)]
    begin: Option<jiff::Timestamp>,
    /// Threads that send; half of the cores unless told
    #[arg(long)]
    threads: Option<u64>,
    /// Admin port of a process, for stages, backlog and CPU time; once for each, with NAME= in front to call it so
    #[arg(long, value_name = "[NAME=]HOST:PORT", value_parser = admin)]
    admin: Vec<(String, String)>,
    /// How long everything may take until it is stored, where admin ports are given
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    settle: Duration,
    /// Do not look at what the answers say: for a server that does nothing
    #[arg(long)]
    unchecked: bool,
    /// Run so often, with the reports in DIR/1, DIR/2, …, for 'loadtest compare' to know the noise
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_REPEAT.into()))]
    repeat: u32,
}

#[derive(Debug, Args)]
struct VerifyArguments {
    /// Folder of the run's report and ledger
    #[arg(long, value_name = "DIR")]
    report: PathBuf,
    /// The database that Gridwatch writes to
    #[arg(long, env = "GRIDWATCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Admin port of every process, to compare their counters, which begin with the process: one that was started again
    /// during the run has lost the others
    #[arg(long, value_name = "HOST:PORT", value_parser = observe::address)]
    admin: Vec<String>,
    /// How long what was accepted may take until it is stored
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    settle: Duration,
}

#[derive(Debug, Args)]
struct MatrixArguments {
    /// Folder for matrix.json and matrix.html; made where it is missing
    #[arg(long, value_name = "DIR")]
    report: PathBuf,
    /// The program gridwatch; the one beside this unless told
    #[arg(long, value_name = "FILE")]
    gridwatch: Option<PathBuf>,
    /// Most front ends behind the load balancer
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
    instances: u16,
    /// Readings of a request
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// Length of a trial of the search
    #[arg(long, value_parser = time, default_value = "8s")]
    trial: Duration,
    /// Trials of the search
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    trials: u32,
    /// Length of a measurement at 50 % and at 80 %
    #[arg(long, value_parser = time, default_value = "20s")]
    measure: Duration,
    /// Everything that looks random is made from it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=MAX_SEED))]
    seed: u64,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text
        .parse()
        .ok()
        .filter(|rate| *rate > 0.0 && *rate <= CLOSED_RATE);
    rate.ok_or_else(|| format!("expected a number above 0 and up to {CLOSED_RATE}"))
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .ok()
        .filter(|time| *time >= Duration::from_secs(1));
    time.ok_or_else(|| "expected a time of a second or more, such as '30s' or '2m'".into())
}

fn admin(text: &str) -> Result<(String, String), String> {
    let (name, address) = text.split_once('=').unwrap_or((text, text));
    Ok((name.to_owned(), observe::address(address)?))
}

/// Runs the command, and says how the process ends.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Run(arguments) => send(arguments).await,
            Command::Verify(arguments) => verify(arguments).await,
            Command::Matrix(arguments) => fill(arguments).await,
            Command::Compare { base, new } => compare(&base, &new),
            Command::Schema { matrix } => {
                print!(
                    "{}",
                    if matrix {
                        loadtest::matrix::schema()
                    } else {
                        report::schema()
                    }
                );
                Ok(ExitCode::SUCCESS)
            }
            Command::Devices { scenario } => {
                let scenario = load(&scenario)?;
                let mut out = std::io::BufWriter::new(std::io::stdout().lock());
                let mut write = || -> std::io::Result<()> {
                    for device in 0..scenario.fleet.devices {
                        writeln!(out, "{}{device:06}", scenario.fleet.prefix)?;
                    }
                    out.flush()
                };
                match write() {
                    // Who reads has had enough, as 'head' has.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                        Ok(ExitCode::SUCCESS)
                    }
                    done => Ok(done.map(|()| ExitCode::SUCCESS)?),
                }
            }
            Command::Nothing { listen } => {
                let address = loadtest::nothing::start(listen)
                    .await
                    .with_context(|| listen.to_string())?;
                println!("answers 202 to everything on http://{address}");
                tokio::signal::ctrl_c().await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

fn load(path: &Path) -> Result<Scenario, Usage> {
    Scenario::load(path).map_err(|error| Usage(error.to_string()))
}

async fn send(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let mut scenario = load(&arguments.scenario)?;
    scenario.rate = arguments.rate.unwrap_or(scenario.rate);
    if let Some(duration) = arguments.duration {
        scenario.stretch(duration);
    }
    scenario.batch = arguments.batch.unwrap_or(scenario.batch);
    scenario.connections = arguments.connections.unwrap_or(scenario.connections);
    scenario.seed = arguments.seed.unwrap_or(scenario.seed);
    scenario.begin = arguments
        .begin
        .map(jiff::Timestamp::as_microsecond)
        .or(scenario.begin);
    scenario
        .check()
        .map_err(|(key, reason)| Usage(format!("with what the flags say: {key}: {reason}")))?;
    let mut target = Target::new(&arguments.target)
        .map_err(|error| Usage(format!("--target {}: {error}", arguments.target)))?;
    target.is_checked = !arguments.unchecked;
    let reached =
        tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(target.address())).await;
    let reached = reached.map_err(|_| format!("no answer within {PATIENCE:?}"));
    let reached = reached.and_then(|connected| connected.map_err(|error| error.to_string()));
    reached.map_err(|error| {
        Usage(format!(
            "--target {}: {error}; is it running?",
            arguments.target
        ))
    })?;
    for (_, address) in &arguments.admin {
        let answers = observe::look(std::slice::from_ref(address)).await;
        answers.map_err(|error| Usage(format!("--admin: {error:#}; is it running?")))?;
    }
    let open = match scenario.mode {
        Mode::Open => format!("{} readings/s", scenario.rate),
        Mode::Closed => "as fast as it goes".to_owned(),
    };
    eprintln!(
        "{}: {open} in requests of {} over {} connections for {:?}, seed {}",
        scenario.name, scenario.batch, scenario.connections, scenario.duration, scenario.seed
    );
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    // What an earlier run has left would be taken for this one's.
    clear(&arguments.report)?;
    for turn in 1..=MAX_REPEAT {
        clear(&arguments.report.join(turn.to_string()))?;
    }
    let mut worst = 0;
    for turn in 1..=arguments.repeat {
        let folder = match arguments.repeat {
            1 => arguments.report.clone(),
            _ => arguments.report.join(turn.to_string()),
        };
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut progress = Progress::new(scenario.duration);
        let run = Run {
            scenario: scenario.clone(),
            target: target.clone(),
            threads: arguments.threads.unwrap_or_else(half_of_the_cores),
            admins: arguments.admin.clone(),
            watched: Vec::new(),
            settle: arguments.settle,
            log: Some(folder.join(report::LOG)),
        };
        let found = run.execute(&mut progress, stop.clone()).await;
        progress.finish();
        let found = found?;
        write(&folder, &found)?;
        worst = worst.max(print::run(&found.report, &folder));
        if stop.is_cancelled() {
            break;
        }
    }
    Ok(ExitCode::from(worst))
}

fn compare(base: &Path, new: &Path) -> anyhow::Result<ExitCode> {
    let found =
        loadtest::compare::compare(base, new).map_err(|error| Usage(format!("{error:#}")))?;
    Ok(print::comparison(&found))
}

async fn fill(arguments: MatrixArguments) -> anyhow::Result<ExitCode> {
    let gridwatch = match arguments.gridwatch {
        Some(file) => file,
        None => std::env::current_exe()?.with_file_name("gridwatch"),
    };
    if !gridwatch.is_file() {
        return Err(Usage(format!(
            "{}: no such file; --gridwatch says where it is",
            gridwatch.display()
        ))
        .into());
    }
    let folder = arguments.report;
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let plan = Plan {
        gridwatch,
        instances: arguments.instances,
        batch: arguments.batch,
        connections: arguments.connections,
        trial: arguments.trial,
        trials: arguments.trials,
        measure: arguments.measure,
        seed: arguments.seed,
    };
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let begun = std::time::Instant::now();
    let mut say = |text: &str| eprintln!("{:>4.0} s  {text}", begun.elapsed().as_secs_f64());
    let matrix = plan.execute(&mut say, stop).await?;
    let json = serde_json::to_string_pretty(&matrix)?;
    let page = folder.join("matrix.html");
    for (path, text) in [
        (folder.join(matrix::FILE), json),
        (folder.join("matrix.svg"), matrix::page::picture(&matrix)),
        (page.clone(), matrix::page::page(&matrix)),
    ] {
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    for answer in &matrix.answers {
        println!("{}\n  {}", answer.question, answer.answer);
    }
    println!(
        "the generator reaches {} readings/s against a server that does nothing, {:.1} times the best rate",
        human(matrix.generator_per_second),
        matrix.headroom
    );
    if matrix.is_generator_near() {
        println!("that is little: the generator itself may be what limits");
    }
    println!("report in {}", page.display());
    match &matrix.incomplete {
        None => Ok(ExitCode::SUCCESS),
        Some(why) => {
            println!("incomplete: {why}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The first signal ends the run in order, the second one at once.
async fn stop_on_signal(stop: CancellationToken) {
    let Ok(mut terminate) =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
    else {
        return;
    };
    for code in [None, Some(130)] {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        if let Some(code) = code {
            std::process::exit(code);
        }
        eprintln!("stopping; the report is written all the same (once more: at once)");
        stop.cancel();
    }
}

fn half_of_the_cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() as u64 / 2).max(1))
}

/// Removes what a run has written to its folder, and the folder where that was all.
fn clear(folder: &Path) -> anyhow::Result<()> {
    for file in [
        report::FILE,
        report::PAGE,
        report::LEDGER,
        report::LOG,
        report::VERDICT,
    ] {
        let path = folder.join(file);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    // It is not empty, or not there.
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

/// Writes everything; the ledger first, without which nothing can be verified.
fn write(folder: &Path, found: &Found) -> anyhow::Result<()> {
    found
        .ledger
        .write(&folder.join(report::LEDGER), found.report.begin)?;
    let json = serde_json::to_string_pretty(&found.report)?;
    for (file, text) in [
        (report::FILE, json),
        (report::PAGE, loadtest::html::page(&found.report)),
    ] {
        let path = folder.join(file);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

async fn verify(arguments: VerifyArguments) -> anyhow::Result<ExitCode> {
    let folder = &arguments.report;
    let wrong = |error: anyhow::Error| Usage(format!("--report {}: {error:#}", folder.display()));
    let report = Report::read(folder).map_err(wrong)?;
    let ledger = Ledger::read(&folder.join(report::LEDGER), report.begin).map_err(wrong)?;
    let verify = Verify {
        report: &report,
        ledger: &ledger,
        database_url: &arguments.database_url,
        admins: &arguments.admin,
        settle: arguments.settle,
    };
    let verdict = verify.execute().await?;
    std::fs::write(
        folder.join(report::VERDICT),
        serde_json::to_string_pretty(&verdict)?,
    )?;
    Ok(print::verdict(&verdict))
}

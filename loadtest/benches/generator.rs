//! `make bench`, third part: the load generator itself, against the idle server.
//!
//! Three measurements: its highest rate compared with the rate of `wrk`, with the same requests and
//! connections, in turns; the lateness of its sends at half of that rate on a schedule; and its
//! memory. The figures go to standard output, and as JSON to `--out`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use loadtest::harness::report::Report;
use loadtest::statistics::median;
use serde::Serialize;
use testbed::usage;

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");
const CONNECTIONS: u32 = 64;
/// Goal of the highest rate, as a ratio to the rate of wrk.
const RATIO_GOAL: f64 = 0.8;
/// Goal of the lateness at half of the highest rate, in milliseconds at the 99th percentile.
const LATENESS_GOAL_MS: f64 = 1.0;

#[derive(Debug, Parser)]
struct Arguments {
    /// Number of rounds, whose median is the result
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a round in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Length of the memory measurement in seconds
    #[arg(long, default_value_t = 60)]
    memory_seconds: u64,
    /// The JSON file to write
    #[arg(long, default_value = "target/bench/generator.json")]
    out: PathBuf,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Serialize)]
struct Figures {
    wrk_per_second: Vec<f64>,
    loadtest_per_second: Vec<f64>,
    ratio: f64,
    ratio_goal: f64,
    half_rate: f64,
    lateness_p99_ms: f64,
    lateness_goal_ms: f64,
    memory_seconds: u64,
    memory_mib_after_a_tenth: f64,
    memory_mib_at_the_end: f64,
}

/// The idle server, which ends when it is dropped.
struct IdleServer {
    child: Child,
    url: String,
}

impl IdleServer {
    fn start(threads: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(PROGRAM);
        command.env("TOKIO_WORKER_THREADS", threads.to_string());
        let mut child = command
            .args(["nothing", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let url = line
            .split_whitespace()
            .next_back()
            .context("the idle server printed no address")?
            .to_owned();
        Ok(Self { child, url })
    }
}

impl Drop for IdleServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (server, directory) = (IdleServer::start(2)?, tempfile::tempdir()?);
    let (mut wrk_rates, mut own_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        let wrk = run_wrk(&server.url, directory.path(), arguments.seconds)?;
        let own = run(
            &server.url,
            directory.path(),
            "closed",
            1.0,
            arguments.seconds,
        )?;
        let own = own.accepted_per_second;
        println!(
            "  wrk {wrk:.0}, loadtest {own:.0} requests/s, ratio {:.2}",
            own / wrk
        );
        wrk_rates.push(wrk);
        own_rates.push(own);
        ratios.push(own / wrk);
    }
    let half_rate = median(&own_rates) / 2.0;
    // One thread, because on two cores the threads of the server and the generator would wait for
    // each other: the measurement would be one of the scheduler.
    let server = IdleServer::start(1)?;
    let mut lateness = Vec::new();
    for _ in 0..arguments.rounds {
        lateness.push(
            run(
                &server.url,
                directory.path(),
                "open",
                half_rate,
                arguments.seconds,
            )?
            .lateness_ms
            .p99,
        );
    }
    println!("  lateness at p99: {lateness:?} ms");
    let (early, late) = memory(&server.url, directory.path(), arguments.memory_seconds)?;
    let figures = Figures {
        ratio: median(&ratios),
        wrk_per_second: wrk_rates,
        loadtest_per_second: own_rates,
        ratio_goal: RATIO_GOAL,
        half_rate,
        lateness_p99_ms: median(&lateness),
        lateness_goal_ms: LATENESS_GOAL_MS,
        memory_seconds: arguments.memory_seconds,
        memory_mib_after_a_tenth: early,
        memory_mib_at_the_end: late,
    };
    println!(
        "highest rate: {:.2} of wrk (goal {RATIO_GOAL})",
        figures.ratio
    );
    println!(
        "lateness at half of the highest rate: {:.2} ms at p99 (goal {LATENESS_GOAL_MS})",
        figures.lateness_p99_ms
    );
    println!(
        "memory: {early:.1} MiB after a tenth of {} s, {late:.1} MiB at the end",
        arguments.memory_seconds
    );
    let out = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(&arguments.out);
    std::fs::create_dir_all(out.parent().context("--out has no directory")?)?;
    std::fs::write(&out, serde_json::to_string_pretty(&figures)?)?;
    println!("written to {}", arguments.out.display());
    Ok(())
}

/// Requests per second of wrk, with requests like those of the scenario below.
fn run_wrk(url: &str, directory: &Path, seconds: u64) -> anyhow::Result<f64> {
    let script = directory.join("post.lua");
    let body = concat!(
        r#"[{"device":"lt-000000","metric":"current","#,
        r#""measured_at":1793491200000000,"value":230.12}]"#
    );
    let text = format!(
        "wrk.method = 'POST'\nwrk.path = '/v1/readings?precision=us'\n\
         wrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{body}'\n"
    );
    std::fs::write(&script, text)?;
    let mut command = Command::new("wrk");
    command
        .args([
            "-t1",
            &format!("-c{CONNECTIONS}"),
            &format!("-d{seconds}s"),
            "-s",
        ])
        .arg(&script)
        .arg(url);
    let output = command
        .output()
        .context("wrk cannot be started; 'scripts/setup.sh wrk' installs it")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("Requests/sec"))
        .context("wrk printed no rate")?;
    Ok(line
        .split_whitespace()
        .next_back()
        .context("wrk printed no rate")?
        .parse()?)
}

fn command(
    url: &str,
    directory: &Path,
    mode: &str,
    rate: f64,
    seconds: u64,
) -> anyhow::Result<Command> {
    let scenario = directory.join("scenario.toml");
    let text = format!(
        "name = 'generator'\nmode = '{mode}'\nrate = {rate:.0}\nduration = '{seconds}s'\n\
         batch = 1\nconnections = {CONNECTIONS}\n[fleet]\ndevices = 50000\n"
    );
    std::fs::write(&scenario, text)?;
    let mut command = Command::new(PROGRAM);
    command
        .arg("run")
        .arg(&scenario)
        .args(["--unchecked", "--threads", "1", "--target", url, "--report"])
        .arg(directory);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

fn run(url: &str, directory: &Path, mode: &str, rate: f64, seconds: u64) -> anyhow::Result<Report> {
    let status = command(url, directory, mode, rate, seconds)?.status()?;
    ensure!(status.success(), "loadtest run: {status}");
    Report::read(directory)
}

/// Resident memory in MiB after a tenth of the time, and at its end before the report is written,
/// at 5,000 requests per second.
fn memory(url: &str, directory: &Path, seconds: u64) -> anyhow::Result<(f64, f64)> {
    let mut child = command(url, directory, "open", 5_000.0, seconds)?.spawn()?;
    let started = Instant::now();
    let (mut early, mut last) = (None, 0.0);
    while child.try_wait()?.is_none() {
        let (now, share) = (
            usage::memory_mib(child.id()),
            started.elapsed().as_secs_f64() / seconds as f64,
        );
        if share < 1.0 {
            last = now;
        }
        if early.is_none() && share > 0.1 {
            early = Some(now);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok((early.unwrap_or(last), last))
}

//! `make bench`, third part: the load generator itself, against a server that does nothing.
//!
//! What it reaches is compared with what `wrk` reaches with the same requests and connections, in turns; then it sends half
//! of that on a schedule, and how late its sends are is what counts; then its memory is watched. The figures go to
//! standard output, and as JSON to `--out`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use loadtest::report::Report;
use serde::Serialize;
use testbed::usage;

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");
const CONNECTIONS: u32 = 64;
/// Goals: of the rate, as a ratio to wrk's; of the lateness of sends at half of it, in milliseconds.
const GOALS: (f64, f64) = (0.8, 1.0);

#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a round
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Seconds for which the memory is watched
    #[arg(long, default_value_t = 60)]
    memory_seconds: u64,
    /// Where the JSON goes
    #[arg(long, default_value = "target/bench/generator.json")]
    out: PathBuf,
    /// Given by cargo
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

/// A server that does nothing, and ends with its owner.
struct Nothing(Child, String);

impl Nothing {
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
            .context("it said nothing")?
            .to_owned();
        Ok(Self(child, url))
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (server, folder) = (Nothing::start(2)?, tempfile::tempdir()?);
    let (mut wrk_rates, mut own_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        let by_wrk = wrk(&server.1, folder.path(), arguments.seconds)?;
        let own =
            own(&server.1, folder.path(), "closed", 1.0, arguments.seconds)?.accepted_per_second;
        println!(
            "  wrk {by_wrk:.0}, loadtest {own:.0} requests/s, ratio {:.2}",
            own / by_wrk
        );
        wrk_rates.push(by_wrk);
        own_rates.push(own);
        ratios.push(own / by_wrk);
    }
    let half_rate = median(&own_rates) / 2.0;
    // On two cores a server of two threads takes the generator's away at times: then it is the scheduler that is measured.
    let server = Nothing::start(1)?;
    let mut lateness = Vec::new();
    for _ in 0..arguments.rounds {
        lateness.push(
            own(
                &server.1,
                folder.path(),
                "open",
                half_rate,
                arguments.seconds,
            )?
            .lateness_ms
            .p99,
        );
    }
    println!("  late by p99 {lateness:?} ms");
    let (early, late) = memory(&server.1, folder.path(), arguments.memory_seconds)?;
    let figures = Figures {
        ratio: median(&ratios),
        wrk_per_second: wrk_rates,
        loadtest_per_second: own_rates,
        ratio_goal: GOALS.0,
        half_rate,
        lateness_p99_ms: median(&lateness),
        lateness_goal_ms: GOALS.1,
        memory_seconds: arguments.memory_seconds,
        memory_mib_after_a_tenth: early,
        memory_mib_at_the_end: late,
    };
    println!("generator: {:.2} of wrk (goal {})", figures.ratio, GOALS.0);
    println!(
        "at half the rate sends are late by {:.2} ms at p99 (goal {})",
        figures.lateness_p99_ms, GOALS.1
    );
    println!(
        "memory {early:.1} MiB after a tenth of {} s, {late:.1} MiB at the end",
        arguments.memory_seconds
    );
    let out = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(&arguments.out);
    std::fs::create_dir_all(out.parent().context("no folder")?)?;
    std::fs::write(&out, serde_json::to_string_pretty(&figures)?)?;
    println!("written to {}", arguments.out.display());
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Requests a second of wrk, with requests like those of the scenario below.
fn wrk(url: &str, folder: &Path, seconds: u64) -> anyhow::Result<f64> {
    let script = folder.join("post.lua");
    let body = r#"[{"device":"lt-000000","metric":"current","measured_at":1793491200000000,"value":230.12}]"#;
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
        .context("wrk: 'scripts/setup.sh wrk' installs it")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("Requests/sec"))
        .context("wrk has no figure")?;
    Ok(line
        .split_whitespace()
        .next_back()
        .context("wrk has no figure")?
        .parse()?)
}

fn command(
    url: &str,
    folder: &Path,
    mode: &str,
    rate: f64,
    seconds: u64,
) -> anyhow::Result<Command> {
    let scenario = folder.join("scenario.toml");
    let text = format!(
        "name = 'generator'\nmode = '{mode}'\nrate = {rate:.0}\nduration = '{seconds}s'\nbatch = 1\n\
         connections = {CONNECTIONS}\n[fleet]\ndevices = 50000\n"
    );
    std::fs::write(&scenario, text)?;
    let mut command = Command::new(PROGRAM);
    command
        .arg("run")
        .arg(&scenario)
        .args(["--unchecked", "--threads", "1", "--target", url, "--report"])
        .arg(folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

fn own(url: &str, folder: &Path, mode: &str, rate: f64, seconds: u64) -> anyhow::Result<Report> {
    let status = command(url, folder, mode, rate, seconds)?.status()?;
    ensure!(status.success(), "loadtest run: {status}");
    Report::read(folder)
}

/// Resident memory after a tenth of the time and at its end, before the report is made, at 5,000 requests a second.
fn memory(url: &str, folder: &Path, seconds: u64) -> anyhow::Result<(f64, f64)> {
    let mut child = command(url, folder, "open", 5_000.0, seconds)?.spawn()?;
    let begun = Instant::now();
    let (mut early, mut last) = (None, 0.0);
    while child.try_wait()?.is_none() {
        let (now, part) = (
            usage::memory_mib(child.id()),
            begun.elapsed().as_secs_f64() / seconds as f64,
        );
        if part < 1.0 {
            last = now;
        }
        if early.is_none() && part > 0.1 {
            early = Some(now);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok((early.unwrap_or(last), last))
}

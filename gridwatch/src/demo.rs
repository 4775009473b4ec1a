//! `gridwatch demo`: Gridwatch in standalone mode in a temporary directory, with a day of a real
//! meter and a simulated fleet.
//!
//! In: flags. Out: a running process that has stored the readings of both, and a table of what
//! became of them. It runs until Ctrl-C and removes its directory.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;
use loadtest::generator::{Generator, Pacing};
use loadtest::scenario::Scenario;
use loadtest::send::Target;
use loadtest::traffic::Traffic;
use schema::clock::{self, Stage};
use schema::metric;
use schema::prometheus::{self, Histogram, Sample};
use service::client::{Client, Uri};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::UsageError;
use crate::config::{
    Address, Command, DatabaseUrl, Demo, Import, ImportFormat, ImportKind, Settings,
};
use crate::output::{ended, note, print};
use crate::serve::standalone;
use crate::{embedded, import, migrate};

/// How the name of its directory begins.
const DIRECTORY_PREFIX: &str = "gridwatch-demo-";

/// A day of a real electricity meter: a header, then time and value. gridwatch/data/README.md
/// states where it is from.
const METER_DAY: &str = include_str!("../data/meter-2019-01-17.csv");
const METER: &str = "meter-1";
const METER_METRIC: &str = "energy";

/// Number of seconds for which the fleet has readings, one per series and second.
const SECONDS: i64 = 30;
/// Metrics of each device.
const METRICS: u32 = 2;
/// Pause between two scrapes while the demo waits.
const POLL: Duration = Duration::from_millis(100);
/// How long a response may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the command.
pub(crate) async fn run(arguments: Demo) -> anyhow::Result<()> {
    let directory = create_directory().context("cannot create a temporary directory")?;
    let resolved = async |flag, address: &Address| {
        let wrong = |reason| UsageError(format!("{flag} {address}: {reason}"));
        address.resolve().await.map_err(wrong)
    };
    let listen = free_address(resolved("--listen", &arguments.listen).await?)?;
    let admin = free_address(resolved("--admin", &arguments.admin).await?)?;
    if arguments.database_url.is_some() {
        // Standalone waits for a server that is down; the demo reports it.
        let database = DatabaseUrl {
            database_url: arguments.database_url.clone(),
            database_url_file: None,
        };
        migrate::connect(&database.parse("gridwatch demo", RESPONSE_TIMEOUT)?).await?;
    }
    let settings = standalone_settings(&arguments, directory.path(), listen, admin)?;
    let (deployment, process) = standalone::open(settings).await?;
    let stop = process.context().stop;
    let showing = async {
        let result = show(&arguments, listen, admin, &stop).await;
        // An error ends the demo; otherwise it runs until the user stops it.
        if result.is_err() {
            stop.cancel();
        }
        stop.cancelled().await;
        note("stopping: the queue is stored and the database is closed, in a few seconds");
        result
    };
    let running = async {
        let result = deployment.run(process).await;
        stop.cancel();
        result
    };
    let (deployed, shown) = tokio::join!(running, showing);
    ended(shown).and(deployed)
}

/// Keeps the files of the embedded database in the directory of the demo, which does not exist yet.
///
/// # Errors
/// As [`embedded::confine_to`].
pub(crate) fn confine() -> anyhow::Result<()> {
    if own_directory().is_some() {
        return Ok(());
    }
    // It is removed at once, so that only its unused name is left.
    let named = tempfile::Builder::new().prefix(DIRECTORY_PREFIX).tempdir();
    let directory =
        std::path::absolute(named.context("cannot create a temporary directory")?.path())?;
    embedded::confine_to(&directory)
}

/// The directory that [`confine`] has chosen.
fn own_directory() -> Option<PathBuf> {
    embedded::confined_to().filter(|directory| {
        let name = directory.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(DIRECTORY_PREFIX))
    })
}

/// Creates the directory, which must not exist, because it is removed at the end.
fn create_directory() -> std::io::Result<TempDir> {
    let own = own_directory();
    match own
        .as_deref()
        .and_then(|own| Some((own.parent()?, own.file_name()?)))
    {
        Some((parent, name)) => tempfile::Builder::new()
            .prefix(name)
            .rand_bytes(0)
            .tempdir_in(parent),
        None => tempfile::Builder::new().prefix(DIRECTORY_PREFIX).tempdir(),
    }
}

/// The settings of `gridwatch standalone`, with its defaults.
fn standalone_settings(
    demo: &Demo,
    directory: &Path,
    listen: SocketAddr,
    admin: SocketAddr,
) -> anyhow::Result<crate::config::Standalone> {
    let data = directory
        .to_str()
        .context("the path of the temporary directory is not UTF-8")?;
    let (listen, admin) = (listen.to_string(), admin.to_string());
    let mut flags = vec!["--data", data, "--listen", &listen, "--admin", &admin];
    if let Some(url) = &demo.amqp_url {
        flags.extend(["--amqp-url", url]);
    }
    if let Some(url) = &demo.database_url {
        flags.extend(["--database-url", url]);
    }
    let command = ["gridwatch", "standalone"].into_iter().chain(flags);
    match Settings::try_parse_from(command)?.command {
        Command::Standalone(standalone) => Ok(standalone),
        _ => anyhow::bail!("not the standalone command"),
    }
}

/// The address, or one with another port if it is in use.
fn free_address(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    match std::net::TcpListener::bind(address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        // Another error is reported when the address is used.
        Ok(_) | Err(_) => return Ok(address),
    }
    let other = std::net::TcpListener::bind((address.ip(), 0))
        .with_context(|| format!("cannot listen on {}", address.ip()))?;
    Ok(other.local_addr()?)
}

/// Sends readings, waits until they are stored and prints the table.
async fn show(
    arguments: &Demo,
    listen: SocketAddr,
    admin: SocketAddr,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let url = format!("http://{listen}");
    let work = async {
        send_meter(arguments.meter.as_deref(), &url).await?;
        send_fleet(arguments.fleet, &url, stop).await?;
        let samples = wait_until_stored(admin).await?;
        print(table(&samples))?;
        print(format_args!(
            "\nreadings   {url}/v1/readings\nmetrics    http://{admin}/metrics\n\
             running until Ctrl-C"
        ))?;
        anyhow::Ok(())
    };
    stop.run_until_cancelled(work).await.unwrap_or(Ok(()))
}

/// Sends the rows of a file, or else the day of the real meter. Rows that are rejected do not end
/// the demo.
async fn send_meter(file: Option<&Path>, url: &str) -> anyhow::Result<()> {
    let arguments = Import {
        file: Some(file.unwrap_or(Path::new("the day of the meter")).to_owned()),
        list: false,
        json: false,
        kind: ImportKind::Readings,
        format: Some(ImportFormat::Csv),
        device: Some(METER.into()),
        metric: Some(METER_METRIC.into()),
        url: url.to_owned(),
        query_url: None,
        time_column: None,
        value_column: None,
        device_tag: None,
        time_zone: Some(TimeZone::UTC),
        precision: None,
        batch: 1_000,
    };
    if file.is_some() {
        import::readings(&arguments).await?;
        return Ok(());
    }
    let summary = import::text(METER_DAY, &arguments).await?;
    print(format_args!(
        "real: meter '{METER}', 2019-01-17, every 15 minutes: {} readings accepted, {} left out \
         (not a number in the original)",
        summary.accepted, summary.rejected
    ))?;
    Ok(())
}

/// Sends the readings of the last half minute of a fleet, as fast as possible.
async fn send_fleet(devices: u32, url: &str, stop: &CancellationToken) -> anyhow::Result<()> {
    let rate = devices * METRICS;
    let batch = batch(devices);
    let scenario = Scenario::parse(&format!(
        "name = 'demo'\nrate = {rate}\nduration = '{SECONDS}s'\nbatch = {batch}\n\
         connections = 16\n[fleet]\ndevices = {devices}\nprefix = 'feeder-'\n"
    ))?;
    let begin = clock::now() - SECONDS * 1_000_000;
    let total = u64::from(rate) * SECONDS.unsigned_abs();
    let style = "{wide_bar} {human_pos}/{human_len} readings  {per_sec}  {eta}";
    let bar = ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?);
    let generator = Generator {
        traffic: Arc::new(Traffic::new(&scenario, begin)),
        target: Target::new(url)?,
        threads: 1,
        pacing: Pacing::AsFastAsPossible,
    };
    let sent = generator
        .send(stop.clone(), |counts| bar.set_position(counts.accepted))
        .await?;
    bar.finish_and_clear();
    if stop.is_cancelled() {
        return Ok(());
    }
    let sent = sent.ensure_all_accepted()?;
    let (readings, rate) = (sent.counts.accepted, sent.accepted_per_second());
    print(format_args!(
        "simulated: {devices} devices, current and voltage, the last {SECONDS} seconds: {readings} \
         readings accepted, {rate:.0} per second"
    ))?;
    Ok(())
}

/// Readings per request: at most 960, and such that every request is full.
fn batch(devices: u32) -> u32 {
    let readings_of_device = METRICS * SECONDS.unsigned_abs() as u32;
    let divides = |count: &u32| devices.is_multiple_of(*count);
    let devices_per_request = (1..=16).rev().find(divides).unwrap_or(1);
    devices_per_request * readings_of_device
}

/// Waits until every accepted reading is processed. Returns the metrics of that moment.
async fn wait_until_stored(admin: SocketAddr) -> anyhow::Result<Vec<Sample>> {
    let client = Client::new(RESPONSE_TIMEOUT);
    let uri: Uri = format!("http://{admin}/metrics").parse()?;
    loop {
        let response = client.get(uri.clone()).await;
        let response = response.with_context(|| format!("cannot read {uri}"))?;
        ensure!(
            response.status == 200,
            "{uri} responded with {}",
            response.status
        );
        let samples = prometheus::parse(&response.text());
        let processed: f64 = PROCESSED
            .iter()
            .map(|(_, metric)| total(&samples, metric))
            .sum();
        if processed >= total(&samples, &metric::ACCEPTED) {
            return Ok(samples);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What becomes of an accepted reading.
const PROCESSED: [(&str, metric::Metric); 4] = [
    ("persisted", metric::PERSISTED),
    ("duplicate", metric::DUPLICATE),
    ("conflict", metric::CONFLICT),
    ("dead-lettered", metric::DEAD_LETTERED),
];

fn total(samples: &[Sample], metric: &metric::Metric) -> f64 {
    prometheus::sum(samples, metric.name, &[])
}

/// What became of the readings, and how long each stage took.
fn table(samples: &[Sample]) -> String {
    let mut lines = vec![String::new()];
    for (name, metric) in [
        ("accepted", metric::ACCEPTED),
        ("rejected", metric::REJECTED),
    ]
    .iter()
    .chain(&PROCESSED)
    {
        lines.push(format!("{name:<24}{:>12}", total(samples, metric)));
    }
    lines.push(format!("\n{:<24}{:>12}{:>12}", "stage", "p50", "p99"));
    for stage in Stage::ALL {
        let labels = [(metric::LABEL_STAGE, stage.label())];
        let histogram = Histogram::of(samples, metric::STAGE_SECONDS.name, &labels);
        let quantile = |quantile| match histogram.quantile(quantile) {
            None => "-".to_owned(),
            Some(seconds) if seconds < 10.0 => format!("{:.1} ms", seconds * 1e3),
            Some(seconds) => format!("{seconds:.0} s"),
        };
        let (p50, p99) = (quantile(0.5), quantile(0.99));
        lines.push(format!("{:<24}{p50:>12}{p99:>12}", stage.label()));
    }
    lines.push(
        "(estimated from the histogram buckets; the readings were measured before they were sent, \
         those of the real meter in 2019)"
            .into(),
    );
    lines.join("\n")
}

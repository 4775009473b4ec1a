//! Servers shared by the run, a site (front end, worker, database, virtual host) for each test, load, and the checks.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use service::client::{Answer, Client};
use testbed::node::tail;
use testbed::postgres::Postgres;
use testbed::process::Process;
use testbed::rabbitmq::RabbitMq;
use testbed::wait::until_async;
use tokio::task::JoinHandle;

/// Ends a test that hangs; no condition takes nearly as long.
pub const LIMIT: Duration = Duration::from_secs(90);

/// 2026-11-01T00:00:00Z in microseconds; readings of tests are measured from here on.
pub const BEGIN: i64 = 1_793_491_200_000_000;

/// One PostgreSQL and one RabbitMQ.
pub struct Servers {
    pub postgres: Postgres,
    pub rabbitmq: RabbitMq,
}

impl Servers {
    fn start(vhosts: usize) -> Self {
        let servers = Self {
            postgres: Postgres::start().expect("PostgreSQL starts"),
            rabbitmq: RabbitMq::start(vhosts).expect("RabbitMQ starts"),
        };
        sql(
            &servers.postgres.url("postgres"),
            "CREATE DATABASE template",
        );
        let migrated = gridwatch(&[
            "migrate",
            "--database-url",
            &servers.postgres.url("template"),
        ]);
        assert!(migrated.status.success(), "{migrated:?}");
        servers
    }
}

impl Servers {
    /// The URL of a database without tables.
    pub fn empty_database(&self) -> String {
        let name = format!("empty{}", NAMES.fetch_add(1, Ordering::Relaxed));
        sql(
            &self.postgres.url("postgres"),
            &format!("CREATE DATABASE {name}"),
        );
        self.postgres.url(&name)
    }
}

/// Counts the databases of a run.
static NAMES: AtomicUsize = AtomicUsize::new(0);

/// Servers that no test stops.
pub static SHARED: LazyLock<Servers> = LazyLock::new(|| Servers::start(64));

/// Servers that tests stop, one test at a time.
pub static FRAGILE: LazyLock<tokio::sync::Mutex<Servers>> =
    LazyLock::new(|| tokio::sync::Mutex::new(Servers::start(8)));

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gridwatch"))
}

/// Runs a command of the binary to its end.
pub fn gridwatch(arguments: &[&str]) -> Output {
    Command::new(program())
        .args(arguments)
        .output()
        .expect("the binary runs")
}

/// Runs one statement with psql's sibling in the driver, on a runtime of its own.
fn sql(url: &str, statement: &str) {
    let (url, statement) = (url.to_owned(), statement.to_owned());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { connect(&url).await.batch_execute(&statement).await.unwrap() });
    })
    .join()
    .unwrap();
}

pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}

/// A database, a virtual host, and the processes of one test.
pub struct Site {
    pub database_url: String,
    pub amqp_url: String,
    pub ingest: Option<Process>,
    pub worker: Option<Process>,
    pub listen: String,
    /// What is started as front end.
    pub front_end: PathBuf,
    /// Workers that were started; the counters of one that has ended are gone with it.
    workers: usize,
    pub client: Client,
    server_logs: [PathBuf; 2],
    /// Last, so that the processes can show their logs when a test fails.
    pub folder: tempfile::TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in &self.server_logs {
                eprintln!("--- {}\n{}", log.display(), tail(log));
            }
        }
    }
}

impl Site {
    /// A site on the shared servers, without processes.
    pub fn new() -> Self {
        Self::on(&SHARED)
    }

    pub fn on(servers: &Servers) -> Self {
        let name = format!("site{}", NAMES.fetch_add(1, Ordering::Relaxed));
        sql(
            &servers.postgres.url("postgres"),
            &format!("CREATE DATABASE {name} TEMPLATE template"),
        );
        Self {
            server_logs: [
                servers.postgres.folder().join("log"),
                servers.rabbitmq.folder().join("log"),
            ],
            folder: tempfile::tempdir().unwrap(),
            database_url: servers.postgres.url(&name),
            amqp_url: servers.rabbitmq.url(&servers.rabbitmq.vhost().unwrap()),
            ingest: None,
            worker: None,
            listen: String::new(),
            front_end: program().to_owned(),
            workers: 0,
            client: Client::new(Duration::from_secs(60)),
        }
    }

    /// A site with both processes, which registers unknown devices.
    pub fn running() -> Self {
        let mut site = Self::new();
        site.start_ingest(&["--unknown-devices", "register"]);
        site.start_worker(&[]);
        site
    }

    pub fn start_ingest(&mut self, more: &[&str]) {
        let (listen, admin) = (address(), address());
        let (amqp, database) = (self.amqp_url.clone(), self.database_url.clone());
        let arguments = [
            "ingest-api",
            "--listen",
            &listen,
            "--admin",
            &admin,
            "--amqp-url",
            &amqp,
            "--database-url",
            &database,
        ];
        let arguments = with(&arguments, more);
        let mut process =
            Process::start(&self.front_end, &arguments, &admin, self.folder.path()).unwrap();
        process.wait_ready();
        self.ingest = Some(process);
        self.listen = listen;
    }

    pub fn start_worker(&mut self, more: &[&str]) {
        let admin = address();
        let (amqp, database) = (self.amqp_url.clone(), self.database_url.clone());
        let arguments = [
            "worker",
            "--admin",
            &admin,
            "--amqp-url",
            &amqp,
            "--database-url",
            &database,
        ];
        let arguments = with(&arguments, more);
        let mut process =
            Process::start(program(), &arguments, &admin, self.folder.path()).unwrap();
        process.wait_ready();
        self.workers += 1;
        self.worker = Some(process);
    }

    pub fn ingest(&self) -> &Process {
        self.ingest.as_ref().expect("a front end")
    }

    pub fn worker(&self) -> &Process {
        self.worker.as_ref().expect("a worker")
    }

    /// `POST /v1/readings`, with a query string and headers.
    pub async fn send(
        &self,
        query: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let uri = format!("http://{}/v1/readings{query}", self.listen)
            .parse()
            .unwrap();
        self.client
            .post(uri, headers, body.into())
            .await
            .expect("an answer")
    }

    pub async fn post(&self, body: Value) -> Answer {
        self.send(
            "",
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    pub async fn sql(&self) -> tokio_postgres::Client {
        connect(&self.database_url).await
    }

    /// The first column of the first row.
    pub async fn number(&self, query: &str) -> i64 {
        self.sql().await.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Waits until as many readings are in the ledger.
    pub async fn wait_settled(&self, readings: i64) {
        let sql = self.sql().await;
        let what = format!("{readings} readings in the ledger");
        until_async(&what, LIMIT, async || {
            let row = sql
                .query_one("SELECT coalesce(sum(readings), 0)::bigint FROM batch", &[])
                .await
                .unwrap();
            row.get::<_, i64>(0) >= readings
        })
        .await;
    }

    /// Ends the worker, which gives back what it has not acknowledged, and checks that this is nothing.
    pub async fn assert_all_acknowledged(&mut self) {
        let status = self.worker.take().expect("a worker").terminate().unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(
            self.queue_length("gridwatch.readings").await,
            0,
            "messages that were never acknowledged"
        );
    }

    /// Messages that are ready in a queue.
    pub async fn queue_length(&self, queue: &str) -> u32 {
        let options = lapin::options::QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let connection = self.amqp().await;
        let channel = connection.create_channel().await.unwrap();
        let queue = channel
            .queue_declare(queue.into(), options, Default::default())
            .await
            .unwrap();
        let count = queue.message_count();
        connection.close(200, "bye".into()).await.unwrap();
        count
    }

    pub async fn amqp(&self) -> lapin::Connection {
        lapin::Connection::connect(&self.amqp_url, lapin::ConnectionProperties::default())
            .await
            .expect("RabbitMQ answers")
    }

    /// Puts bytes on the queue as another producer would.
    pub async fn publish(&self, payload: &[u8]) {
        let connection = self.amqp().await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(Default::default()).await.unwrap();
        let queue = "gridwatch.readings".into();
        let confirm = channel.basic_publish(
            "".into(),
            queue,
            Default::default(),
            payload,
            Default::default(),
        );
        assert!(confirm.await.unwrap().await.unwrap().is_ack());
        connection.close(200, "bye".into()).await.unwrap();
    }

    /// The books of the design, from the counters of the front end and the ledger. Nothing may be under way.
    pub async fn check_books(&self) -> Result<(), String> {
        let front = self.ingest();
        let [received, accepted, rejected, unavailable] =
            ["received", "accepted", "rejected", "unavailable"]
                .map(|which| front.metric(&format!("gridwatch_readings_{which}_total")));
        if received != accepted + rejected + unavailable {
            return Err(format!(
                "received {received} != accepted {accepted} + rejected {rejected} + unavailable {unavailable}"
            ));
        }
        let unconfirmed =
            front.metric("gridwatch_readings_unavailable_total{reason=\"unconfirmed\"}");
        let row = self
            .sql()
            .await
            .query_one(
                "SELECT coalesce(sum(readings), 0)::float8, coalesce(sum(stored), 0)::bigint,
                        coalesce(sum(conflicts), 0)::bigint, coalesce(sum(dead_letters), 0)::bigint,
                        coalesce(sum(duplicates), 0)::bigint FROM batch",
                &[],
            )
            .await
            .unwrap();
        let settled: f64 = row.get(0);
        if !(accepted..=accepted + unconfirmed).contains(&settled) {
            return Err(format!(
                "accepted {accepted} (unconfirmed {unconfirmed}), but the ledger has {settled}"
            ));
        }
        for (table, expected) in [
            ("reading", 1),
            ("conflict", 2),
            ("dead_letter WHERE batch_id IS NOT NULL", 3),
        ] {
            let (expected, rows) = (
                row.get::<_, i64>(expected),
                self.number(&format!("SELECT count(*) FROM {table}")).await,
            );
            if rows != expected {
                return Err(format!(
                    "the ledger says {expected}, but there are {rows} rows in {table}"
                ));
            }
        }
        if let (1, Some(worker)) = (self.workers, &self.worker) {
            for (which, column) in [
                ("persisted", 1),
                ("conflict", 2),
                ("dead_lettered", 3),
                ("duplicate", 4),
            ] {
                let counted = worker.metric(&format!("gridwatch_readings_{which}_total"));
                if counted != row.get::<_, i64>(column) as f64 {
                    let ledger: i64 = row.get(column);
                    return Err(format!(
                        "the worker has counted {counted} {which}, the ledger has {ledger}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Waits until all that was accepted is settled, and the books balance.
    pub async fn assert_books(&self) {
        holds("the books balance", async || self.check_books().await).await;
    }
}

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().chain(more).copied().collect()
}

fn address() -> String {
    format!("127.0.0.1:{}", testbed::free_port().unwrap())
}

/// A reading as JSON, `at` seconds after [`BEGIN`].
pub fn reading(device: &str, metric: &str, at: i64, value: f64) -> Value {
    json!({"device": device, "metric": metric, "value": value, "measured_at": BEGIN / 1_000_000 + at})
}

/// Clients that send batches of readings, each reading once, and remember what was accepted.
pub struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Sent>>>,
}

/// A request: `count` readings of a device from second `first` on, the value of each its second.
pub struct Sent {
    pub device: String,
    pub first: i64,
    pub count: i64,
    pub accepted: bool,
}

impl Load {
    /// Clients of a site.
    pub fn start(site: &Site, clients: usize, batch: i64) -> Self {
        Self::on(&site.listen, "load", clients, batch)
    }

    /// Starts as many clients, of a front end and of devices with this prefix; each sends one request after the other, and goes on to new readings whatever the answer.
    pub fn on(listen: &str, prefix: &str, clients: usize, batch: i64) -> Self {
        let http = Client::new(Duration::from_secs(60));
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicU64::new(0));
        let client = |number: usize| {
            let (stop, accepted, client) = (stop.clone(), accepted.clone(), http.clone());
            let uri: axum::http::Uri = format!("http://{listen}/v1/readings").parse().unwrap();
            let device = format!("{prefix}-{number}");
            tokio::spawn(async move {
                let mut sent = Vec::new();
                let mut first = 0;
                while !stop.load(Ordering::Relaxed) {
                    let readings: Vec<Value> = (first..first + batch)
                        .map(|at| reading(&device, "power", at, at as f64))
                        .collect();
                    let body = Bytes::from(serde_json::to_vec(&readings).unwrap());
                    let answer = client
                        .post(uri.clone(), &[("content-type", "application/json")], body)
                        .await;
                    let ok = answer.is_ok_and(|answer| answer.status.is_success());
                    if ok {
                        accepted.fetch_add(batch as u64, Ordering::Relaxed);
                    } else {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    sent.push(Sent {
                        device: device.clone(),
                        first,
                        count: batch,
                        accepted: ok,
                    });
                    first += batch;
                }
                sent
            })
        };
        Self {
            clients: (0..clients).map(client).collect(),
            stop,
            accepted,
        }
    }

    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until this many more readings were accepted.
    pub async fn wait_accepted(&self, more: u64) {
        let goal = self.accepted() + more;
        until_async(&format!("{goal} readings accepted"), LIMIT, async || {
            self.accepted() >= goal
        })
        .await;
    }

    pub async fn finish(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        for client in self.clients {
            sent.extend(client.await.unwrap());
        }
        sent
    }
}

/// Proves from the table: accepted ⊆ stored ⊆ sent, and every value as it was sent. Each once is what the key says.
pub async fn check_stored(database: &tokio_postgres::Client, sent: &[Sent]) -> Result<(), String> {
    let rows = database
        .query(
            "SELECT external_id, extract(epoch FROM measured_at)::bigint - $1, value
             FROM reading JOIN series ON series.id = series_id JOIN device ON device.id = device_id",
            &[&(BEGIN / 1_000_000)],
        )
        .await
        .map_err(|error| format!("{error:?}"))?;
    let mut stored: HashMap<(String, i64), f64> = rows
        .iter()
        .map(|row| ((row.get(0), row.get(1)), row.get(2)))
        .collect();
    let mut missing = BTreeMap::new();
    for Sent {
        device,
        first,
        count,
        accepted,
    } in sent
    {
        for at in *first..first + count {
            match stored.remove(&(device.clone(), at)) {
                Some(value) if value != at as f64 => {
                    return Err(format!("{device} at {at} is stored as {value}"));
                }
                None if *accepted => *missing.entry(device).or_insert(0) += 1,
                _ => {}
            }
        }
    }
    match (missing.is_empty(), stored.len()) {
        (true, 0) => Ok(()),
        (true, more) => Err(format!("{more} readings are stored that nobody sent")),
        (false, _) => Err(format!("accepted and not stored: {missing:?}")),
    }
}

/// As check, once everything is settled.
pub async fn assert_stored(site: &Site, sent: &[Sent]) {
    holds("everything accepted is stored", async || {
        check_stored(&site.sql().await, sent).await
    })
    .await;
}

/// Waits until a check holds, and says at the limit why it does not.
async fn holds(what: &str, mut check: impl AsyncFnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(reason) = check().await {
        assert!(
            begun.elapsed() < LIMIT,
            "waited {LIMIT:?} in vain until {what}: {reason}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `data/meterusage.csv`, where the checkout has it beside it.
pub fn meter_file() -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/meterusage.csv");
    file.is_file().then_some(file)
}

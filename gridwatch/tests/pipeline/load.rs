//! The load-test harness against the real pipeline: it proves what is so, and it notices each promise that is broken on
//! purpose. What breaks them stands here, behind the seams of sink and source; Gridwatch itself has no such switch.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ingest_api::amqp_sink::AmqpSink;
use ingest_api::{UnknownDevices, coalesce};
use loadtest::matrix::Plan;
use loadtest::progress::Progress;
use loadtest::run::{Run, RunOutcome as Found};
use loadtest::scenario::Scenario;
use loadtest::send::Target;
use loadtest::verify::{Verdict, Verify};
use schema::Batch;
use service::amqp::Broker;
use service::health::{Ability, Health};
use service::postgres::Database;
use service::sink::{Sink, SinkError};
use service::source::{Delivery, Source, Token};
use testbed::link::{Condition, Link};
use testbed::wait::until_async;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::*;

/// A scenario of a few seconds.
fn scenario(rest: &str) -> Scenario {
    let head = "name = 'test'\nrate = 10000\nduration = '3s'\nwarm-up = '500ms'\nbatch = 50\nconnections = 16\n";
    Scenario::parse(&format!("{head}{rest}")).unwrap()
}

/// Starts a run; the admin ports are those of the site's processes.
fn start(site: &Site, scenario: Scenario) -> tokio::task::JoinHandle<Found> {
    start_until(site, scenario, CancellationToken::new())
}

fn start_until(
    site: &Site,
    scenario: Scenario,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<Found> {
    let processes = [("front end", &site.ingest), ("worker", &site.worker)];
    let admins = processes
        .iter()
        .filter_map(|(name, process)| {
            Some((
                (*name).to_owned(),
                process.as_ref()?.admin_address().to_owned(),
            ))
        })
        .collect();
    let run = Run {
        scenario,
        target: Target::new(&format!("http://{}", site.listen)).unwrap(),
        threads: 2,
        admins,
        watched: Vec::new(),
        drain_timeout: Duration::ZERO,
        log: None,
    };
    tokio::spawn(async move { run.execute(&mut Progress::quiet(), stop).await.unwrap() })
}

async fn verify(site: &Site, found: &Found, settle: Duration) -> Verdict {
    let processes = [&site.ingest, &site.worker];
    let admins: Vec<_> = processes
        .iter()
        .filter_map(|one| Some(one.as_ref()?.admin_address().to_owned()))
        .collect();
    verify_with(site, found, settle, &admins).await
}

async fn verify_with(site: &Site, found: &Found, settle: Duration, admins: &[String]) -> Verdict {
    let verify = Verify {
        report: &found.report,
        ledger: &found.ledger,
        database_url: &site.database_url,
        admins,
        drain_timeout: settle,
    };
    verify.execute().await.unwrap()
}

fn broken(verdict: &Verdict) -> Vec<&str> {
    verdict
        .violations
        .iter()
        .map(|violation| violation.promise.as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_with_every_fault_is_proved_while_the_broker_goes_and_comes() {
    let mut site = Site::new();
    site.start_worker(&[]);
    let link = Link::to(SHARED.rabbitmq.address()).await.unwrap();
    let direct = site.amqp_url.clone();
    site.amqp_url = direct.replace(&SHARED.rabbitmq.address(), &link.address().to_string());
    site.start_ingest(&["--unknown-devices", "register"]);
    site.amqp_url = direct;
    let faults = "bad = 0.05\nhostile = 0.05\nlate = 0.1\nout-of-order = 0.2\nrepeated = 0.1";
    let retry = "attempts = 60\nafter = '200ms'";
    let run = start(
        &site,
        scenario(&format!(
            "[faults]\n{faults}\n[retry]\n{retry}\n[fleet]\njitter = '200ms'"
        )),
    );
    until_async("readings come in", LIMIT, async || {
        site.ingest().metric("gridwatch_readings_accepted_total") > 5_000.0
    })
    .await;
    link.set(Condition::Cut);
    until_async("the front end notices", LIMIT, async || {
        !site.ingest().ready()
    })
    .await;
    link.set(Condition::Delayed(Duration::ZERO));
    let found = run.await.unwrap();
    let verdict = verify(&site, &found, LIMIT).await;
    assert_eq!(verdict.violations, []);
    let counts = &found.report.counts;
    assert_eq!(verdict.accepted, counts.accepted);
    assert!(
        verdict.accepted > 20_000 && verdict.rejected > 1_000,
        "{verdict:?}"
    );
    assert_eq!(verdict.of_other_runs, 0, "{verdict:?}");
    assert!(counts.repeated > 0 && counts.unknown == 0, "{counts:?}");
    assert!(
        found
            .report
            .stages
            .iter()
            .any(|stage| stage.stage == "received_to_persisted"),
        "{:?}",
        found.report.stages
    );
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_costs_a_run_neither_its_report_nor_its_ledger() {
    let mut site = Site::running();
    let stop = CancellationToken::new();
    let mut long = scenario("");
    long.stretch(LIMIT);
    let run = start_until(&site, long, stop.clone());
    until_async("readings are stored", LIMIT, async || {
        site.number("SELECT count(*) FROM reading").await > 3_000
    })
    .await;
    site.worker = None;
    stop.cancel();
    let found = run.await.unwrap();
    assert!(
        found.report.counts.accepted > 3_000 && found.report.books.is_none(),
        "{:?}",
        found.report
    );
    assert!(
        found
            .report
            .versions
            .iter()
            .any(|version| version.starts_with("gridwatch ")),
        "{:?}",
        found.report
    );
    site.start_worker(&[]);
    // The counters went with the worker.
    let verdict = verify_with(&site, &found, LIMIT, &[]).await;
    assert_eq!(
        (verdict.violations.as_slice(), verdict.stored),
        (&[][..], found.report.counts.accepted)
    );
}

/// A sink that does not wait for the word of the one behind it.
struct Careless(Arc<dyn Sink>);

impl Sink for Careless {
    fn deliver(
        &self,
        batch: Arc<Batch>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), SinkError>> {
        let behind = self.0.clone();
        tokio::spawn(async move { behind.deliver(batch, deadline).await });
        std::future::ready(Ok(())).boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_end_that_ignores_confirms_is_found_out() {
    let mut site = Site::new();
    site.start_worker(&[]);
    let link = Link::to(SHARED.rabbitmq.address()).await.unwrap();
    let url = site
        .amqp_url
        .replace(&SHARED.rabbitmq.address(), &link.address().to_string());
    let stop = CancellationToken::new();
    let health = Health::of(&["broker", "database"]);
    let (sink, _) = AmqpSink::start(
        url.parse::<Broker>().unwrap(),
        health.part("broker"),
        stop.clone(),
    );
    let config = ingest_api::Config {
        unknown_devices: UnknownDevices::Register,
        max_series: 1_000_000,
        max_body_bytes: 1 << 24,
        body_budget_bytes: 1 << 26,
        max_connections: 1_000,
        coalesce: coalesce::Config {
            max_in_flight: 4,
            max_pending: 1_000_000,
            deliver_timeout: Duration::from_millis(500),
        },
        future_tolerance: Duration::from_secs(300),
        horizon: None,
        stored: false,
        grace: Duration::from_secs(5),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    site.listen = listener.local_addr().unwrap().to_string();
    let pool = site
        .database_url
        .parse::<Database>()
        .unwrap()
        .pool(4)
        .unwrap();
    let sink = Arc::new(Careless(Arc::new(sink)));
    let front_end = tokio::spawn(ingest_api::run(
        config,
        listener,
        sink,
        pool,
        health.clone(),
        Arc::default(),
        stop.clone(),
    ));
    until_async(
        "the front end reaches broker and database",
        LIMIT,
        async || health.report().0 == Ability::Ready,
    )
    .await;

    let run = start(&site, scenario(""));
    until_async("readings are stored", LIMIT, async || {
        site.number("SELECT count(*) FROM reading").await > 3_000
    })
    .await;
    link.set(Condition::Cut);
    let found = run.await.unwrap();
    link.set(Condition::Delayed(Duration::ZERO));
    // Time for what is merely late: lost is lost after it, too.
    let verdict = verify(&site, &found, Duration::from_secs(3)).await;
    stop.cancel();
    front_end.await.unwrap().unwrap();
    assert!(
        broken(&verdict).contains(&"every accepted reading is stored or dead-lettered"),
        "{verdict:?}"
    );
}

/// A source that acknowledges what it hands out, before anything is committed.
struct Hasty(Box<dyn Source>);

impl Source for Hasty {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        async {
            let delivery = self.0.next().await;
            self.0.acknowledge_through(delivery.token).await;
            delivery
        }
        .boxed()
    }

    fn ready(&mut self) -> Option<Delivery> {
        None
    }

    fn acknowledge_through(&mut self, _: Token) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn reject(&mut self, token: Token) -> BoxFuture<'_, bool> {
        self.0.reject(token)
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.0.close()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_acknowledges_before_the_commit_is_found_out() {
    let mut site = Site::new();
    site.start_ingest(&["--unknown-devices", "register"]);
    let database: Database = site.database_url.parse().unwrap();
    let health = Health::of(&["broker", "database"]);
    let source = worker::amqp_source::AmqpSource::new(
        site.amqp_url.parse().unwrap(),
        200,
        health.part("broker"),
    );
    let config = worker::Config {
        writers: 2,
        max_rows: 100_000,
        grace: Duration::from_secs(5),
    };
    // A runtime of its own, to be ended as a process is killed.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let pool = database.pool(8).unwrap();
    let source = Box::new(Hasty(Box::new(source)));
    runtime.spawn(worker::run(
        config,
        source,
        pool,
        health,
        Arc::default(),
        CancellationToken::new(),
    ));
    let run = start(&site, scenario(""));
    until_async("readings are stored", LIMIT, async || {
        site.number("SELECT count(*) FROM reading").await > 3_000
    })
    .await;
    // A commit that takes long enough for the worker to die before it.
    let lock = site.sql().await;
    lock.batch_execute("BEGIN; LOCK TABLE batch IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let found = run.await.unwrap();
    runtime.shutdown_background();
    lock.batch_execute("ROLLBACK").await.unwrap();
    site.start_worker(&[]);
    let verdict = verify(&site, &found, Duration::from_secs(3)).await;
    assert!(
        broken(&verdict).contains(&"every accepted reading is stored or dead-lettered"),
        "{verdict:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_its_key_is_found_out() {
    let site = Site::running();
    let drop_key = "ALTER TABLE reading DROP CONSTRAINT reading_pkey";
    site.sql().await.batch_execute(drop_key).await.unwrap();
    let found = start(&site, scenario("[faults]\nrepeated = 0.2"))
        .await
        .unwrap();
    assert!(
        found.report.counts.repeated > 50,
        "{:?}",
        found.report.counts
    );
    let verdict = verify(&site, &found, LIMIT).await;
    assert!(
        broken(&verdict).contains(&"each reading is stored once"),
        "{verdict:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_that_is_lost_changed_or_made_up_is_found_out() {
    let site = Site::running();
    let found = start(&site, scenario("[faults]\nbad = 0.05"))
        .await
        .unwrap();
    let mut before = verify(&site, &found, LIMIT).await;
    assert_eq!(before.violations, []);
    let one = "(SELECT series_id, measured_at FROM reading ORDER BY 1, 2 OFFSET 100 LIMIT 1)";
    for (damage, promise) in [
        (
            format!("UPDATE reading SET value = value + 1e-9 WHERE (series_id, measured_at) = {one}"),
            "values are stored as they were sent",
        ),
        (
            "INSERT INTO reading SELECT series_id, measured_at + interval '1 ms', 1 FROM reading LIMIT 1".to_owned(),
            "every stored reading was sent",
        ),
        (
            "SELECT gridwatch_create_reading_day('2200-01-01');
             INSERT INTO reading SELECT series_id, '2200-01-01T00:00:00Z', 1 FROM reading LIMIT 1"
                .to_owned(),
            "no rejected reading is stored",
        ),
        (
            "INSERT INTO device (external_id) VALUES (left('lt-' || repeat('x', 300), 256))".to_owned(),
            "no rejected reading is stored",
        ),
        (
            format!("DELETE FROM reading WHERE (series_id, measured_at) = {one}"),
            "every accepted reading is stored or dead-lettered",
        ),
    ] {
        site.sql().await.batch_execute(&damage).await.unwrap();
        // Damage is added to damage: each has to be found beside the others.
        let verdict = verify(&site, &found, Duration::ZERO).await;
        let count = |verdict: &Verdict| {
            verdict.violations.iter().filter(|one| one.promise == promise).map(|one| one.count).sum::<u64>()
        };
        assert_eq!(count(&verdict), count(&before) + 1, "{damage}: {verdict:?}");
        before = verdict;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_matrix_answers_its_five_questions() {
    let plan = Plan {
        gridwatch: program().to_owned(),
        instances: 2,
        batch: 20,
        connections: 8,
        trial: Duration::from_secs(1),
        trials: 1,
        measure: Duration::from_secs(1),
        seed: 1,
    };
    let mut said = Vec::new();
    let matrix = plan
        .execute(
            &mut |text| said.push(text.to_owned()),
            CancellationToken::new(),
        )
        .await
        .unwrap();
    assert_eq!(
        (matrix.answers.len(), matrix.cells.len()),
        (5, 6),
        "{said:#?}"
    );
    // What this machine carries while other tests run is not asked; that everything was looked at is.
    for answer in &matrix.answers[..4] {
        assert!(
            answer.answer.contains("readings/s")
                && answer.answer.contains(|c: char| c.is_ascii_digit()),
            "{answer:?}"
        );
    }
    for cell in &matrix.cells {
        assert!(
            cell.ceiling_per_second > 0.0 && !cell.trials.is_empty(),
            "{cell:?}"
        );
        assert!(
            cell.bottleneck.contains("cores busy"),
            "{}",
            cell.bottleneck
        );
        let of = |name: &str| {
            cell.measured
                .iter()
                .all(|report| report.processes.iter().any(|one| one.process == name))
        };
        assert!(
            of("PostgreSQL") && of("front end") && of("load generator"),
            "{cell:?}"
        );
    }
    assert!(matrix.headroom >= 0.0 && matrix.generator_per_second > 0.0);
    let schema = serde_json::from_str(&loadtest::matrix::schema()).unwrap();
    jsonschema::validate(&schema, &serde_json::to_value(&matrix).unwrap()).unwrap();
    let page = loadtest::matrix::page::page(&matrix);
    assert!(
        matrix
            .answers
            .iter()
            .all(|answer| page.contains(&answer.question)),
        "{page}"
    );
}

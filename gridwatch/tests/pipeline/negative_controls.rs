//! Negative controls: each promise is broken on purpose, and the load-test harness detects it.
//!
//! Gridwatch has no switch that breaks a promise. These tests break it in their own sinks and
//! sources, or in the tables.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ingest_api::{Confirms, UnknownDevices, coalesce};
use loadtest::harness::verify::Verdict;
use schema::Batch;
use service::Context;
use service::health::{Component, Health, HealthState};
use store::Database;
use testbed::faulty_proxy::Condition;
use testbed::wait::until_async;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::amqp::{AmqpSink, AmqpSource, Broker};
use transport::{Delivery, DeliveryTag, Sink, SinkError, Source};

use crate::load_test::{scenario, start, verify};
use crate::support::*;

fn context(health: &Health, stop: &CancellationToken) -> Context {
    Context {
        health: health.clone(),
        histograms: Arc::default(),
        stop: stop.clone(),
    }
}

fn broken(verdict: &Verdict) -> Vec<&str> {
    verdict
        .violations
        .iter()
        .map(|violation| violation.promise.as_str())
        .collect()
}

/// A sink that reports success before the next sink does.
struct SinkWithoutConfirm(Arc<dyn Sink>);

impl Sink for SinkWithoutConfirm {
    fn deliver(
        &self,
        batch: Arc<Batch>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), SinkError>> {
        let next = self.0.clone();
        tokio::spawn(async move { next.deliver(batch, deadline).await });
        std::future::ready(Ok(())).boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_end_that_ignores_confirms_is_detected() {
    let mut site = Site::new().behind_proxy(Role::FrontEnd).await;
    let proxy = site.proxy();
    site.start_worker(&[]);
    let url = site.amqp_url_for(Role::FrontEnd);
    let stop = CancellationToken::new();
    let health = Health::new(&[Component::Broker, Component::Registry]);
    let (sink, _) = AmqpSink::start(
        url.parse::<Broker>().unwrap(),
        health.component(Component::Broker),
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
        confirms: Confirms::Enqueued,
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
    let sink = Arc::new(SinkWithoutConfirm(Arc::new(sink)));
    let front_end = tokio::spawn(ingest_api::run(
        context(&health, &stop),
        config,
        listener,
        sink,
        pool,
        axum::Router::new(),
    ));
    until_async(
        "the front end reaches broker and database",
        LIMIT,
        async || health.report().0 == HealthState::Ready,
    )
    .await;

    let run = start(&site, scenario(""));
    until_async("readings are stored", LIMIT, async || {
        site.query_int("SELECT count(*) FROM reading").await > 3_000
    })
    .await;
    proxy.set(Condition::Disconnected);
    let found = run.await.unwrap();
    proxy.set(Condition::HEALTHY);
    // Readings that are merely late are stored within this time.
    let verdict = verify(&site, &found, Duration::from_secs(3)).await;
    stop.cancel();
    front_end.await.unwrap();
    assert!(
        broken(&verdict).contains(&"every accepted reading is stored or dead-lettered"),
        "{verdict:?}"
    );
}

/// A source that acknowledges every delivery before it is committed.
struct SourceThatAcknowledgesEarly(Box<dyn Source>);

impl Source for SourceThatAcknowledgesEarly {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        async {
            let delivery = self.0.next().await;
            self.0.acknowledge_through(delivery.tag).await;
            delivery
        }
        .boxed()
    }

    fn try_next(&mut self) -> Option<Delivery> {
        None
    }

    fn acknowledge_through(&mut self, _: DeliveryTag) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn reject(&mut self, tag: DeliveryTag) -> BoxFuture<'_, bool> {
        self.0.reject(tag)
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.0.close()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_acknowledges_before_the_commit_is_detected() {
    let mut site = Site::new();
    site.books_cannot_balance("the worker of this test loses readings");
    site.start_ingest(&["--unknown-devices", "register"]);
    let database: Database = site.database_url.parse().unwrap();
    let health = Health::new(&[Component::Broker, Component::Database]);
    let source = AmqpSource::new(
        site.amqp_url.parse().unwrap(),
        200,
        health.component(Component::Broker),
    );
    let config = worker::Config {
        writers: 2,
        max_rows: 100_000,
        grace: Duration::from_secs(5),
    };
    // Its own runtime can be shut down as abruptly as a process is killed.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let pool = database.pool(8).unwrap();
    let source = Box::new(SourceThatAcknowledgesEarly(Box::new(source)));
    runtime.spawn(worker::run(
        context(&health, &CancellationToken::new()),
        config,
        source,
        pool,
    ));
    let run = start(&site, scenario(""));
    until_async("readings are stored", LIMIT, async || {
        site.query_int("SELECT count(*) FROM reading").await > 3_000
    })
    .await;
    // The lock delays the commit until the worker is shut down.
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
async fn a_table_without_its_key_is_detected() {
    let site = Site::running();
    let drop_key = "ALTER TABLE reading DROP CONSTRAINT reading_pkey";
    site.execute(drop_key).await;
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
async fn lost_changed_and_invented_readings_are_detected() {
    let mut site = Site::running();
    let found = start(&site, scenario("[faults]\nbad = 0.05"))
        .await
        .unwrap();
    let mut before = verify(&site, &found, LIMIT).await;
    assert_eq!(before.violations, []);
    site.books_cannot_balance("the test damages the tables");
    let one = "(SELECT series_id, measured_at FROM reading ORDER BY 1, 2 OFFSET 100 LIMIT 1)";
    for (damage, promise) in [
        (
            format!(
                "UPDATE reading SET value = value + 1e-9 WHERE (series_id, measured_at) = {one}"
            ),
            "values are stored as they were sent",
        ),
        (
            "INSERT INTO reading
             SELECT series_id, measured_at + interval '1 ms', 1 FROM reading LIMIT 1"
                .to_owned(),
            "every stored reading was sent",
        ),
        (
            "SELECT gridwatch_create_reading_day('2200-01-01');
             INSERT INTO reading SELECT series_id, '2200-01-01T00:00:00Z', 1 FROM reading LIMIT 1"
                .to_owned(),
            "no rejected reading is stored",
        ),
        (
            "INSERT INTO device (external_id) VALUES (left('lt-' || repeat('x', 300), 256))"
                .to_owned(),
            "no rejected reading is stored",
        ),
        (
            format!("DELETE FROM reading WHERE (series_id, measured_at) = {one}"),
            "every accepted reading is stored or dead-lettered",
        ),
    ] {
        site.execute(&damage).await;
        // The damage adds up: each is detected beside the others.
        let verdict = verify(&site, &found, Duration::ZERO).await;
        let count = |verdict: &Verdict| {
            let of_promise = verdict
                .violations
                .iter()
                .filter(|one| one.promise == promise);
            of_promise.map(|one| one.count).sum::<u64>()
        };
        assert_eq!(count(&verdict), count(&before) + 1, "{damage}: {verdict:?}");
        before = verdict;
    }
}

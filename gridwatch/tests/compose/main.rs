//! docker-compose.yml, run for real: `make test-compose`. `make test` does not run these tests.
//!
//! Where Docker cannot run, they say so and succeed.

mod stack;

use std::time::{Duration, Instant};

use loadtest::harness::progress::Progress;
use loadtest::harness::run::Run;
use loadtest::harness::verify::Verify;
use loadtest::scenario::Scenario;
use loadtest::send::Target;
use serde_json::Value;
use service::client::Client;
use testbed::wait::until_async;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::stack::{LIMIT, Stack, obstacle};

/// Requests in flight are retried long enough to outlast a restart.
const SCENARIO: &str = "
    name = 'compose'
    rate = 1000
    duration = '60s'
    batch = 20
    connections = 16
    [retry]
    attempts = 100
    after = '500ms'";

/// Whether this machine can run the deployment. Otherwise it says why not.
fn can_run() -> bool {
    match obstacle() {
        None => true,
        Some(reason) => {
            eprintln!("skipped: {reason}");
            false
        }
    }
}

async fn get(client: &Client, url: String) -> anyhow::Result<Value> {
    let response = client.get(url.parse()?).await?;
    anyhow::ensure!(response.status == 200, "{url}: {}", response.status);
    Ok(response.json())
}

/// Sends a reading, and waits until it is in the response of a query.
async fn first_reading(client: &Client, front_end: &str, query_api: &str) {
    let body = r#"{"device": "first", "metric": "current", "value": 1, "measured_at": 1767225600}"#;
    let uri: service::client::Uri = format!("http://{front_end}/v1/readings").parse().unwrap();
    let json = [("content-type", "application/json")];
    until_async("a reading is accepted", LIMIT, async || {
        let sent = client.post(uri.clone(), &json, body.into()).await;
        sent.is_ok_and(|response| response.status == 202)
    })
    .await;
    let path = "v1/readings?device=first&metric=current&from=2026-01-01&to=2026-01-02";
    until_async("the reading is stored", LIMIT, async || {
        let found = get(client, format!("http://{query_api}/{path}")).await;
        found.is_ok_and(|found| found["series"][0]["points"][0].is_object())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: make test-compose"]
async fn every_accepted_reading_is_stored_although_containers_are_killed() {
    if !can_run() {
        return;
    }
    let stack = Stack::build("default").unwrap();
    let begun = Instant::now();
    stack.compose(&["up", "-d", "--no-build"]).unwrap();
    let front_end = stack.published("haproxy", 8080).unwrap();
    let query_api = stack.published("query-api", 8090).unwrap();
    let client = Client::new(Duration::from_secs(5));
    first_reading(&client, &front_end, &query_api).await;
    eprintln!("the first reading is stored after {:.1?}", begun.elapsed());
    let services = [
        "rabbitmq",
        "postgres",
        "ingest-1",
        "ingest-2",
        "worker-1",
        "worker-2",
        "query-api",
        "haproxy",
        "prometheus",
    ];
    services
        .iter()
        .for_each(|service| stack.wait_healthy(service));

    let run = Run {
        scenario: Scenario::parse(SCENARIO).unwrap(),
        target: Target::new(&format!("http://{front_end}")).unwrap(),
        threads: 1,
        admins: Vec::new(),
        watched: Vec::new(),
        drain_timeout: Duration::ZERO,
        log: None,
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { run.execute(&mut Progress::quiet(), stop).await.unwrap() }
    });
    for service in ["ingest-1", "worker-1", "rabbitmq"] {
        tokio::task::block_in_place(|| {
            assert!(
                !running.is_finished(),
                "the load ended before {service} was killed"
            );
            let begun = Instant::now();
            stack.kill(service).unwrap();
            stack.wait_healthy(service);
            eprintln!(
                "{service} is healthy {:.1?} after it was killed",
                begun.elapsed()
            );
        });
    }
    let found = running.await.unwrap();
    let counts = &found.report.counts;
    eprintln!("{counts:?}");

    let password = stack.secret("gridwatch-password").unwrap();
    let address = stack.address("postgres").unwrap();
    let url = |user: &str, password: &str| {
        format!("postgres://{user}:{password}@{address}:5432/gridwatch")
    };
    let verify = Verify {
        report: &found.report,
        ledger: &found.ledger,
        database_url: &url("gridwatch", &password),
        admins: &[],
        drain_timeout: LIMIT,
    };
    let verdict = verify.execute().await.unwrap();
    eprintln!("{verdict:?}");
    assert_eq!(verdict.violations, []);
    assert_eq!(verdict.accepted, counts.accepted);
    assert!(
        verdict.accepted > 30_000 && counts.rejected == 0,
        "{counts:?}"
    );

    // Every process is scraped, and Grafana's role reads and does not write.
    let prometheus = stack.published("prometheus", 9090).unwrap();
    until_async("every target is scraped", LIMIT, async || {
        let url = format!("http://{prometheus}/api/v1/targets");
        let found = get(&client, url).await.unwrap_or_default();
        let targets = found["data"]["activeTargets"].as_array().cloned();
        let targets = targets.unwrap_or_default();
        // Five processes of Gridwatch, HAProxy, RabbitMQ and Prometheus.
        targets.len() == 8 && targets.iter().all(|target| target["health"] == "up")
    })
    .await;
    let reader = url(
        "gridwatch_reader",
        &stack.secret("reader-password").unwrap(),
    );
    let (sql, connection) = tokio_postgres::connect(&reader, NoTls).await.unwrap();
    tokio::spawn(connection);
    let row = sql
        .query_one("SELECT count(*) FROM readings_by_name", &[])
        .await;
    assert_eq!(row.unwrap().get::<_, i64>(0) as u64, verdict.stored + 1);
    sql.batch_execute("SET default_transaction_read_only = off; DELETE FROM reading")
        .await
        .unwrap_err();
}

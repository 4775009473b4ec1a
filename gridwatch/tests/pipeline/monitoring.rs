//! Every query of the dashboards and the rules has a result, on a real Prometheus that scrapes the
//! real pipeline while every fault happens once.

use std::collections::BTreeSet;

use monitoring::dashboard::{Source, Variable};
use monitoring::dashboards;
use monitoring::promql::{DEPLOYMENT, RANGE, selectors};
use monitoring::rules::{alerts, recorded};
use schema::batch::Receipt;
use schema::{Batch, Reading, clock, metric};
use serde_json::{Value, json};
use testbed::process::Process;
use testbed::prometheus::{Job, Prometheus};
use testbed::wait::{until_async, until_ok};

use crate::support::*;

/// The name of the deployment.
const NAME: &str = "test";

/// Series that no test of a minute can have, each with the reason.
const ABSENT: [(&str, &str); 1] = [(
    recorded::PIPELINE_DIFFERENCE,
    "it compares the backlog with that of an hour ago",
)];

/// The values of the variables in SQL.
const VARIABLES: [(&str, &str); 7] = [
    (
        "$__timeFilter(measured_at)",
        "measured_at > now() - interval '1 day'",
    ),
    (
        "$__timeFilter(seen_at)",
        "seen_at > now() - interval '1 day'",
    ),
    ("$__interval_ms", "60000"),
    ("${device:sqlstring}", "'now'"),
    ("${metric:sqlstring}", "'p'"),
    ("${station:sqlstring}", "'Station 1'"),
    ("${find_device:sqlstring}", "''"),
];

struct Api<'a> {
    client: &'a Client,
    prometheus: &'a Prometheus,
}

impl Api<'_> {
    /// The result of a query now.
    async fn query(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let address = self.prometheus.address();
        let uri = format!("http://{address}/api/v1/query?query={query}").parse()?;
        let response = self.client.get(uri).await?.json();
        anyhow::ensure!(response["status"] == "success", "{response}");
        Ok(response["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// Waits until a query has a result.
    async fn wait_for(&self, query: &str) {
        until_ok(query, LIMIT, async || {
            anyhow::ensure!(!self.query(query).await?.is_empty(), "no result");
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Every query in PromQL with the place where it is. Of an alert, which must not fire, the series
/// that it uses.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for dashboard in dashboards::all() {
        for panel in dashboard.panels {
            for query in panel.queries {
                if query.source == Source::Prometheus {
                    let text = query.text.replace(&format!("${DEPLOYMENT}"), NAME);
                    let place = format!("{}, {}", dashboard.title, panel.title);
                    queries.push((place, text.replace(RANGE, "2m")));
                }
            }
        }
    }
    for rule in recorded::all() {
        queries.push((rule.name.clone(), rule.query));
        queries.push((rule.name.clone(), rule.name));
    }
    for alert in alerts::all() {
        for (name, matchers) in selectors(&alert.query) {
            let series = format!("last_over_time({name}{{{matchers}}}[5m])");
            queries.push((alert.name.to_owned(), series));
        }
    }
    let is_absent = |query: &str| ABSENT.iter().any(|(name, _)| query.contains(name));
    let difference = recorded::PIPELINE_DIFFERENCE;
    queries.retain(|(place, query)| place != difference && !is_absent(query));
    queries
}

/// Every query in SQL with the place where it is, with values for the variables.
fn statements() -> Vec<(String, String)> {
    let mut statements = Vec::new();
    for dashboard in dashboards::all() {
        for variable in dashboard.variables {
            if let Variable::Sql { name, query, .. } = variable {
                statements.push((name.to_owned(), query.to_owned()));
            }
        }
        for panel in dashboard.panels {
            for query in panel.queries {
                if query.source == Source::Postgres {
                    statements.push((format!("{}, {}", dashboard.title, panel.title), query.text));
                }
            }
        }
    }
    for (_, text) in &mut statements {
        for (variable, value) in VARIABLES {
            *text = text.replace(variable, value);
        }
        *text = text.replace("${find_station:sqlstring}", "''");
    }
    statements
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_dashboards_and_rules_has_a_result_after_every_fault() {
    let mut servers = Servers::with_metrics();
    let mut site = Site::on_servers(&servers);
    site.books_cannot_balance("the test publishes a batch itself");
    let spool = site.directory.path().join("spool");
    let spool = spool.to_str().unwrap();
    site.start_ingest(&["--unknown-devices", "register", "--spool", spool]);
    site.start_worker(&[]);
    let query_api = start_query_api(&site);
    let job = |name, path, targets: &[&str]| Job {
        name,
        path,
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
    };
    let (front, worker) = (site.ingest().admin_address(), site.worker().admin_address());
    let jobs = [
        job("ingest-api", "/metrics", &[front]),
        job("worker", "/metrics", &[worker]),
        job("query-api", "/metrics", &[query_api.admin_address()]),
        job(
            "rabbitmq",
            "/metrics",
            &[&servers.rabbitmq.metrics_address()],
        ),
    ];
    let rules = root().join("deploy/prometheus/rules/gridwatch.yml");
    let prometheus = Prometheus::start((DEPLOYMENT, NAME), &jobs, &[rules]).unwrap();
    let client = http_client();
    let api = Api {
        client: &client,
        prometheus: &prometheus,
    };
    api.wait_for("count(up == 1) == 4").await;

    let load = LoadClients::start(&site, 2, 20);
    load.wait_accepted(200).await;
    data_faults(&site).await;

    servers.rabbitmq.stop().unwrap();
    api.wait_for(&format!(
        "{} > 0 and {} == 1",
        metric::SPOOL_READINGS.name,
        metric::DEGRADED.name
    ))
    .await;
    servers.rabbitmq.restart().unwrap();
    api.wait_for(&format!("{} == 0", metric::SPOOL_READINGS.name))
        .await;
    servers.postgres.crash().unwrap();
    api.wait_for(&format!(r#"{}{{job="worker"}} == 0"#, metric::READY.name))
        .await;
    servers.postgres.restart().unwrap();
    api.wait_for(&format!("min({}) == 1", metric::READY.name))
        .await;
    load.wait_accepted(200).await;

    let queries = queries();
    assert!(queries.len() > 150, "{}", queries.len());
    until_ok("every query has a result", LIMIT, async || {
        let mut empty = BTreeSet::new();
        for (place, query) in &queries {
            if api.query(query).await?.is_empty() {
                empty.insert(format!("{place}: {query}"));
            }
        }
        anyhow::ensure!(empty.is_empty(), "no result: {empty:#?}");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));

    let sql = site.sql().await;
    for (place, statement) in statements() {
        let rows = sql.query(&statement, &[]).await;
        let rows = rows.unwrap_or_else(|error| panic!("{place}: {error:?}\n{statement}"));
        assert!(!rows.is_empty(), "{place}: no result\n{statement}");
    }
    for alert in ["GridwatchDeadLetters", "GridwatchPoisonMessages"] {
        api.wait_for(&format!(
            r#"ALERTS{{alertname="{alert}", alertstate="firing"}}"#
        ))
        .await;
    }
    assert_described(&site, &query_api);
    load.stop().await;
}

fn start_query_api(site: &Site) -> Process {
    let (listen, admin) = (free_address(), free_address());
    let arguments = [
        "query-api",
        "--listen",
        &listen,
        "--admin",
        &admin,
        "--database-url",
        &site.database_url,
    ];
    let mut process = Process::start(program(), &arguments, &admin, site.directory.path()).unwrap();
    process.wait_ready();
    process
}

/// A reading of each fault that readings can have, and a grid with a silent device.
async fn data_faults(site: &Site) {
    let now = clock::now() as f64 / 1e6;
    let future =
        json!({"device": "ahead", "metric": "p", "value": 1.0, "measured_at": now + 280.0});
    for (body, status) in [
        (json!({"device": "now", "metric": "p", "value": 1.0}), 202),
        (future, 202),
        (reading("m", "p", 0, 1.0), 202),
        // A duplicate and a conflict.
        (reading("m", "p", 0, 1.0), 202),
        (reading("m", "p", 0, 2.0), 202),
        (json!({"device": "m", "metric": "p", "value": null}), 422),
        (
            json!({"device": "m", "metric": "p", "value": 1.0, "measured_at": now + 9e3}),
            422,
        ),
        (json!([{ "no": "reading" }]), 422),
        (json!("no reading"), 400),
    ] {
        let response = site.post(body.clone()).await;
        assert_eq!(
            response.status.as_u16(),
            status,
            "{body}: {}",
            response.text()
        );
    }
    site.execute("ALTER TABLE reading ADD CONSTRAINT plausible CHECK (value < 1e9)")
        .await;
    assert_eq!(site.post(reading("m", "p", 1, 1e10)).await.status, 202);
    site.publish(b"not a batch").await;
    let at = clock::now();
    let mut batch = Batch {
        enqueued_at: at,
        ..Batch::new()
    };
    batch.receipts = vec![Receipt {
        received_at: at,
        count: 1,
    }];
    batch.push(Reading {
        series_id: 1,
        measured_at: at,
        value: 1.0,
    });
    // A batch twice.
    for _ in 0..2 {
        site.publish(&batch.encode()).await;
    }
    site.execute(
        "INSERT INTO kind (name) VALUES ('root') ON CONFLICT DO NOTHING;
         INSERT INTO component (id, kind, name)
         VALUES ('019b76da-a800-7000-8000-000000000001', 'root', 'Station 1');
         UPDATE device SET component = '019b76da-a800-7000-8000-000000000001'
         WHERE external_id = 'now';
         INSERT INTO device (external_id) VALUES ('silent');
         INSERT INTO series (device_id, metric) SELECT id, 'p' FROM device
         WHERE external_id = 'silent'",
    )
    .await;
    until_async("the faults are counted", LIMIT, async || {
        let count = |metric: metric::Metric| site.worker().metric(metric.name);
        [
            metric::DUPLICATE,
            metric::CONFLICT,
            metric::DEAD_LETTERED,
            metric::POISON_MESSAGES,
            metric::REDELIVERED_BATCHES,
        ]
        .into_iter()
        .all(|metric| count(metric) > 0.0)
    })
    .await;
}

/// Every metric that a process exports is one of [`schema::metric`], with its description.
fn assert_described(site: &Site, query_api: &Process) {
    for process in [site.ingest(), site.worker(), query_api] {
        let text = process.admin("/metrics").unwrap();
        let samples = text.lines().filter(|line| line.starts_with("gridwatch_"));
        for sample in samples {
            let end = sample.find(['{', ' ']).unwrap();
            let name = &sample[..end];
            let suffixes = ["_bucket", "_sum", "_count"];
            let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            let has_help = |name: &str| text.contains(&format!("# HELP {name} "));
            assert!(
                has_help(name) || base.is_some_and(has_help),
                "{name} has no description"
            );
        }
    }
}

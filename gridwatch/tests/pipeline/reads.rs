//! Readings in, questions out: the read side of each deployment mode.

use serde_json::{Value, json};
use testbed::process::Process;
use testbed::wait::until_async;

use crate::support::*;

/// A reading per second from 2026-11-01 on.
fn readings(device: &str, count: i64) -> Value {
    let one = |n: i64| reading(device, "p", n, n as f64);
    (0..count).map(one).collect()
}

const RANGE: &str = "from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z";

async fn get(site: &Site, address: &str, path: &str) -> Response {
    let uri = format!("http://{address}{path}").parse().unwrap();
    site.client.get(uri).await.expect("the server responds")
}

async fn get_json(site: &Site, address: &str, path: &str) -> Value {
    let response = get(site, address, path).await;
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    serde_json::from_str(&response.text()).unwrap()
}

async fn wait_until_readable(site: &Site, address: &str, device: &str, count: u64) {
    let path = format!("/v1/readings?device={device}&{RANGE}&resolution=1d&aggregates=count");
    until_async("the readings can be asked for", LIMIT, async || {
        let response = get(site, address, &path).await;
        let body: Value = serde_json::from_str(&response.text()).unwrap_or_default();
        body["series"][0]["points"][0]["count"] == json!(count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_can_be_asked_for() {
    let site = Site::running();
    assert_eq!(site.post(readings("m", 3_000)).await.status, 202);
    let (listen, admin) = (free_address(), free_address());
    let url = &site.database_url;
    let arguments = [
        "query-api",
        "--listen",
        &listen,
        "--admin",
        &admin,
        "--database-url",
        url,
    ];
    let mut process = Process::start(program(), &arguments, &admin, site.directory.path()).unwrap();
    process.wait_ready();
    wait_until_readable(&site, &listen, "m", 3_000).await;

    let path = format!("/v1/readings?device=m&metric=p&{RANGE}");
    let body = get_json(&site, &listen, &path).await;
    let points = body["series"][0]["points"].as_array().unwrap();
    assert_eq!(points.len(), 3_000);
    assert_eq!(
        points[2_999],
        json!({ "time": "2026-11-01T00:49:59Z", "value": 2999.0 })
    );
    let body = get_json(
        &site,
        &listen,
        &format!("{path}&resolution=15m&aggregates=median"),
    )
    .await;
    assert_eq!(body["series"][0]["points"][0]["median"], json!(449.5));
    let latest = get_json(&site, &listen, "/v1/latest?device=m").await;
    assert_eq!(latest["latest"][0]["value"], json!(2999.0));
    let latency = "/v1/latency?from=2026-01-01&to=2026-01-02";
    assert_eq!(
        get_json(&site, &listen, latency).await["minutes"],
        json!([])
    );
    assert_eq!(get(&site, &listen, "/v1/devices/none").await.status, 404);
    assert_eq!(get(&site, &listen, "/v1/nothing").await.status, 404);
    assert!(process.terminate().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_responds_to_questions_on_the_port_of_the_readings() {
    let mut site = Site::new();
    site.books_cannot_balance("standalone has a database of its own");
    let standalone = Standalone::ready(site.directory.path(), &[]);
    let listen = &standalone.listen;
    site.listen = listen.clone();
    assert_eq!(site.post(readings("m", 2_000)).await.status, 202);
    wait_until_readable(&site, listen, "m", 2_000).await;
    let body = get_json(&site, listen, &format!("/v1/daily?device=m&{RANGE}")).await;
    assert_eq!(body["series"][0]["points"][0]["median"], json!(999.5));
    // Readings still go in on the same path.
    assert_eq!(site.post(readings("n", 1)).await.status, 202);
    standalone.stop();
}

#[test]
fn queries_are_not_served_to_other_machines_unless_that_is_asked_for() {
    let url = "postgres://nobody@127.0.0.1:1/none";
    let output = gridwatch(&["query-api", "--listen", "0.0.0.0:0", "--database-url", url]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--insecure-no-auth"), "{text}");
}

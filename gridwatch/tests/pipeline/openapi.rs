//! The OpenAPI document against the running program: what it says is what happens.
//!
//! schemathesis sends requests that the document allows, and others that it does not allow, to
//! every operation of standalone on PostgreSQL. `scripts/setup.sh openapi` installs it.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::*;

/// What the examples of the document name.
const EXAMPLES: &str = "
    INSERT INTO customer (id, name)
    VALUES ('0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d71', 'Example Utility');
    INSERT INTO catalog_type (id, category, name)
    VALUES ('0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6f', 'meter', 'A1');
    INSERT INTO component (id, kind, name)
    VALUES ('0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e', 'station', 'Station 12');
    INSERT INTO device (external_id, component)
    VALUES ('meter-1', '0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e');
    INSERT INTO series (device_id, metric, unit) SELECT id, 'energy', 'kWh' FROM device;
    INSERT INTO target (series_id, starts_at, value)
    SELECT id, '2019-01-01T00:00:00Z', 50 FROM series;
    SELECT gridwatch_create_reading_day(day) FROM unnest('{2019-01-17,2019-01-18}'::date[]) day;
    INSERT INTO reading
    SELECT id, '2019-01-17T00:00:00Z'::timestamptz + n * interval '15 minutes', n
    FROM series, generate_series(0, 191) n;
    INSERT INTO conflict (batch_id, series_id, measured_at, stored_value, offered_value)
    SELECT gen_random_uuid(), id, '2019-01-17T00:00:00Z', 0, 1 FROM series;
    INSERT INTO job (id, action, actor, state, finished_at)
    VALUES ('0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d70', 'delete', 'ada', 'done', now());";

/// Standalone on PostgreSQL, with what the examples name.
async fn standalone(site: &mut Site) -> Standalone {
    site.books_cannot_balance("the readings are part of the database from the start");
    site.execute(EXAMPLES).await;
    Standalone::of_site(site)
}

async fn get(site: &Site, path: &str) -> Response {
    let uri = format!("http://{}{path}", site.listen).parse().unwrap();
    site.client.get(uri).await.expect("the server responds")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_of_standalone_has_both_apis_and_every_error_code() {
    let mut site = Site::new();
    let standalone = standalone(&mut site).await;
    let response = get(&site, "/openapi.json").await;
    assert_eq!(response.status, 200);
    let document: Value = serde_json::from_str(&response.text()).unwrap();
    let readings = document["paths"]["/v1/readings"].as_object().unwrap();
    let methods: Vec<&str> = readings.keys().map(String::as_str).collect();
    assert_eq!(methods, ["delete", "get", "post"]);
    let mut codes = BTreeSet::new();
    let mut stack = vec![&document["paths"], &document["components"]["responses"]];
    while let Some(value) = stack.pop() {
        let examples = value["examples"].as_object().into_iter().flatten();
        codes.extend(examples.map(|(code, _)| code.as_str()));
        stack.extend(value.as_object().into_iter().flat_map(|own| own.values()));
    }
    let expected: BTreeSet<&str> = service::api_error::CODES.into_iter().collect();
    assert_eq!(codes, expected);
    let page = get(&site, "/docs").await;
    assert_eq!(page.status, 200);
    let page = page.text();
    assert!(
        page.contains("Send readings") && page.contains("List devices"),
        "{page}"
    );
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    standalone.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_responds_to_generated_input_as_the_document_says() {
    let tool = root().join("target/schemathesis");
    if let Ok(reason) = std::fs::read_to_string(tool.join("unreachable")) {
        eprintln!("skipped: PyPI cannot be reached, so that schemathesis is missing: {reason}");
        return;
    }
    let schemathesis = tool.join("bin/schemathesis");
    assert!(
        schemathesis.is_file(),
        "{} is missing: run 'scripts/setup.sh openapi'",
        schemathesis.display()
    );
    let mut site = Site::new();
    let standalone = standalone(&mut site).await;
    let scripts = root().join("scripts/openapi");
    let mut command = Command::new(&schemathesis);
    command
        .arg("--config-file")
        .arg(scripts.join("schemathesis.toml"))
        .args(["--no-color", "run"])
        .arg(format!("http://{}/openapi.json", site.listen))
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &scripts)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(site.directory.path());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}:\n{text}\n{errors}",
        output.status
    );
    let log = standalone.process.log();
    assert!(!log.contains("panicked"), "{log}");
    standalone.stop();
}

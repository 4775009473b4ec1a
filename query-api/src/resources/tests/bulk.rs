//! Many devices at once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Api, Reply, column};

const LINE: &str = "POST /v1/devices:bulk";

async fn post(api: &Api, content_type: &str, body: impl Into<String>) -> Reply {
    let headers = [("content-type", content_type)];
    api.send(LINE, &headers, Value::String(body.into())).await
}

#[tokio::test]
async fn the_same_devices_are_created_from_json_ndjson_and_csv() {
    let mut found = Vec::new();
    for format in ["application/json", "application/x-ndjson", "text/csv"] {
        let api = Api::new().await;
        let station = api.component("station", "S", None).await;
        let first = json!({
            "device": "m1", "component": station, "specs": { "a": 1 }, "active": false,
            "latitude": 1.5, "longitude": 2, "activation_date": "2026-01-01",
            "expected_interval": 60,
            "series": [{ "metric": "p", "unit": "W" }, { "metric": "q" }]
        });
        let second = json!({ "device": "m,2", "name": "meter \"2\"" });
        let body = match format {
            "application/json" => json!([first, second]).to_string(),
            "text/csv" => format!(
                "device,component,specs,active,latitude,longitude,activation_date,\
                 expected_interval,series,name\n\
                 m1,{station},\"{{\"\"a\"\": 1}}\",false,1.5,2,2026-01-01,60,p:W; q,\n\
                 \"m,2\",,,,,,,,,\"meter \"\"2\"\"\"\n"
            ),
            _ => format!("{first}\n\n{second}\n"),
        };
        let reply = post(&api, format, body).await;
        assert_eq!(reply.status, 201, "{format}: {}", reply.body);
        let created = json!({ "created": { "devices": 2, "series": 2 } });
        assert_eq!(reply.body, created, "{format}");
        let mut devices = Vec::new();
        for name in ["m1", "m%2C2"] {
            let mut device = api.get(&format!("/v1/devices/{name}")).await;
            assert_eq!(device["version"], 1);
            if name == "m1" {
                assert_eq!(device["component"], json!(station));
            }
            for computed in ["created_at", "updated_at", "component"] {
                device[computed] = Value::Null;
            }
            devices.push(device);
        }
        let within = api
            .get(&format!("/v1/devices?within={station}&at=2001-01-01"))
            .await;
        assert_eq!(column(&within["devices"], "device"), ["m1"], "{format}");
        let changes = api.get("/v1/changes?entity=device").await;
        assert_eq!(
            column(&changes["changes"], "entity_id"),
            ["m1", "m,2"],
            "{format}"
        );
        found.push(devices);
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
    assert_eq!(found[0][0]["series"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn one_bad_line_leaves_nothing_behind_and_every_bad_line_is_reported() {
    let api = Api::new().await;
    api.ok("POST /v1/devices", json!({ "device": "old" })).await;
    let id = "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e";
    let good = "{\"device\": \"new\"}\n";
    for (body, expected) in [
        (
            format!("{good}{{\n{{\"device\": \"a\", \"x\": 1}}\n[]\n"),
            vec![(2, ""), (3, "/x"), (4, "")],
        ),
        (
            format!(
                "{good}{{\"device\": \"old\"}}\n{{\"device\": \"new\"}}\n\
                 {{\"device\": \"b\", \"component\": \"{id}\"}}\n\
                 {{\"device\": \"c\", \"type\": \"{id}\"}}\n"
            ),
            vec![
                (2, "/device"),
                (3, "/device"),
                (4, "/component"),
                (5, "/type"),
            ],
        ),
        (
            format!(
                "{good}{}\n",
                json!({ "device": "d", "series": [{ "metric": "p" }, { "metric": "p" }, {}] })
            ),
            vec![(2, "/series/1/metric"), (2, "/series/2/metric")],
        ),
        ("\n".into(), vec![(0, "")]),
    ] {
        let reply = post(&api, "application/x-ndjson", body.clone()).await;
        assert_eq!(reply.body["code"], "invalid_body", "{body}: {}", reply.body);
        let errors = reply.body["errors"].as_array().unwrap();
        let found: Vec<_> = errors
            .iter()
            .map(|error| {
                let line = error["line"].as_u64().unwrap_or(0);
                (line, error["pointer"].as_str().unwrap())
            })
            .collect();
        assert_eq!(found, expected, "{body}: {}", reply.body);
    }
    let reply = post(
        &api,
        "application/json",
        "[{\"device\": \"new\"}, {\"device\": \"old\"}]",
    );
    assert_eq!(reply.await.body["pointer"], "/1/device");
    let reply = post(&api, "text/csv", "device,colour\nnew,red\n").await;
    assert_eq!(
        (&reply.body["line"], &reply.body["pointer"]),
        (&json!(1), &json!("/colour"))
    );
    let reply = post(&api, "text/csv", "device,active\nnew,yes\nx\n").await;
    assert_eq!(column(&reply.body["errors"], "pointer"), ["/active", ""]);
    let reply = post(&api, "text/plain", "x").await;
    assert_eq!(reply.status, 415);
    let devices = api.get("/v1/devices").await;
    assert_eq!(column(&devices["devices"], "device"), ["old"]);
}

#[tokio::test]
async fn a_bulk_that_is_retried_with_its_key_returns_the_first_response() {
    let api = Api::new().await;
    let headers = [("idempotency-key", "k")];
    let body = json!([{ "device": "m" }]);
    for _ in 0..2 {
        let reply = api.send(LINE, &headers, body.clone()).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.body["created"]["devices"]),
            (201, &json!(1))
        );
    }
}

#[tokio::test]
async fn many_devices_are_one_request_and_each_is_on_one_page() {
    let api = Api::new().await;
    let mut body = String::from("device,name,expected_interval,series\n");
    for n in 0..20_000 {
        let _ = writeln!(body, "meter-{n},Meter {n},60,current:A;voltage:V");
    }
    let reply = post(&api, "text/csv", body).await;
    let created = json!({ "created": { "devices": 20_000, "series": 40_000 } });
    assert_eq!(reply.body, created);
    assert_eq!(
        api.get("/v1/devices?total=true&limit=1").await["total"],
        20_000
    );
    let (mut path, mut names) = ("/v1/devices?limit=5000".to_owned(), BTreeSet::new());
    loop {
        let page = api.get(&path).await;
        names.extend(column(&page["devices"], "device"));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/devices?limit=5000&next={next}"),
            None => break,
        }
    }
    assert_eq!(names.len(), 20_000);
}

#[tokio::test]
async fn a_body_that_would_need_more_memory_than_its_size_is_refused() {
    let api = Api::new().await;
    let metrics: Vec<String> = (0..1_001).map(|n| format!("m{n}")).collect();
    let metrics = metrics.join(";");
    let deep = format!(
        "[{{\"device\": \"m\", \"specs\": {{\"x\": [{}0]}}}}]",
        "0,".repeat(600_000)
    );
    let unknown: Vec<String> = (0..5_000).map(|n| format!("\"x{n}\": 0")).collect();
    let unknown = format!("{{\"device\": \"m\", {}}}\n", unknown.join(", "));
    for (format, body, text) in [
        (
            "text/csv",
            format!("device,series\nm,{metrics}\n"),
            "1000 series",
        ),
        ("text/csv", "device,name,name\nm,a,b\n".into(), "twice"),
        (
            "text/csv",
            format!("device,name\nm{}\n", ",".repeat(2_000)),
            "more than",
        ),
        (
            "text/csv",
            format!("device{}\n", ",device".repeat(2_000)),
            "more than",
        ),
        (
            "text/csv",
            format!("device,name\nm,\"{}\"\n", "x".repeat(1_100_000)),
            "bytes",
        ),
        ("application/json", deep.clone(), "bytes"),
        (
            "application/x-ndjson",
            deep[1..deep.len() - 1].into(),
            "bytes",
        ),
        ("application/x-ndjson", unknown, "no such field"),
    ] {
        let reply = post(&api, format, body).await;
        assert_eq!(reply.status, 422, "{format} {text}: {}", reply.body);
        let reason = reply.body["reason"].as_str().unwrap();
        assert!(reason.contains(text), "{text}: {reason}");
        assert!(
            reply.body["errors"]
                .as_array()
                .is_none_or(|errors| errors.len() <= 100)
        );
    }
    // Quotes and commas within cells are no columns.
    let body = format!(
        "device,name\nm,\"{}\"\n\"n,\"\"1\"\"\",5\" pipe\n",
        ",".repeat(100)
    );
    let reply = post(&api, "text/csv", body).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let devices = api.get("/v1/devices").await;
    assert_eq!(column(&devices["devices"], "device"), ["m", "n,\"1\""]);
}

#[test]
fn a_bulk_that_was_cancelled_holds_its_place_until_its_work_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let api = Api::new().await;
        api.ok("POST /v1/devices", json!({ "device": "old" })).await;
        // The thread that reads bodies is busy.
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        let busy = tokio::task::spawn_blocking(move || released.recv());
        let send = || post(&api, "application/json", "[{\"device\": \"new\"}]");
        let cancelled = tokio::time::timeout(Duration::ZERO, send()).await;
        assert!(cancelled.is_err());
        let second = tokio::time::timeout(Duration::ZERO, send()).await;
        let reply = second.expect("the place is taken");
        assert_eq!(reply.body["code"], "overloaded", "{}", reply.body);
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        let accepted = async { while send().await.status != 201 {} };
        tokio::time::timeout(store::testing::LIMIT, accepted)
            .await
            .expect("the place is free");
    });
}

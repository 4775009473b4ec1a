//! What was imported.

use serde_json::{Value, json};

use super::{Api, column};

fn id(number: usize) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

#[tokio::test]
async fn an_import_is_written_when_it_starts_and_again_when_it_ends() {
    let api = Api::new().await;
    let entry = |accepted: u32, complete: bool| {
        json!({ "name": "a.csv", "digest": "ab12", "kind": "readings", "accepted": accepted,
                "left_out": 1, "complete": complete })
    };
    for n in 1..=3 {
        let line = format!("PUT /v1/imports/{}", id(n));
        let started = api.ok(&line, entry(0, false)).await;
        assert_eq!(started["complete"], false);
        // What was read can be sent back.
        api.ok(&line, started).await;
    }
    let reply = api
        .send(
            &format!("PUT /v1/imports/{}", id(2)),
            &[("x-actor", "me")],
            entry(7, true),
        )
        .await;
    assert_eq!(reply.body["updated_by"], "me");
    assert_eq!(api.get(&format!("/v1/imports/{}", id(2))).await, reply.body);
    let page = api.get("/v1/imports?limit=2").await;
    assert_eq!(column(&page["imports"], "id"), [id(1), id(2)]);
    let next = format!(
        "/v1/imports?limit=2&next={}",
        page["next"].as_str().unwrap()
    );
    let page = api.get(&next).await;
    assert_eq!(column(&page["imports"], "id"), [id(3)]);
    assert_eq!(page["next"], Value::Null);
    let newest = api.get("/v1/imports?order=desc&limit=1").await;
    assert_eq!(column(&newest["imports"], "id"), [id(3)]);
    for (path, body, status, code) in [
        ("none", entry(0, true), 404, "unknown_resource"),
        (&id(1), json!({ "name": "x" }), 422, "invalid_body"),
    ] {
        api.fails(&format!("PUT /v1/imports/{path}"), body, status, code)
            .await;
    }
    let mut wrong = entry(0, true);
    wrong["accepted"] = json!(1.5);
    let line = format!("PUT /v1/imports/{}", id(1));
    let refused = api.fails(&line, wrong, 422, "invalid_body").await;
    assert_eq!(refused["pointer"], "/accepted");
    let unknown = format!("GET /v1/imports/{}", id(9));
    api.fails(&unknown, Value::Null, 404, "unknown_resource")
        .await;
}

#[tokio::test]
async fn the_oldest_imports_are_removed() {
    let api = Api::new().await;
    let fill = "INSERT INTO import (id, name, kind, accepted, left_out, complete, updated_by)
        SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'f', 'readings',
               0, 0, true, 'me' FROM generate_series(1, 10000) AS n";
    api.client().await.batch_execute(fill).await.unwrap();
    let entry = json!({ "name": "f", "kind": "readings", "accepted": 0, "left_out": 0,
                        "complete": true });
    let line = format!("PUT /v1/imports/{}", id(10_001));
    api.ok(&line, entry).await;
    let first = api.get("/v1/imports?limit=1").await;
    assert_eq!(column(&first["imports"], "id"), [id(2)]);
}

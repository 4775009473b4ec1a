//! Requests at the same time.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Api, Reply};

/// Sends requests at the same time and returns the replies.
async fn send_all(
    api: &Arc<Api>,
    requests: Vec<(String, Option<&'static str>, Value)>,
) -> Vec<Reply> {
    let mut tasks = JoinSet::new();
    for (line, key, body) in requests {
        let api = api.clone();
        tasks.spawn(async move {
            let headers: Vec<_> = key.iter().map(|key| ("idempotency-key", *key)).collect();
            api.send(&line, &headers, body).await
        });
    }
    tasks.join_all().await
}

fn statuses(replies: &[Reply], status: u16) -> usize {
    let found = replies
        .iter()
        .filter(|reply| reply.status.as_u16() == status);
    found.count()
}

#[tokio::test]
async fn a_distributor_never_has_more_feeders_than_its_kind_allows() {
    let api = Arc::new(Api::new().await);
    let station = api.component("station", "S", None).await;
    let transformer = api.component("transformer", "T", Some(&station)).await;
    let distributor = api.component("distributor", "D", Some(&transformer)).await;
    let feeder = |n| {
        let body = json!({ "kind": "feeder", "name": format!("F{n}"), "parent": distributor });
        ("POST /v1/components".to_owned(), None, body)
    };
    let replies = send_all(&api, (0..30).map(feeder).collect()).await;
    assert_eq!((statuses(&replies, 201), statuses(&replies, 422)), (20, 10));
}

#[tokio::test]
async fn two_moves_at_the_same_time_never_make_a_loop() {
    let api = Arc::new(Api::new().await);
    let parents = json!([{ "kind": "factory" }, { "kind": "area" }]);
    api.ok(
        "POST /v1/kinds",
        json!({ "name": "area", "parents": parents }),
    )
    .await;
    let factory = api.component("factory", "F", None).await;
    for _ in 0..10 {
        let a = api.component("area", "a", Some(&factory)).await;
        let b = api.component("area", "b", Some(&factory)).await;
        let to = |id: &str, parent: &str| {
            let body = json!({ "parent": parent });
            (format!("PATCH /v1/components/{id}"), None, body)
        };
        let replies = send_all(&api, vec![to(&a, &b), to(&b, &a)]).await;
        assert_eq!((statuses(&replies, 200), statuses(&replies, 422)), (1, 1));
    }
}

#[tokio::test]
async fn retries_at_the_same_time_as_the_first_request_create_nothing_twice() {
    let api = Arc::new(Api::new().await);
    let station = |_| {
        let body = json!({ "kind": "station", "name": "S" });
        ("POST /v1/components".to_owned(), Some("k"), body)
    };
    let replies = send_all(&api, (0..8).map(station).collect()).await;
    assert_eq!(statuses(&replies, 201), 8);
    assert!(
        replies
            .iter()
            .all(|reply| reply.body["id"] == replies[0].body["id"])
    );
    assert_eq!(api.get("/v1/components?total=true").await["total"], 1);
}

#[tokio::test]
async fn of_several_changes_of_one_version_one_succeeds() {
    let api = Arc::new(Api::new().await);
    api.ok("POST /v1/devices", json!({ "device": "m" })).await;
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let api = api.clone();
        tasks.spawn(async move {
            let patch = json!({ "configuration": { (format!("field{n}")): n } });
            let headers = [("if-match", "\"1\"")];
            api.send("PATCH /v1/devices/m", &headers, patch).await
        });
    }
    let replies = tasks.join_all().await;
    assert_eq!((statuses(&replies, 200), statuses(&replies, 412)), (1, 7));
    // Without a version none is lost, because each merges into the latest one.
    let patch = |n| {
        let patch = json!({ "configuration": { (format!("other{n}")): n } });
        ("PATCH /v1/devices/m".to_owned(), None, patch)
    };
    send_all(&api, (0..8).map(patch).collect()).await;
    let device = api.get("/v1/devices/m").await;
    assert_eq!(device["configuration"].as_object().unwrap().len(), 9);
}

#[tokio::test]
async fn a_parent_that_is_deleted_while_it_gets_children_leaves_no_orphan() {
    let api = Arc::new(Api::new().await);
    for _ in 0..10 {
        let station = api.component("station", "S", None).await;
        let child = json!({ "kind": "transformer", "name": "T", "parent": station });
        let requests = vec![
            ("POST /v1/components".to_owned(), None, child.clone()),
            (
                format!("DELETE /v1/components/{station}?cascade=true"),
                None,
                Value::Null,
            ),
            ("POST /v1/components".to_owned(), None, child),
        ];
        let replies = send_all(&api, requests).await;
        assert!(replies.iter().all(|reply| reply.status.as_u16() != 500));
        let rest = api.get("/v1/components?total=true").await;
        let whole = statuses(&replies, 503) > 0;
        assert!(whole || rest["total"] == 0, "{rest}");
        if whole {
            let path = format!("DELETE /v1/components/{station}?cascade=true");
            api.ok(&path, Value::Null).await;
        }
    }
}

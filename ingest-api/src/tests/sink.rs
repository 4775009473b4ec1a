//! What a request gets when the sink does not confirm its readings.

use std::time::Duration;

use schema::metric;
use serde_json::{Value, json};
use transport::SinkError;

use super::support::*;
use crate::Confirms;

/// Readings of the same second: what they are does not matter here.
fn readings(count: usize) -> Value {
    json!(vec![reading(METER, "p"); count])
}

#[tokio::test]
async fn the_status_of_a_success_tells_whether_the_readings_are_committed() {
    for (confirms, status) in [(Confirms::Enqueued, 202), (Confirms::Committed, 201)] {
        let setup = Setup {
            confirms,
            ..Setup::default()
        };
        let mut front_end = setup.start();
        front_end.sent.take().unwrap().respond_with(Ok(()));
        let response = front_end.post("", &readings(3)).await;
        assert_eq!((response.status, response.counts()), (status, [3, 0, 0]));
        assert_eq!(front_end.counted(metric::ACCEPTED), 3);
        front_end.assert_books("confirmed");
    }
}

#[tokio::test]
async fn refused_readings_may_be_retried_and_unconfirmed_ones_only_if_they_have_times() {
    let refused = || Err(SinkError::Refused("cause".into()));
    let unconfirmed = || Err(SinkError::Unconfirmed("cause".into()));
    let timed = json!([reading(METER, "p")]);
    let untimed = json!([untimed(METER, "p")]);
    for (outcome, readings, code, reason, detail) in [
        (
            refused(),
            &timed,
            "queue_unavailable",
            "not_sent",
            "retry later",
        ),
        (
            refused(),
            &untimed,
            "queue_unavailable",
            "not_sent",
            "retry later",
        ),
        (
            unconfirmed(),
            &timed,
            "unconfirmed",
            "unconfirmed",
            "retrying is safe",
        ),
        (
            unconfirmed(),
            &untimed,
            "unconfirmed",
            "unconfirmed",
            "a second time",
        ),
    ] {
        let mut front_end = Setup::default().start();
        front_end.sent.take().unwrap().respond_with(outcome);
        let response = front_end.post("", readings).await;
        assert_eq!((response.status, response.code()), (503, Some(code)));
        let text = response.body["detail"].as_str().unwrap();
        assert!(text.contains("cause") && text.contains(detail), "{text}");
        assert_eq!(front_end.unavailable(reason), 1, "{code}");
        front_end.assert_books(code);
    }
}

#[tokio::test]
async fn a_request_of_several_batches_is_unconfirmed_when_one_of_them_is_refused() {
    let mut front_end = Setup::default().start();
    let mut sent = front_end.sent.take().unwrap();
    let body = ["{\"device\":\"meter-1\",\"metric\":\"p\",\"value\":1}"; 4_097].join("\n");
    let headers = [("content-type", "application/x-ndjson")];
    let respond = async {
        sent.next().await.confirm();
        sent.next().await.refuse();
    };
    let request = front_end.send("POST", "/v1/readings", &headers, body);
    let (response, ()) = tokio::join!(request, respond);
    assert_eq!(
        (response.status, response.code()),
        (503, Some("unconfirmed"))
    );
    assert_eq!(front_end.counted(metric::ACCEPTED), 4_096);
    assert_eq!(front_end.unavailable("not_sent"), 1);
    front_end.assert_books("two batches");
}

/// A request of this many readings, one per line.
fn lines(front_end: &FrontEnd, count: usize) -> impl Future<Output = JsonResponse> + use<> {
    let line = r#"{"device":"meter-1","metric":"p","value":1,"measured_at":1}"#;
    let body = zstd::encode_all(vec![line; count].join("\n").as_bytes(), 1).unwrap();
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("content-encoding", "zstd"),
    ];
    front_end.send("POST", "/v1/readings", &headers, body)
}

#[tokio::test]
async fn a_request_of_several_batches_that_are_all_refused_gets_the_code_of_a_small_one() {
    let refused = || Err(SinkError::Refused("the spool is full".into()));
    for count in [1, 4_096, 4_097, 20_000] {
        let setup = Setup {
            max_body: 2_000_000,
            ..Setup::default()
        };
        let mut front_end = setup.start();
        front_end.sent.take().unwrap().respond_with(refused());
        let response = lines(&front_end, count).await;
        assert_eq!(
            (response.status, response.code()),
            (503, Some("queue_unavailable")),
            "{count}"
        );
        let detail = response.body["detail"].as_str().unwrap();
        assert_eq!(detail, "the spool is full; retry later", "{count}");
        assert_eq!(front_end.unavailable("not_sent"), count as u64);
        front_end.assert_books("refused");
    }
}

#[tokio::test]
async fn a_request_does_not_wait_longer_than_its_timeout_and_its_readings_are_counted_later() {
    let setup = Setup {
        response_timeout: Some(Duration::from_millis(20)),
        ..Setup::default()
    };
    let mut front_end = setup.start();
    let mut sent = front_end.sent.take().unwrap();
    let response = front_end.post("", &readings(2)).await;
    assert_eq!(
        (response.status, response.code()),
        (503, Some("unconfirmed"))
    );
    assert_eq!(front_end.counted(metric::ACCEPTED), 0);
    sent.next().await.confirm();
    transport::testing::run_other_tasks().await;
    assert_eq!(front_end.counted(metric::ACCEPTED), 2);
    front_end.assert_books("timeout");
}

#[tokio::test]
async fn readings_beyond_the_limit_on_pending_ones_are_refused_and_accepted_later() {
    let setup = Setup {
        max_pending: 3,
        ..Setup::default()
    };
    let mut front_end = setup.start();
    let mut sent = front_end.sent.take().unwrap();
    let first = async {
        let response = front_end.post("", &readings(2)).await;
        assert_eq!((response.status, response.counts()), (202, [2, 0, 0]));
    };
    let others = async {
        let in_flight = sent.next().await;
        let response = front_end.post("", &readings(2)).await;
        assert_eq!(
            (response.status, response.code()),
            (503, Some("overloaded"))
        );
        assert_eq!(front_end.unavailable("full"), 2);
        in_flight.confirm();
    };
    tokio::join!(first, others);
    sent.respond_with(Ok(()));
    assert_eq!(front_end.post("", &readings(3)).await.status, 202);
    // More than may ever be pending.
    assert_eq!(
        front_end.post("", &readings(4)).await.code(),
        Some("overloaded")
    );
    front_end.assert_books("overloaded");
}

#[tokio::test]
async fn bodies_beyond_the_memory_budget_are_refused_and_accepted_later() {
    let mut front_end = Setup::default().start();
    let mut sent = front_end.sent.take().unwrap();
    let send = || {
        let mut body = reading(METER, "p").to_string();
        body.push_str(&" ".repeat(MAX_BODY - body.len()));
        front_end.send("POST", "/v1/readings", &[], body)
    };
    // The budget is three times the longest body, and eight megabytes for parsed entries. A body
    // keeps its share until its readings are confirmed.
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..15 {
        requests.spawn(send());
    }
    let mut responses = Vec::new();
    while responses.len() < 4 {
        responses.push(requests.join_next().await.unwrap().unwrap());
    }
    for response in &responses {
        assert_eq!(
            (response.status, response.code()),
            (503, Some("overloaded"))
        );
    }
    while !requests.is_empty() {
        tokio::select! {
            sent = sent.next() => sent.confirm(),
            response = requests.join_next() => assert_eq!(response.unwrap().unwrap().status, 202),
        }
    }
    let confirm = async { sent.next().await.confirm() };
    let (response, ()) = tokio::join!(send(), confirm);
    assert_eq!(response.status, 202);
    front_end.assert_books("bodies");
}

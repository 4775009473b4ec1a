//! The history of a reading, deleting readings, and tails, on a real database.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use store::model::jobs;
use store::{Client, testing};
use tower::ServiceExt as _;

use super::tail::MAX_TAILS;
use super::{Access, routes};

struct Api {
    router: Router,
    url: String,
    client: Client,
}

/// The device `m` with the metric `p`.
async fn api() -> Api {
    let url = testing::create_database().await;
    let client = testing::connect(&url).await;
    let sql = "INSERT INTO device (external_id) VALUES ('m');
               INSERT INTO series (device_id, metric, unit) SELECT id, 'p', 'W' FROM device;
               SELECT gridwatch_create_reading_day('2026-11-20')";
    client.batch_execute(sql).await.unwrap();
    let router = routes(testing::pool(&url, 2));
    Api {
        router,
        url,
        client,
    }
}

impl Api {
    /// Stores a reading per second from a second of 2026-11-20 on.
    async fn store(&self, from: i32, to: i32) {
        let sql = "INSERT INTO reading
                   SELECT id, '2026-11-20T00:00:00Z'::timestamptz + n * interval '1 second', n
                   FROM series, generate_series($1::integer, $2 - 1) n";
        self.client.execute(sql, &[&from, &to]).await.unwrap();
    }

    async fn respond(&self, line: &str, headers: &[(&str, &str)]) -> Response {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn send(&self, line: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Value) {
        let response = self.respond(line, headers).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (parts.status, parts.headers, body)
    }
}

#[tokio::test]
async fn the_history_of_a_reading_has_everything_that_is_known_of_it() {
    let api = api().await;
    api.store(60, 61).await;
    api.client
        .batch_execute(
            "INSERT INTO batch
             SELECT id::uuid, 2, 2, 0, 0, 0, first_measured, first_measured + '1 minute',
                    t, t, t, t, t
             FROM (VALUES ('01a1f643-05f0-7000-8000-000000000001', '2026-11-20 00:00:30Z'),
                          ('01a1f643-05f0-7000-8000-000000000002', '2026-11-20 00:02:00Z'),
                          ('018a9eb6-a800-7000-8000-000000000003', '2026-11-20 00:00:30Z'))
                  AS b (id, measured),
                  LATERAL (SELECT measured::timestamptz, '2026-11-20 00:03:00Z'::timestamptz)
                  AS times (first_measured, t);
             INSERT INTO conflict (series_id, measured_at, stored_value, offered_value, batch_id)
             SELECT id, '2026-11-20 00:01:00Z', 60, 61, '01a1f643-05f0-7000-8000-000000000009'
             FROM series;
             INSERT INTO dead_letter (code, detail, batch_id, series_id, measured_at_us, value)
             SELECT 'value_not_finite', 'x', '01a1f643-05f0-7000-8000-000000000009', id,
                    extract(epoch FROM measured_at) * 1000000, 'NaN'
             FROM series, (VALUES ('2026-11-20 00:01:00Z'::timestamptz),
                                  ('2026-11-20 00:02:00Z'::timestamptz)) AS t (measured_at)",
        )
        .await
        .unwrap();
    let path = "GET /v1/readings/history?device=m&metric=p&time=2026-11-20T00:01:00Z";
    let (status, _, body) = api.send(path, &[]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["stored_value"], json!(60.0));
    let batches = &body["batches"];
    assert_eq!(batches["complete"], json!(true));
    assert_eq!(batches["entries"].as_array().unwrap().len(), 1, "{batches}");
    let batch = &batches["entries"][0];
    assert_eq!(
        batch["batch"],
        json!("01a1f643-05f0-7000-8000-000000000001")
    );
    assert_eq!(batch["persisted_at"], json!("2026-11-20T00:03:00.000000Z"));
    assert_eq!(body["conflicts"]["entries"][0]["offered_value"], json!(61));
    let letters = body["dead_letters"]["entries"].as_array().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["code"], json!("value_not_finite"));
    let path = "GET /v1/readings/history?device=m&metric=p&time=2026-11-20T00:09:00Z";
    let (_, _, body) = api.send(path, &[]).await;
    assert_eq!(body["stored_value"], Value::Null);
    for (query, status, text) in [
        ("device=m&metric=p", 400, "time is missing"),
        ("device=m&time=0", 400, "metric is missing"),
        ("device=m&metric=z&time=0", 404, "'z'"),
        ("device=x&metric=z&time=0", 404, "'x'"),
    ] {
        let path = format!("GET /v1/readings/history?{query}");
        let (found, _, body) = api.send(&path, &[]).await;
        assert_eq!(found.as_u16(), status, "{body}");
        assert!(body["detail"].as_str().unwrap().contains(text), "{body}");
    }
}

#[tokio::test]
async fn a_range_is_deleted_and_the_deletion_is_recorded() {
    let api = api().await;
    api.store(0, 100).await;
    let path = "DELETE /v1/readings?device=m&metric=p&from=2026-11-20T00:00:10Z\
                &to=2026-11-20T00:00:20Z";
    let (status, _, body) = api.send("POST /v1/daily", &[]).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{body}");
    assert_eq!(body["code"], "method_not_allowed");
    let (status, _, body) = api.send(path, &[("if-match", "\"1\"")]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let (status, _, body) = api.send(path, &[("x-actor", "ada")]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body, json!({ "deleted": { "readings": 10 }, "job": null }));
    let path = "GET /v1/readings?device=m&metric=p&from=2026-11-20&to=2026-11-21";
    let (_, _, body) = api.send(path, &[]).await;
    let points = body["series"][0]["points"].as_array().unwrap();
    assert_eq!((points.len(), &points[10]["value"]), (90, &json!(20.0)));
    let (_, _, body) = api.send("GET /v1/changes?entity=readings", &[]).await;
    let change = &body["changes"][0];
    assert_eq!(
        (&change["actor"], &change["entity_id"]),
        (&json!("ada"), &json!("m/p"))
    );
    let before = json!({
        "from": "2026-11-20T00:00:10.000000Z", "to": "2026-11-20T00:00:20.000000Z",
        "deleted": 10, "job": null
    });
    assert_eq!(change["before"], before);
    let path = "DELETE /v1/readings?device=m&metric=p";
    let (status, _, body) = api.send(path, &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn a_large_range_is_deleted_by_a_job() {
    let api = api().await;
    api.store(0, 12_500).await;
    let path = "DELETE /v1/readings?device=m&metric=p&from=2026-11-20T00:00:10Z&to=2026-11-21";
    let (status, headers, body) = api.send(path, &[]).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    assert_eq!(body["deleted"], json!({ "readings": 5_000 }));
    let path = format!("GET {}", headers[header::LOCATION].to_str().unwrap());
    let (_, _, job) = api.send(&path, &[]).await;
    assert_eq!(job["state"], json!("running"), "{job}");
    while jobs::run_slice(&testing::pool(&api.url, 1)).await.unwrap() {}
    let (_, _, job) = api.send(&path, &[]).await;
    assert_eq!(job["state"], json!("done"), "{job}");
    assert_eq!(job["action"], json!("delete_readings"));
    assert_eq!(job["deleted"]["readings"], json!(12_490));
    let count = api
        .client
        .query_one("SELECT count(*) FROM reading", &[])
        .await;
    assert_eq!(count.unwrap().get::<_, i64>(0), 10);
}

/// Reads a tail up to the next event of a name. Returns its id and its data.
async fn event(body: &mut Body, name: &str) -> (String, Value) {
    let mut text = String::new();
    let read = async {
        loop {
            for event in text.split_inclusive("\n\n") {
                let field = |field: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(field));
                    line.map(str::trim).unwrap_or_default().to_owned()
                };
                if event.ends_with("\n\n") && field("event:") == name {
                    return (field("id:"), serde_json::from_str(&field("data:")).unwrap());
                }
            }
            let frame = body.frame().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(testing::LIMIT, read).await.unwrap()
}

#[tokio::test]
async fn a_tail_shows_new_readings_and_resumes_where_it_ended() {
    let api = api().await;
    api.store(0, 10).await;
    let path = "GET /v1/readings/tail?device=m&metric=p";
    let response = api.respond(path, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    let mut body = response.into_body();
    api.store(10, 11).await;
    let (id, data) = event(&mut body, "readings").await;
    let expected = json!([{
        "device": "m", "metric": "p", "time": "2026-11-20T00:00:10Z", "value": 10.0
    }]);
    assert_eq!(data, expected);
    drop(body);
    api.store(11, 13).await;
    let headers = [("last-event-id", id.as_str())];
    let mut body = api.respond(path, &headers).await.into_body();
    let (_, data) = event(&mut body, "readings").await;
    let values: Vec<_> = data
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["value"])
        .collect();
    assert_eq!(values, [&json!(11.0), &json!(12.0)]);
    drop(body);
    // More than an hour later.
    api.store(7_200, 7_201).await;
    for id in [id.as_str(), "x", "1.2,3.4"] {
        let headers = [("last-event-id", id)];
        let mut body = api.respond(path, &headers).await.into_body();
        let (_, data) = event(&mut body, "reset").await;
        assert!(
            data["reason"].as_str().unwrap().contains("too old"),
            "{data}"
        );
    }
}

#[tokio::test]
async fn the_number_of_tails_has_a_bound_and_a_client_that_disconnects_frees_its_place() {
    let api = api().await;
    let path = "GET /v1/readings/tail?device=m";
    let mut tails = Vec::new();
    for _ in 0..MAX_TAILS {
        let response = api.respond(path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        tails.push(response);
    }
    let (status, _, body) = api.send(path, &[]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert_eq!(body["code"], json!("overloaded"));
    tails.pop();
    let freed = async {
        while api.respond(path, &[]).await.status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(testing::LIMIT, freed).await.unwrap();
    for (query, status) in [("", 400), ("device=x", 404), ("device=m&metric=z", 400)] {
        let (found, _, body) = api
            .send(&format!("GET /v1/readings/tail?{query}"), &[])
            .await;
        assert_eq!(found.as_u16(), status, "{body}");
    }
}

#[tokio::test]
async fn tails_end_with_the_stop_signal() {
    let api = api().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let router = super::routes_until(stop.clone(), testing::pool(&api.url, 2), Access::Open);
    let request = Request::get("/v1/readings/tail?device=m");
    let request = request.body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    stop.cancel();
    let ended = response.into_body().collect();
    tokio::time::timeout(testing::LIMIT, ended)
        .await
        .unwrap()
        .unwrap();
}

//! The routes on a real database.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use store::{Client, testing};
use tower::ServiceExt as _;

use super::routes;

/// A database with two devices: `m1` with a point per minute of a day from 2026-11-20 on, and `m2`
/// without points.
async fn router() -> Router {
    router_and_client().await.0
}

async fn router_and_client() -> (Router, Client) {
    let url = testing::create_database().await;
    let client = testing::connect(&url).await;
    client
        .batch_execute(
            "INSERT INTO device (external_id) VALUES ('m1'), ('m2'), ('m3');
             INSERT INTO series (device_id, metric, unit)
             SELECT id, metric, 'W' FROM device, unnest(ARRAY['p', 'q']) AS metric
             WHERE external_id <> 'm3';
             SELECT gridwatch_create_reading_day('2026-11-20');
             INSERT INTO reading
             SELECT s.id, '2026-11-20T00:00:00Z'::timestamptz + n * interval '1 minute', n
             FROM generate_series(0, 1439) n, series s JOIN device d ON d.id = device_id
             WHERE external_id = 'm1' AND metric = 'p'",
        )
        .await
        .unwrap();
    (routes(testing::pool(&url, 2)), client)
}

async fn get(router: &Router, path: &str) -> (StatusCode, String, Option<String>) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let collected = response.into_body().collect().await.unwrap();
    let rows = collected
        .trailers()
        .and_then(|trailers| trailers.get("gridwatch-rows"));
    let rows = rows.map(|rows| rows.to_str().unwrap().to_owned());
    let bytes = collected.to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap(), rows)
}

async fn get_json(router: &Router, path: &str) -> Value {
    let (status, text, _) = get(router, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

const DAY: &str = "from=2026-11-20T00:00:00Z&to=2026-11-21";

#[tokio::test]
async fn points_are_read_in_every_format_and_each_proves_that_it_is_complete() {
    let router = router().await;
    let path = format!("/v1/readings?device=m1&metric=p&{DAY}");
    let body = get_json(&router, &path).await;
    let series = &body["series"][0];
    assert_eq!(
        (&series["device"], &series["unit"]),
        (&json!("m1"), &json!("W"))
    );
    let points = series["points"].as_array().unwrap();
    assert_eq!(points.len(), 1_440);
    assert_eq!(
        points[1],
        json!({ "time": "2026-11-20T00:01:00Z", "value": 1.0 })
    );
    assert_eq!(body["next"], Value::Null);

    let (_, text, rows) = get(&router, &format!("{path}&format=ndjson")).await;
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1_441);
    let expected = json!({
        "device": "m1", "metric": "p", "time": "2026-11-20T00:00:00Z", "value": 0.0
    });
    assert_eq!(lines[0], expected);
    assert_eq!(
        lines[1_440],
        json!({ "end": true, "rows": 1_440, "next": null })
    );
    assert_eq!(rows.as_deref(), Some("1440"));

    let (_, text, rows) = get(&router, &format!("{path}&format=csv")).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "device,metric,time,value");
    assert_eq!(lines[1_440], "m1,p,2026-11-20T23:59:00Z,1439.0");
    assert_eq!(rows.as_deref(), Some("1440"));
}

#[tokio::test]
async fn pages_in_both_orders_return_each_point_once() {
    let router = router().await;
    for order in ["asc", "desc"] {
        let first = format!("/v1/readings?device=m1&device=m2&{DAY}&order={order}&limit=500");
        let (mut path, mut values) = (first.clone(), Vec::new());
        loop {
            let body = get_json(&router, &path).await;
            for series in body["series"].as_array().unwrap() {
                let points = series["points"].as_array().unwrap();
                values.extend(points.iter().map(|point| point["value"].as_f64().unwrap()));
            }
            match body["next"].as_str() {
                Some(next) => path = format!("{first}&next={next}"),
                None => break,
            }
        }
        let mut expected: Vec<f64> = (0..1_440).map(f64::from).collect();
        if order == "desc" {
            expected.reverse();
        }
        assert_eq!(values, expected, "{order}");
    }
}

#[tokio::test]
async fn a_position_whose_series_is_gone_is_an_error_and_not_the_end() {
    let (router, client) = router_and_client().await;
    let path = format!("/v1/readings?device=m1&device=m2&metric=p&{DAY}&limit=500");
    let body = get_json(&router, &path).await;
    let next = body["next"].as_str().unwrap();
    let sql = "DELETE FROM reading WHERE series_id = $1::text::integer";
    let series = next.split('.').next().unwrap();
    client.execute(sql, &[&series]).await.unwrap();
    let sql = "DELETE FROM series WHERE id = $1::text::integer";
    client.execute(sql, &[&series]).await.unwrap();
    client
        .batch_execute(
            "INSERT INTO series (device_id, metric) SELECT id, 'p' FROM device
                        WHERE external_id = 'm1'",
        )
        .await
        .unwrap();
    let (status, text, _) = get(&router, &format!("{path}&next={next}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    assert!(text.contains("start again without next"), "{text}");
}

#[tokio::test]
async fn a_position_outside_of_the_range_is_an_error() {
    let router = router().await;
    let path = format!("/v1/readings?device=m1&metric=p&{DAY}&limit=1");
    let body = get_json(&router, &path).await;
    let series = body["next"].as_str().unwrap().split('.').next().unwrap();
    for time in [i64::MIN, 0, i64::MAX] {
        let (status, text, _) = get(&router, &format!("{path}&next={series}.{time}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        assert!(text.contains("outside of the range"), "{text}");
    }
}

#[tokio::test]
async fn buckets_are_what_sql_computes() {
    let router = router().await;
    let aggregates = "min,q1,median,q3,max,mean,sum,first,last";
    let path =
        format!("/v1/readings?device=m1&metric=p&{DAY}&resolution=15m&aggregates={aggregates}");
    let body = get_json(&router, &path).await;
    let buckets = body["series"][0]["points"].as_array().unwrap();
    assert_eq!(buckets.len(), 96);
    let expected = json!({
        "start": "2026-11-20T00:15:00Z", "end": "2026-11-20T00:30:00Z", "count": 15,
        "coverage": null,
        "min": 15.0, "q1": 18.5, "median": 22.0, "q3": 25.5, "max": 29.0, "mean": 22.0,
        "sum": 330.0, "first": 15.0, "last": 29.0
    });
    assert_eq!(buckets[1], expected);
    let path = format!("/v1/readings?device=m1&metric=p&{DAY}&max_points=30");
    let body = get_json(&router, &path).await;
    assert_eq!(body["series"][0]["points"].as_array().unwrap().len(), 24);
}

#[tokio::test]
async fn a_day_is_one_of_the_time_zone() {
    let router = router().await;
    let body = get_json(
        &router,
        "/v1/daily?device=m1&metric=p&from=2026-11-20&to=2026-11-22&time_zone=Europe/Berlin",
    )
    .await;
    let days = body["series"][0]["points"].as_array().unwrap();
    let summary: Vec<_> = days
        .iter()
        .map(|day| {
            (
                day["start"].as_str().unwrap(),
                day["count"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("2026-11-19T23:00:00Z", 1_380),
        ("2026-11-20T23:00:00Z", 60),
    ];
    assert_eq!(summary, expected);
    assert_eq!(days[0]["median"], json!(689.5));
}

#[tokio::test]
async fn lists_are_paged_and_complete() {
    let router = router().await;
    let first = get_json(&router, "/v1/devices?limit=2").await;
    assert_eq!(first["next"], json!("m2"));
    let second = get_json(&router, "/v1/devices?limit=2&next=m2").await;
    assert_eq!(
        (&second["devices"][0]["device"], &second["next"]),
        (&json!("m3"), &Value::Null)
    );
    assert_eq!(second["devices"][0]["series"], json!([]));
    let device = get_json(&router, "/v1/devices/m1").await;
    let series = json!([
        { "metric": "p", "unit": "W", "kind": "gauge" },
        { "metric": "q", "unit": "W", "kind": "gauge" }
    ]);
    assert_eq!(device["series"], series);
    let latest = get_json(&router, "/v1/latest").await;
    let expected = json!([{
        "device": "m1", "metric": "p", "unit": "W", "time": "2026-11-20T23:59:00Z",
        "value": 1439.0
    }]);
    assert_eq!(latest["latest"], expected);
    for path in [
        "/v1/conflicts",
        "/v1/dead-letters",
        &format!("/v1/latency?{DAY}"),
    ] {
        let body = get_json(&router, path).await;
        assert_eq!(body["next"], Value::Null, "{path}");
    }
}

#[tokio::test]
async fn mistakes_are_refused_with_a_sentence_that_names_them() {
    let router = router().await;
    for (path, status, code, text) in [
        (
            "/v1/readings?device=m1&from=0&to=9223372036854775&resolution=1h",
            400,
            "bad_query",
            "is not a time",
        ),
        (
            "/v1/readings?device=%00&DAY",
            404,
            "unknown_device",
            "no device",
        ),
        ("/v1/readings", 400, "bad_query", "device is missing"),
        (
            "/v1/readings?device=m1",
            400,
            "bad_query",
            "from is missing",
        ),
        (
            "/v1/readings?device=m1&from=x&to=2026-11-21",
            400,
            "bad_query",
            "'x' is not a time",
        ),
        (
            "/v1/readings?device=m1&from=2026-11-21&to=2026-11-20",
            400,
            "bad_query",
            "empty",
        ),
        ("/v1/readings?device=m9&DAY", 404, "unknown_device", "'m9'"),
        (
            "/v1/readings?device=m1&metric=z&DAY",
            404,
            "unknown_series",
            "'z'",
        ),
        (
            "/v1/readings?device=m1&DAY&resolution=1y",
            400,
            "bad_query",
            "'1y'",
        ),
        (
            "/v1/readings?device=m1&DAY&aggregates=min",
            400,
            "bad_query",
            "need a resolution",
        ),
        (
            "/v1/readings?device=m1&DAY&metrics=p",
            400,
            "bad_query",
            "'metrics' is not",
        ),
        (
            "/v1/readings?device=m1&DAY&limit=0",
            400,
            "bad_query",
            "'0'",
        ),
        (
            "/v1/readings?device=m1&DAY&limit=1&limit=2",
            400,
            "bad_query",
            "2 times",
        ),
        (
            "/v1/readings?device=m1&DAY&next=1",
            400,
            "bad_query",
            "'1' is not a position",
        ),
        (
            "/v1/readings?device=m1&DAY&format=xml",
            400,
            "bad_query",
            "'xml'",
        ),
        (
            "/v1/readings?device=m1&DAY&time_zone=Mars",
            400,
            "bad_query",
            "'Mars'",
        ),
        (
            "/v1/readings?device=m1&DAY&order=up",
            400,
            "bad_query",
            "'up'",
        ),
        (
            "/v1/readings?device=m1&DAY&resolution=1s&fill=zero",
            400,
            "bad_query",
            "'zero'",
        ),
        (
            "/v1/readings?device=m1&from=1990-01-01&to=2026-01-01&resolution=1s",
            400,
            "bad_query",
            "buckets",
        ),
        ("/v1/devices/m9", 404, "unknown_device", "'m9'"),
        (
            "/v1/latency?from=2026-01-01&to=2026-12-01",
            400,
            "bad_query",
            "31 days",
        ),
    ] {
        let path = path.replace("DAY", DAY);
        let (found, body, _) = get(&router, &path).await;
        assert_eq!(found.as_u16(), status, "{path}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["code"], code, "{path}: {body}");
        let detail = body["detail"].as_str().unwrap();
        assert!(
            detail.contains(text),
            "{path}: expected {text:?} in {detail:?}"
        );
    }
}

#[tokio::test]
async fn a_database_that_is_down_is_a_503_and_not_an_empty_result() {
    let router = routes(testing::pool("postgres://x@127.0.0.1:1/none", 1));
    let (status, body, _) = get(&router, &format!("/v1/readings?device=m1&{DAY}")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("database_unavailable"), "{body}");
}

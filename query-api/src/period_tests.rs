//! Local days in the time zone of devices, and comparisons of two periods, on a real database.

use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampMicrosecondType;
use arrow_ipc::reader::StreamReader;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use store::testing;
use tower::ServiceExt as _;

use super::routes;

const STATION: &str = "00000000-0000-0000-0000-000000000001";
const ELSEWHERE: &str = "00000000-0000-0000-0000-000000000002";

/// `a` and `b` are below a station in Berlin, `c` in Lisbon, `d` nowhere. Each has a reading per
/// hour from 2026-10-17 on, for 16 days. In Berlin, October 25 has 25 hours.
async fn grid() -> Router {
    let url = testing::create_database().await;
    let client = testing::connect(&url).await;
    client
        .batch_execute(&format!(
            "INSERT INTO component (id, kind, parent, name, time_zone) VALUES
                 ('{STATION}', 'station', NULL, 's', 'Europe/Berlin'),
                 ('{ELSEWHERE}', 'station', NULL, 'o', 'Europe/Lisbon'),
                 ('00000000-0000-0000-0000-000000000003', 'transformer', '{STATION}', 't', NULL);
             INSERT INTO device (external_id, component) VALUES
                 ('a', '{STATION}'), ('b', '00000000-0000-0000-0000-000000000003'),
                 ('c', '{ELSEWHERE}'), ('d', NULL);
             UPDATE placement SET valid_from = '-infinity';
             INSERT INTO series (device_id, metric, unit) SELECT id, 'p', 'W' FROM device;
             SELECT gridwatch_create_reading_day(date '2026-10-17' + n)
             FROM generate_series(0, 15) n;
             INSERT INTO reading
             SELECT s.id, '2026-10-17T00:00:00Z'::timestamptz + n * interval '1 hour', n
             FROM generate_series(0, 383) n, series s"
        ))
        .await
        .unwrap();
    routes(testing::pool(&url, 2))
}

async fn send(router: &Router, line: &str) -> (StatusCode, Bytes) {
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

async fn get_text(router: &Router, path: &str) -> String {
    let (status, body) = send(router, &format!("GET {path}")).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    text
}

async fn get_json(router: &Router, path: &str) -> Value {
    serde_json::from_str(&get_text(router, path).await).unwrap()
}

const DAY: &str = "from=2026-10-25&to=2026-10-26";

#[tokio::test]
async fn days_of_devices_are_those_of_their_component_if_all_agree() {
    let router = grid().await;
    let local = ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25);
    let utc = ("2026-10-25T00:00:00Z", "2026-10-26T00:00:00Z", 24);
    for (devices, expected) in [
        ("device=a", local),
        ("device=b", local),
        ("device=a&device=b", local),
        ("device=a&device=c", utc),
        ("device=a&device=d", utc),
        ("device=d", utc),
        ("device=a&time_zone=UTC", utc),
        ("device=d&time_zone=Europe/Berlin", local),
    ] {
        let body = get_json(&router, &format!("/v1/daily?{devices}&{DAY}")).await;
        for series in body["series"].as_array().unwrap() {
            let days = series["points"].as_array().unwrap();
            assert_eq!(days.len(), 1, "{devices}: {body}");
            let found = (&days[0]["start"], &days[0]["end"], &days[0]["count"]);
            let expected = (&json!(expected.0), &json!(expected.1), &json!(expected.2));
            assert_eq!(found, expected, "{devices}");
        }
    }
    let (_, body) = send(
        &router,
        &format!("DELETE /v1/readings?device=a&metric=p&{DAY}"),
    )
    .await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["deleted"]["readings"], json!(25));
}

const COMPARED: &str = "metric=p&from=2026-10-25&to=2026-10-27&resolution=1d\
                        &aggregates=min,count&compare=7d";

#[tokio::test]
async fn each_local_day_stands_beside_one_of_the_period_before() {
    let router = grid().await;
    let path = format!("/v1/readings?device=a&{COMPARED}");
    let body = get_json(&router, &path).await;
    let point = |start, end, beside, count, min| {
        let (start, end) = (
            format!("2026-10-{start}:00:00Z"),
            format!("2026-10-{end}:00:00Z"),
        );
        let beside = format!("2026-10-{beside}:00:00Z");
        json!({ "start": start, "end": end, "beside": beside, "count": count, "coverage": null,
                "min": min })
    };
    let series = |period, points| {
        json!({
            "device": "a", "metric": "p", "unit": "W", "period": period, "points": points
        })
    };
    let expected = [
        series(
            "current",
            json!([
                point("24T22", "25T23", "24T22", 25, 190.0),
                point("25T23", "26T23", "25T23", 24, 215.0)
            ]),
        ),
        series(
            "previous",
            json!([
                point("17T22", "18T22", "24T22", 24, 22.0),
                point("18T22", "19T22", "25T23", 24, 46.0)
            ]),
        ),
    ];
    assert_eq!(body, json!({ "series": expected, "next": null }));

    let text = get_text(&router, &format!("{path}&format=csv")).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(
        lines[0],
        "device,metric,period,start,end,beside,count,coverage,min"
    );
    let line = "a,p,previous,2026-10-18T22:00:00Z,2026-10-19T22:00:00Z,2026-10-25T23:00:00Z,24,,\
                46.0";
    assert_eq!(lines[4], line);

    let text = get_text(&router, &format!("{path}&format=ndjson")).await;
    let line: Value = serde_json::from_str(text.lines().nth(3).unwrap()).unwrap();
    let found = (&line["period"], &line["beside"]);
    assert_eq!(found, (&json!("previous"), &json!("2026-10-25T23:00:00Z")));

    let (_, body) = send(&router, &format!("GET {path}&format=arrow")).await;
    let batch = StreamReader::try_new(&*body, None)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let periods = batch.column_by_name("period").unwrap().as_string::<i32>();
    let periods: Vec<_> = periods.iter().flatten().collect();
    assert_eq!(periods, ["current", "current", "previous", "previous"]);
    let beside = batch.column_by_name("beside").unwrap();
    let beside = beside.as_primitive::<TimestampMicrosecondType>();
    assert_eq!(beside.value(0), beside.value(2));
    assert_eq!(beside.value(1), beside.value(3));
}

#[tokio::test]
async fn an_hour_that_exists_twice_has_one_partner() {
    let router = grid().await;
    let path = "/v1/readings?device=a&from=2026-10-26&to=2026-10-27&resolution=1h&compare=1d";
    let body = get_json(&router, path).await;
    let previous = body["series"][1]["points"].as_array().unwrap();
    assert_eq!(previous.len(), 25);
    let alone = previous.iter().filter(|point| point["beside"].is_null());
    let alone: Vec<_> = alone.map(|point| &point["start"]).collect();
    assert_eq!(alone, [&json!("2026-10-25T01:00:00Z")]);
    let text = get_text(&router, &format!("{path}&format=csv")).await;
    let line = "a,p,previous,2026-10-25T01:00:00Z,2026-10-25T02:00:00Z,,1,,193.0";
    assert!(text.lines().any(|own| own == line), "{text}");
}

#[tokio::test]
async fn the_sum_of_a_subtree_is_compared_with_that_of_the_period_before() {
    let router = grid().await;
    let path = format!("/v1/readings?component={STATION}&combine=sum&{COMPARED}");
    let body = get_json(&router, &path.replace("min,count", "sum")).await;
    let series = body["series"].as_array().unwrap();
    assert_eq!(series.len(), 2);
    for (series, period, count, first) in [
        (&series[0], "current", 50, 190),
        (&series[1], "previous", 48, 22),
    ] {
        assert_eq!(
            (&series["component"], &series["period"]),
            (&json!(STATION), &json!(period))
        );
        let point = &series["points"][0];
        let sum = (first..first + count / 2).sum::<i32>() * 2;
        let found = (
            &point["count"],
            &point["of"],
            &point["sum"],
            &point["beside"],
        );
        let beside = json!("2026-10-24T22:00:00Z");
        assert_eq!(
            found,
            (&json!(count), &json!(2), &json!(f64::from(sum)), &beside)
        );
    }
}

#[tokio::test]
async fn comparisons_that_mean_nothing_are_refused() {
    let router = grid().await;
    for (query, text) in [
        ("compare=7d", "compare needs a resolution"),
        ("compare=1w&resolution=1d", "'1w'"),
        ("compare=0d&resolution=1d", "'0d'"),
        ("compare=7d&resolution=2d", "multiple"),
        ("compare=12h&resolution=1d", "multiple"),
    ] {
        let line = format!("GET /v1/readings?device=a&{DAY}&{query}");
        let (status, body) = send(&router, &line).await;
        let text_of = String::from_utf8_lossy(&body);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {text_of}");
        assert!(text_of.contains(text), "{query}: {text_of}");
    }
}

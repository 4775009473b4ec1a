//! Readings of a subtree of components, and sums of them, on a real database.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use store::testing;
use tower::ServiceExt as _;

use super::routes;

const STATION: &str = "00000000-0000-0000-0000-000000000001";
const OTHER: &str = "00000000-0000-0000-0000-000000000002";

/// Two stations. `a` and `b` are below a transformer of the first one. `b` was moved to the other
/// station at 00:30, and its meter with it. `c` has been in the other station all the time. Each
/// has a point per minute of the first hour: the power 10, and a register that grows by 1.
async fn grid() -> (Router, String) {
    let url = testing::create_database().await;
    let client = testing::connect(&url).await;
    client
        .batch_execute(&format!(
            "INSERT INTO component (id, kind, parent, name, time_zone) VALUES
                 ('{STATION}', 'station', NULL, 's', 'Europe/Berlin'),
                 ('{OTHER}', 'station', NULL, 'o', NULL),
                 ('00000000-0000-0000-0000-000000000003', 'transformer', '{STATION}', 't', NULL);
             INSERT INTO device (external_id, component, expected_interval) VALUES
                 ('a', '00000000-0000-0000-0000-000000000003', 60),
                 ('b', '00000000-0000-0000-0000-000000000003', 60),
                 ('c', '{OTHER}', NULL);
             UPDATE device SET component = '{OTHER}' WHERE external_id = 'b';
             UPDATE placement SET valid_to = '2026-11-20T00:30:00Z' WHERE valid_to < 'infinity';
             UPDATE placement SET valid_from = '2026-11-20T00:30:00Z'
             WHERE valid_from > '-infinity';
             INSERT INTO series (device_id, metric, unit, kind)
             SELECT id, metric, metric || 'unit', kind FROM device,
                 (VALUES ('p', 'gauge'), ('e', 'counter')) AS metric (metric, kind);
             SELECT gridwatch_create_reading_day('2026-11-20');
             INSERT INTO reading
             SELECT s.id, '2026-11-20T00:00:00Z'::timestamptz + n * interval '1 minute',
                    CASE metric WHEN 'p' THEN 10 ELSE n END
             FROM generate_series(0, 60) n, series s"
        ))
        .await
        .unwrap();
    (routes(testing::pool(&url, 2)), url)
}

async fn get(router: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn get_json(router: &Router, path: &str) -> Value {
    let (status, text) = get(router, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

const HOUR: &str = "from=2026-11-20T00:00:00Z&to=2026-11-20T01:00:00Z";

/// Each series of a response, with the number of its points and the first and last time.
fn summary(body: &Value) -> Vec<(String, usize, String, String)> {
    let series = body["series"].as_array().unwrap().iter();
    let summary = series.map(|series| {
        let points = series["points"].as_array().unwrap();
        let time = |point: Option<&Value>| point.unwrap()["time"].as_str().unwrap()[11..16].into();
        let name = series["device"].as_str().unwrap().into();
        (
            name,
            points.len(),
            time(points.first()),
            time(points.last()),
        )
    });
    summary.collect()
}

fn rows(expected: &[(&str, usize, &str, &str)]) -> Vec<(String, usize, String, String)> {
    let row = |row: &(&str, usize, &str, &str)| (row.0.into(), row.1, row.2.into(), row.3.into());
    expected.iter().map(row).collect()
}

#[tokio::test]
async fn a_device_counts_while_it_was_in_the_subtree() {
    let (router, _) = grid().await;
    for (component, topology, expected) in [
        (
            STATION,
            "",
            vec![("a", 60, "00:00", "00:59"), ("b", 30, "00:00", "00:29")],
        ),
        (
            OTHER,
            "",
            vec![("b", 30, "00:30", "00:59"), ("c", 60, "00:00", "00:59")],
        ),
        (STATION, "&topology=now", vec![("a", 60, "00:00", "00:59")]),
        (
            OTHER,
            "&topology=now",
            vec![("b", 60, "00:00", "00:59"), ("c", 60, "00:00", "00:59")],
        ),
    ] {
        let path = format!("/v1/readings?component={component}&metric=p&{HOUR}{topology}");
        let body = get_json(&router, &path).await;
        assert_eq!(summary(&body), rows(&expected), "{path}");
        // Pages return the same.
        let (mut next, mut count) = (String::new(), 0);
        loop {
            let page = get_json(&router, &format!("{path}&order=desc&limit=25{next}")).await;
            let series = page["series"].as_array().unwrap().iter();
            count += series
                .map(|own| own["points"].as_array().unwrap().len())
                .sum::<usize>();
            match page["next"].as_str() {
                Some(position) => next = format!("&next={position}"),
                None => break,
            }
        }
        assert_eq!(
            count,
            expected.iter().map(|own| own.1).sum::<usize>(),
            "{path}"
        );
    }
}

#[tokio::test]
async fn sums_of_both_stations_add_up_to_the_sum_of_all_devices() {
    let (router, _) = grid().await;
    let sum = async |component: &str, metric: &str| {
        let path = format!(
            "/v1/readings?component={component}&metric={metric}&{HOUR}&resolution=20m&combine=sum"
        );
        let body = get_json(&router, &path).await;
        body["series"][0].clone()
    };
    let power = sum(STATION, "p").await;
    assert_eq!(power["component"], json!(STATION));
    assert_eq!(power["unit"], json!("punit"));
    let expected = json!([
        { "start": "2026-11-20T00:00:00Z", "end": "2026-11-20T00:20:00Z", "count": 40,
          "coverage": 1.0, "contributing": 2, "of": 2, "mean": 20.0 },
        { "start": "2026-11-20T00:20:00Z", "end": "2026-11-20T00:40:00Z", "count": 30,
          "coverage": 1.0, "contributing": 2, "of": 2, "mean": 15.0 },
        { "start": "2026-11-20T00:40:00Z", "end": "2026-11-20T01:00:00Z", "count": 20,
          "coverage": 1.0, "contributing": 1, "of": 1, "mean": 10.0 },
    ]);
    assert_eq!(power["points"], expected);
    for (metric, aggregate, total) in [("p", "mean", 30.0), ("e", "increase", 60.0)] {
        let (first, second) = (sum(STATION, metric).await, sum(OTHER, metric).await);
        for bucket in 0..3 {
            let value = |series: &Value| series["points"][bucket][aggregate].as_f64().unwrap();
            let found = value(&first) + value(&second);
            assert!((found - total).abs() < 1e-9, "{metric} {bucket}: {found}");
        }
    }
    let path = format!("/v1/readings?component={STATION}&metric=e&{HOUR}&resolution=1h");
    let (_, csv) = get(&router, &format!("{path}&combine=sum&format=csv")).await;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "component,metric,start,end,count,coverage,contributing,of,increase"
    );
    let row = "e,2026-11-20T00:00:00Z,2026-11-20T01:00:00Z,90,1.0,2,2,90.0";
    assert_eq!(lines[1], format!("{STATION},{row}"));
}

#[tokio::test]
async fn dates_and_days_of_a_component_are_those_of_its_time_zone() {
    let (router, _) = grid().await;
    for (zone, start) in [
        ("", "2026-11-19T23:00:00Z"),
        ("&time_zone=UTC", "2026-11-20T00:00:00Z"),
    ] {
        let path =
            format!("/v1/daily?component={STATION}&metric=p&from=2026-11-20&to=2026-11-21{zone}");
        let body = get_json(&router, &path).await;
        assert_eq!(body["series"][0]["points"][0]["start"], json!(start));
    }
}

#[tokio::test]
async fn performance_compares_the_sum_with_the_targets_of_each_time() {
    let (router, url) = grid().await;
    let client = testing::connect(&url).await;
    client
        .batch_execute(
            "INSERT INTO target (series_id, starts_at, value)
             SELECT s.id, starts_at::timestamptz, value FROM series s
             JOIN device d ON d.id = device_id
             JOIN (VALUES ('a', 'p', '2026-01-01T00:00:00Z', 20),
                          ('a', 'p', '2026-11-20T00:10:00Z', 30),
                          ('a', 'p', '2026-11-20T00:40:00Z', NULL),
                          ('b', 'p', '2026-11-20T00:00:00Z', 5),
                          ('a', 'e', '2026-11-20T00:00:00Z', 120))
                  AS t (device, metric, starts_at, value)
             ON t.device = d.external_id AND t.metric = s.metric",
        )
        .await
        .unwrap();
    let path = format!("/v1/components/{STATION}/performance?metric=p&{HOUR}&resolution=20m");
    let body = get_json(&router, &path).await;
    assert_eq!(body["time"].as_array().unwrap().len(), 3);
    assert_eq!(body["actual"], json!([20.0, 15.0, 10.0]));
    // b counts half of the second bucket.
    assert_eq!(body["goal"], json!([30.0, 32.5, null]));
    assert_eq!(body["ratio"][2], Value::Null);
    assert!((body["ratio"][0].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9);
    assert_eq!(
        (&body["contributing"], &body["of"]),
        (&json!([2, 2, 1]), &json!([2, 2, 1]))
    );
    // A target of a counter is an increase per hour.
    let path = path.replace("metric=p", "metric=e");
    let body = get_json(&router, &path).await;
    assert_eq!(body["goal"], json!([40.0, 40.0, 40.0]));
    assert_eq!(body["ratio"][2], json!(0.5));
}

#[tokio::test]
async fn mistakes_in_sums_are_refused_with_a_sentence_that_names_them() {
    let (router, url) = grid().await;
    let client = testing::connect(&url).await;
    let sql = "UPDATE series SET unit = 'other' WHERE metric = 'e' AND device_id =
               (SELECT id FROM device WHERE external_id = 'a')";
    client.batch_execute(sql).await.unwrap();
    let unknown = "00000000-0000-0000-0000-000000000009";
    for (path, status, text) in [
        ("component=1&DAY", 400, "'1' is not an id"),
        ("component=UNKNOWN&DAY", 404, "no component"),
        ("component=STATION&device=a&DAY", 400, "exclude each other"),
        ("component=STATION&topology=old&DAY", 400, "'old'"),
        (
            "device=a&topology=now&DAY",
            400,
            "'topology' is not a parameter",
        ),
        (
            "component=STATION&metric=p&DAY&combine=sum",
            400,
            "needs a resolution",
        ),
        (
            "component=STATION&DAY&combine=sum&resolution=1h",
            400,
            "a metric",
        ),
        (
            "device=a&metric=p&DAY&combine=sum&resolution=1h",
            400,
            "needs a component",
        ),
        ("component=STATION&metric=p&DAY&combine=max", 400, "'max'"),
        (
            "component=STATION&metric=p&DAY&combine=sum&resolution=1h&aggregates=median",
            400,
            "'median' of devices cannot be added",
        ),
        (
            "component=STATION&metric=e&DAY&combine=sum&resolution=1h",
            400,
            "units differ",
        ),
        (
            "component=STATION&metric=p&from=2026-01-01&to=2026-12-01&combine=sum&resolution=1m",
            400,
            "at most 50000 are added up",
        ),
        (
            "device=a&DAY&resolution=1h&max_gap=1h",
            400,
            "max_gap is for",
        ),
        (
            "device=a&DAY&resolution=1h&fill=linear&max_gap=1",
            400,
            "'1' is not a length of time",
        ),
    ] {
        let path = path.replace("DAY", HOUR).replace("STATION", STATION);
        let path = format!("/v1/readings?{}", path.replace("UNKNOWN", unknown));
        let (found, body) = get(&router, &path).await;
        assert_eq!(found.as_u16(), status, "{path}: {body}");
        assert!(body.contains(text), "{path}: expected {text:?} in {body}");
    }
    for (id, query, status, text) in [
        ("x", "metric=p", 404, "no component"),
        (STATION, "resolution=1h", 400, "metric is missing"),
        (STATION, "metric=p", 400, "resolution is missing"),
        (STATION, "metric=p&resolution=1h&device=a", 400, "'device'"),
    ] {
        let path = format!("/v1/components/{id}/performance?{query}&{HOUR}");
        let (found, body) = get(&router, &path).await;
        assert_eq!(found.as_u16(), status, "{path}: {body}");
        assert!(body.contains(text), "{path}: expected {text:?} in {body}");
    }
}

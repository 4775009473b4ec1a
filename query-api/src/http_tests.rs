//! What every route has in common: who may send requests, request ids, and names in paths.

use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::Value;
use store::testing;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{Access, routes, routes_until};

/// Routes whose database is down.
fn without_database(access: Access) -> Router {
    let pool = testing::pool("postgres://x@127.0.0.1:1/none", 1);
    routes_until(CancellationToken::new(), pool, access)
}

async fn send(router: &Router, line: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

const UNAVAILABLE: (u16, &str) = (503, "database_unavailable");
const HOST: (u16, &str) = (403, "forbidden_host");
const ORIGIN: (u16, &str) = (403, "forbidden_origin");

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    for (access, host, origin, expected) in [
        (Access::Loopback, "localhost:8090", None, UNAVAILABLE),
        (Access::Loopback, "127.0.0.1", None, UNAVAILABLE),
        (Access::Loopback, "[::1]:8090", None, UNAVAILABLE),
        (Access::Loopback, "evil.example", None, HOST),
        (Access::Loopback, "127.0.0.1.evil.example:80", None, HOST),
        (Access::Loopback, "", None, HOST),
        (
            Access::Loopback,
            "localhost:8090",
            Some("http://127.0.0.1:3000"),
            UNAVAILABLE,
        ),
        (
            Access::Loopback,
            "localhost:8090",
            Some("http://evil.example"),
            ORIGIN,
        ),
        (Access::Loopback, "localhost:8090", Some("null"), ORIGIN),
        (Access::Open, "evil.example", None, UNAVAILABLE),
        (
            Access::Open,
            "grid.example:80",
            Some("http://GRID.example:80"),
            UNAVAILABLE,
        ),
        (
            Access::Open,
            "grid.example",
            Some("http://evil.example"),
            ORIGIN,
        ),
        (Access::Open, "grid.example", Some("null"), ORIGIN),
    ] {
        let router = without_database(access);
        let mut headers = vec![("host", host)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        for line in ["GET /v1/devices", "DELETE /v1/devices/m"] {
            let found = code(send(&router, line, &headers, "").await).await;
            let expected = (expected.0, expected.1.to_owned());
            assert_eq!(found, expected, "{access:?} {host} {origin:?} {line}");
        }
    }
    let router = without_database(Access::Loopback);
    let found = code(send(&router, "GET /v1/devices", &[], "").await).await;
    assert_eq!(found.1, "forbidden_host");
    let line = "GET http://evil.example/v1/devices";
    let found = code(send(&router, line, &[("host", "localhost")], "").await).await;
    assert_eq!(found.1, "forbidden_host");
}

#[tokio::test]
async fn bodies_that_a_form_of_another_site_can_send_are_refused() {
    let router = without_database(Access::Loopback);
    let body = r#"{"device": "m"}"#;
    for line in [
        "POST /v1/devices",
        "PUT /v1/devices/m",
        "PATCH /v1/devices/m",
    ] {
        for media_type in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("multipart/form-data"),
        ] {
            let mut headers = vec![("host", "localhost")];
            headers.extend(media_type.map(|own| ("content-type", own)));
            let found = code(send(&router, line, &headers, body).await).await;
            let expected = (415, "unsupported_media_type".to_owned());
            assert_eq!(found, expected, "{line} {media_type:?}");
        }
        let headers = [("host", "localhost"), ("content-type", "application/json")];
        let (status, code) = code(send(&router, line, &headers, body).await).await;
        assert_eq!(status, 503, "{line}: {code}");
    }
}

/// Collects log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_response_has_the_id_of_its_request_and_so_has_the_log() {
    let (log, router) = (Log::default(), without_database(Access::Open));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let long = "x".repeat(129);
    let id = |response: &Response| {
        let id = response.headers()["x-request-id"].to_str().unwrap();
        id.to_owned()
    };
    for (line, status) in [
        ("GET /v1/devices", 503),
        ("GET /v1/readings?device=m&from=0&to=1", 503),
        ("GET /v1/devices?x=1", 400),
        ("GET /v1/devices/a%00b", 404),
    ] {
        let headers = [("x-request-id", "ticket-1")];
        let response = send(&router, line, &headers, "").await;
        assert_eq!(response.status().as_u16(), status, "{line}");
        assert_eq!(id(&response), "ticket-1", "{line}");
        for bad in ["", "a b", &long] {
            let response = send(&router, line, &[("x-request-id", bad)], "").await;
            let id = id(&response).parse::<uuid::Uuid>().unwrap();
            assert_eq!(id.get_version_num(), 7, "{line}");
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let mut lines = log.lines().filter(|line| line.contains("a query failed"));
    assert!(lines.clone().count() > 0, "{log}");
    assert!(
        lines.clone().all(|line| line.contains("request{id=")),
        "{log}"
    );
    assert!(lines.any(|line| line.contains("ticket-1")), "{log}");
}

#[tokio::test]
async fn a_name_that_nothing_can_have_is_not_found_in_every_path() {
    let url = testing::create_database().await;
    let router = routes(testing::pool(&url, 2));
    let mut paths = vec![
        "/v1/jobs/NAME".to_owned(),
        "/v1/components/NAME/performance".into(),
    ];
    for list in ["kinds", "components", "devices", "types", "customers"] {
        paths.push(format!("/v1/{list}/NAME"));
    }
    for path in [
        "NAME/series",
        "NAME/series/p",
        "m/series/NAME",
        "NAME/series/p/targets",
        "m/series/NAME/targets",
        "NAME/series/p/targets/2026-11-21T00:00:00Z",
        "m/series/NAME/targets/2026-11-21T00:00:00Z",
        "m/series/p/targets/NAME",
    ] {
        paths.push(format!("/v1/devices/{path}"));
    }
    let headers = [("content-type", "application/json")];
    for path in paths {
        for name in ["a%00b", "%00", "a%ffb"] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let line = format!("{method} {}", path.replace("NAME", name));
                let response = send(&router, &line, &headers, "{}").await;
                let status = response.status();
                let is_refused =
                    [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status);
                assert!(is_refused, "{line}: {status}");
            }
        }
        // This is the text "%00".
        let line = format!("GET {}", path.replace("NAME", "a%2500b"));
        let status = send(&router, &line, &[], "").await.status();
        assert!(status.is_client_error(), "{line}: {status}");
    }
}

#[tokio::test]
async fn the_last_times_of_the_calendar_are_shown_as_they_are() {
    let url = testing::create_database().await;
    let client = testing::connect(&url).await;
    client
        .batch_execute(
            "INSERT INTO device (external_id) VALUES ('m');
             INSERT INTO series (device_id, metric) SELECT id, 'p' FROM device;
             SELECT gridwatch_create_reading_day('9999-12-31');
             INSERT INTO reading SELECT id, '9999-12-31T23:59:59.999999Z', 1 FROM series",
        )
        .await
        .unwrap();
    let router = routes(testing::pool(&url, 2));
    let response = send(&router, "GET /v1/latest", &[], "").await;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(body["latest"][0]["time"], "9999-12-31T23:59:59.999999Z");
}

#[tokio::test]
async fn times_that_postgresql_does_not_have_are_refused() {
    let url = testing::create_database().await;
    let client = testing::connect(&url).await;
    let sql = "INSERT INTO device (external_id) VALUES ('m');
               INSERT INTO series (device_id, metric) SELECT id, 'p' FROM device";
    client.batch_execute(sql).await.unwrap();
    let router = routes(testing::pool(&url, 2));
    let within = "00000000-0000-0000-0000-000000000001";
    for time in [
        "9223372036854775807",
        "-9223372036854775808",
        "922337203685477580",
        "-922337203685477580",
        "300000-01-01T00:00:00Z",
    ] {
        for path in [
            format!("/v1/changes?from={time}"),
            format!("/v1/changes?to={time}"),
            format!("/v1/components?within={within}&at={time}"),
            format!("/v1/devices?within={within}&at={time}"),
            format!("/v1/components?sort=updated_at&next={time}%1f{within}"),
            format!("/v1/devices/m/series/p/targets?next={time}"),
            format!("/v1/devices/m/series/p/targets?from={time}"),
            format!("/v1/devices/m/series/p/targets/{time}"),
            format!("/v1/readings/history?device=m&metric=p&time={time}"),
            format!("/v1/latency?from={time}&to={time}"),
        ] {
            let status = send(&router, &format!("GET {path}"), &[], "")
                .await
                .status();
            assert!(status.is_client_error(), "{path}: {status}");
        }
    }
}

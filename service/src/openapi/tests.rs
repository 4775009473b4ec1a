//! The document and the page of a small API.

use axum::body::Body as RequestBody;
use axum::http::Request;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::json;

use super::*;

const NAME: Declared = &[&[Parameter::path(
    "name",
    Accepts::Text,
    "its name",
    "meter-1",
)]];

fn api() -> Api {
    Api {
        operations: vec![Operation {
            method: "get",
            path: "/v1/things/{name}".into(),
            id: "readThing".into(),
            tag: "Things",
            summary: "Read a <thing>".into(),
            description: "With `code`.\n\n- one\n- two".into(),
            parameters: vec![NAME],
            body: None,
            successes: vec![Success {
                status: 200,
                description: "the thing",
                headers: &[("ETag", "its version")],
                contents: vec![Content {
                    media_type: "application/json",
                    schema: schema::reference("Thing"),
                    example: json!({ "name": "meter-1" }),
                }],
            }],
            errors: vec!["unknown_resource", "bad_query", "database_unavailable"],
        }],
        schemas: vec![(
            "Thing",
            schema::object(json!({ "name": schema::text("its name") })),
        )],
    }
}

#[test]
fn an_operation_has_a_response_for_each_status_with_its_codes() {
    let document = document(&[api()]);
    let operation = &document["paths"]["/v1/things/{name}"]["get"];
    let responses = operation["responses"].as_object().unwrap();
    let statuses: Vec<&str> = responses.keys().map(String::as_str).collect();
    assert_eq!(
        statuses,
        ["200", "400", "404", "408", "414", "431", "500", "503"]
    );
    let bad = &responses["400"]["content"]["application/problem+json"];
    let codes = &bad["schema"]["allOf"][1]["properties"]["code"]["enum"];
    assert_eq!(*codes, json!(["bad_query", "bad_request_head"]));
    assert_eq!(bad["examples"]["bad_query"]["value"]["status"], 400);
    assert_eq!(operation["parameters"][0]["example"], "meter-1");
}

#[tokio::test]
async fn the_document_and_the_page_are_served_and_load_nothing_from_elsewhere() {
    let service = TowerToHyperService::new(routes(&[api()]));
    for (path, media_type, part) in [
        ("/openapi.json", "application/json", "\"openapi\":\"3.1.0\""),
        ("/docs", "text/html; charset=utf-8", "Read a &lt;thing&gt;"),
        ("/docs/style.css", "text/css; charset=utf-8", "body {"),
    ] {
        let request = Request::get(path).body(RequestBody::empty()).unwrap();
        let response = service.call(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], media_type);
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(part), "{body}");
        for external in ["src=\"http", "href=\"http", "<script", "@import", "url("] {
            assert!(!body.contains(external), "{path} has {external}");
        }
    }
}

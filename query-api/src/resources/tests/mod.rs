//! The model over HTTP, on a real database.

mod bulk;
mod bulk_components;
mod concurrent;
mod crud;
mod deletion;
mod imports;
mod jobs;
mod kinds;
mod lists;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use store::{Client, testing};
use tower::ServiceExt as _;

use crate::routes;

/// The routes on a new database.
struct Api {
    router: Router,
    url: String,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Api {
    async fn new() -> Self {
        let url = testing::create_database().await;
        let router = routes(testing::pool(&url, 4));
        Self { router, url }
    }

    async fn client(&self) -> Client {
        testing::connect(&self.url).await
    }

    /// Sends a request. A body that is a JSON string is sent as its text.
    async fn send(&self, line: &str, headers: &[(&str, &str)], body: Value) -> Reply {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Value::Null => Body::empty(),
            Value::String(text) => Body::from(text),
            json => Body::from(json.to_string()),
        };
        let request = request.body(body).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    /// Sends a request that succeeds, and returns the body.
    async fn ok(&self, line: &str, body: Value) -> Value {
        let reply = self.send(line, &[], body).await;
        assert!(
            reply.status.is_success(),
            "{line}: {} {}",
            reply.status,
            reply.body
        );
        reply.body
    }

    async fn get(&self, path: &str) -> Value {
        self.ok(&format!("GET {path}"), Value::Null).await
    }

    /// Sends a request that fails, and returns the body.
    async fn fails(&self, line: &str, body: Value, status: u16, code: &str) -> Value {
        let reply = self.send(line, &[], body).await;
        let found = (reply.status.as_u16(), reply.body["code"].as_str());
        assert_eq!(found, (status, Some(code)), "{line}: {}", reply.body);
        reply.body
    }

    /// Creates a component and returns its id.
    async fn component(&self, kind: &str, name: &str, parent: Option<&str>) -> String {
        let body = json!({ "kind": kind, "name": name, "parent": parent });
        let created = self.ok("POST /v1/components", body).await;
        created["id"].as_str().unwrap().to_owned()
    }
}

/// The values of a member of each entry of a list.
fn column(list: &Value, name: &str) -> Vec<String> {
    let entries = list.as_array().unwrap().iter();
    entries
        .map(|entry| entry[name].as_str().unwrap().to_owned())
        .collect()
}

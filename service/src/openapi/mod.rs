//! The description of an HTTP API: the OpenAPI 3.1 document, and pages for people.
//!
//! In: the operations of each API of a port, as data ([`Operation`]). Out: the routes
//! `/openapi.json` and `/docs`. The errors of an operation are codes of [`crate::ApiError`], which
//! gives each its status and its example. The pages are HTML without scripts, and need no network.

mod document;
mod page;
mod parameter;
pub mod schema;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use serde_json::Value;

use crate::ApiError;

pub use document::document;
pub use parameter::{Accepts, Declared, Parameter, Place};

/// An operation: a method on a path.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The method, in lower case.
    pub method: &'static str,
    /// The path, with its parameters in braces.
    pub path: String,
    /// A name for programs, such as `listDevices`.
    pub id: String,
    /// The group in the pages.
    pub tag: &'static str,
    /// What the operation does, in a few words.
    pub summary: String,
    /// The rest of what there is to know.
    pub description: String,
    /// The parameters in the path, the query and the headers. Those of the query are the list that
    /// the handler reads.
    pub parameters: Vec<Declared>,
    /// The body of the request.
    pub body: Option<Body>,
    /// The responses that are no errors.
    pub successes: Vec<Success>,
    /// The codes of the errors, besides those that every request can get.
    pub errors: Vec<&'static str>,
}

/// The body of a request.
#[derive(Debug, Clone)]
pub struct Body {
    /// What it is.
    pub description: String,
    /// Its forms.
    pub contents: Vec<Content>,
}

/// A form of a body.
#[derive(Debug, Clone)]
pub struct Content {
    /// The media type.
    pub media_type: &'static str,
    /// The JSON Schema.
    pub schema: Value,
    /// A body as it can be sent.
    pub example: Value,
}

/// A response that is not an error.
#[derive(Debug, Clone)]
pub struct Success {
    /// The status.
    pub status: u16,
    /// What it means.
    pub description: &'static str,
    /// Headers that it always has, each with its meaning.
    pub headers: &'static [(&'static str, &'static str)],
    /// Forms of the body.
    pub contents: Vec<Content>,
}

/// The operations of an API, and the schemas that they refer to.
#[derive(Debug, Clone, Default)]
pub struct Api {
    /// Every operation.
    pub operations: Vec<Operation>,
    /// Each schema by its name.
    pub schemas: Vec<(&'static str, Value)>,
}

/// What the pages may load and do: nothing but their style sheet.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; \
                                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes `/openapi.json`, `/docs` and `/docs/runbook` of a port with these APIs.
pub fn routes(apis: &[Api]) -> Router {
    let document = document(apis);
    let page = page::render(&document);
    let json = format!("{document}\n");
    Router::new()
        .route("/openapi.json", text("application/json", json))
        .route("/docs", text("text/html; charset=utf-8", page))
        .route(
            crate::runbook::PATH,
            text("text/html; charset=utf-8", crate::runbook::page()),
        )
        .route(
            "/docs/style.css",
            text("text/css; charset=utf-8", page::STYLE.into()),
        )
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed("read it with GET"))
}

/// A text that does not change while the process runs.
fn text<S: Clone + Send + Sync + 'static>(
    media_type: &'static str,
    body: String,
) -> axum::routing::MethodRouter<S> {
    let body = bytes::Bytes::from(body);
    let fixed = |value: &'static str| HeaderValue::from_static(value);
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, fixed(media_type)),
        (
            header::CONTENT_SECURITY_POLICY,
            fixed(CONTENT_SECURITY_POLICY),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
        (header::CACHE_CONTROL, fixed("no-cache")),
    ];
    get(move || async move { (headers, body).into_response() })
}

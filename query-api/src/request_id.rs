//! `X-Request-Id`: a name for each request, in its response and in its log lines.
//!
//! In: requests, with an id or without. Out: responses with that id, or with a new one. Everything
//! that is logged while the request is worked on has the id.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;
use uuid::Uuid;

const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// Upper bound on the id of a client.
const MAX_BYTES: usize = 128;

/// See the module.
pub(crate) async fn add(request: Request, next: Next) -> Response {
    let own = request.headers().get(NAME).filter(|id| is_id(id)).cloned();
    let id = own.unwrap_or_else(|| {
        let id = Uuid::now_v7().to_string();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"))
    });
    // With a lower level, a filter for errors only would drop the id.
    let span = tracing::error_span!("request", id = id.to_str().unwrap_or_default());
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(NAME, id);
    response
}

/// Whether an id is 1 to [`MAX_BYTES`] visible ASCII characters.
fn is_id(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

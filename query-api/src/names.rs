//! Names in paths that nothing can have.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use service::ApiError;

/// Refuses paths that are not text, or that PostgreSQL cannot store.
pub(crate) async fn check(request: Request, next: Next) -> Result<Response, ApiError> {
    if is_text(request.uri().path()) {
        Ok(next.run(request).await)
    } else {
        Err(ApiError::NotFound(
            "the path has a name that is not UTF-8 or has the character U+0000; no name is like \
             that",
        ))
    }
}

/// Whether a percent-encoded path is UTF-8 without U+0000.
fn is_text(path: &str) -> bool {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let encoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let encoded = encoded.filter(|_| byte == b'%');
        decoded.push(encoded.unwrap_or(byte));
        rest = if encoded.is_some() { &tail[2..] } else { tail };
    }
    !decoded.contains(&0) && std::str::from_utf8(&decoded).is_ok()
}

//! What a write request consists of besides its path: body, actor, conditions and idempotency key.
//!
//! In: headers and a body from a client. Out: a JSON value of at most [`MAX_BYTES`], and a
//! [`store::model::Request`].

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde_json::Value;
use service::ApiError;
use sha2::{Digest as _, Sha256};
use store::model::IdempotencyKey;

/// Upper bound on the body of a document.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Upper bound on the actor and on an idempotency key.
const MAX_HEADER_BYTES: usize = 128;
/// Who changes something while there are no keys, and the request does not say.
const ANONYMOUS: &str = "anonymous";

/// Receives a body of at most this many bytes.
pub(crate) async fn receive(
    headers: &HeaderMap,
    mut body: Body,
    max_bytes: usize,
) -> Result<Bytes, ApiError> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        let reason = "a body of this path is not compressed; leave out content-encoding";
        return Err(ApiError::UnsupportedMediaType(reason.into()));
    }
    let collect = async {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::BodyIncomplete(error.to_string()))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if whole.len() + data.len() > max_bytes {
                return Err(ApiError::BodyTooLarge(max_bytes));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    };
    let received = tokio::time::timeout(ARRIVAL_TIMEOUT, collect).await;
    received.map_err(|_| ApiError::BodyTimeout(ARRIVAL_TIMEOUT.as_secs()))?
}

/// The media type of a body, in lower case and without parameters; JSON if there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.map_or("application/json", |value| value.to_str().unwrap_or(""));
    let value = value.split(';').next().unwrap_or_default();
    value.trim().to_ascii_lowercase()
}

/// Receives a body that is a JSON document.
pub(crate) async fn receive_json(
    headers: &HeaderMap,
    body: Body,
    accepted: &[&str],
) -> Result<(Bytes, Value), ApiError> {
    let own = media_type(headers);
    if !accepted.contains(&own.as_str()) {
        let accepted = accepted.join(" or ");
        let reason = format!("content-type must be {accepted}, and it is '{own}'");
        return Err(ApiError::UnsupportedMediaType(reason));
    }
    let bytes = receive(headers, body, MAX_BYTES).await?;
    let value = parse(&bytes)?;
    Ok((bytes, value))
}

/// Parses JSON.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| ApiError::NotUtf8(error.valid_up_to()))?;
    let parsed = serde_json::from_str(text);
    parsed.map_err(|error| ApiError::MalformedJson(format!("the body is not valid JSON: {error}")))
}

/// Who writes, and under which conditions.
pub(crate) fn conditions(headers: &HeaderMap) -> Result<store::model::Request, ApiError> {
    let actor = text(headers, "x-actor")?.unwrap_or_else(|| ANONYMOUS.into());
    Ok(store::model::Request {
        actor,
        if_match: if_match(headers)?,
        idempotency: None,
    })
}

/// Who makes a change that has no version.
pub(crate) fn actor(headers: &HeaderMap) -> Result<String, ApiError> {
    if headers.contains_key(header::IF_MATCH) {
        let reason = "if-match is for resources that have an etag: leave it out";
        return Err(ApiError::BadHeader(reason.into()));
    }
    Ok(conditions(headers)?.actor)
}

/// The conditions of a `POST`, whose `Idempotency-Key` belongs to this path and body.
pub(crate) fn post_conditions(
    headers: &HeaderMap,
    path: &str,
    body: &[u8],
) -> Result<store::model::Request, ApiError> {
    let mut request = conditions(headers)?;
    request.idempotency = text(headers, "idempotency-key")?.map(|key| {
        let digest = Sha256::new()
            .chain_update(path)
            .chain_update([0])
            .chain_update(body)
            .finalize();
        IdempotencyKey {
            key,
            request: digest.into(),
        }
    });
    Ok(request)
}

fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().ok().map(str::trim);
    // A tab is valid in a header, and is not printable.
    let is_valid = |text: &&str| {
        (1..=MAX_HEADER_BYTES).contains(&text.len()) && !text.contains(char::is_control)
    };
    match text.filter(is_valid) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(ApiError::BadHeader(format!(
            "{name} must be 1 to {MAX_HEADER_BYTES} printable ASCII characters"
        ))),
    }
}

/// The versions of `If-Match`. A tag that is not a version matches nothing.
fn if_match(headers: &HeaderMap) -> Result<Option<Vec<i64>>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let value = value.to_str().unwrap_or_default().trim();
    if value == "*" {
        return Ok(None);
    }
    let mut versions = Vec::new();
    for tag in value.split(',') {
        let tag = tag.trim();
        let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        let Some(version) = version else {
            let reason = format!("if-match must be an ETag such as \"3\", and it has '{tag}'");
            return Err(ApiError::BadHeader(reason));
        };
        versions.extend(version.parse::<i64>());
    }
    Ok(Some(versions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_printable_ascii() {
        for (actor, is_valid) in [
            ("ada", true),
            ("ada l", true),
            ("ada\tl", false),
            ("ad\u{e4}", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-actor", actor.parse().unwrap());
            assert_eq!(conditions(&headers).is_ok(), is_valid, "{actor:?}");
        }
    }
}

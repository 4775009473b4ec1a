//! Every error that a Gridwatch HTTP API responds with, in one enum.
//!
//! In: an [`ApiError`]. Out: a response with RFC 9457 problem details (`application/problem+json`)
//! and a stable `code`, which is also a metric label. The cause of an error goes to the log; the
//! client gets a sentence on what to do. Adding an error means adding a variant here: the compiler
//! then asks for its status, its code and its detail.

mod examples;
#[cfg(test)]
mod tests;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::quote::quote;
use crate::runbook;

/// Seconds after which a client should retry.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The [`ApiError::code`] of a response, kept in its extensions for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub &'static str);

/// Every [`ApiError::code`], so that its counter exists before the first error.
pub const CODES: [&str; 38] = [
    "not_found",
    "method_not_allowed",
    "bad_query",
    "unsupported_media_type",
    "unsupported_encoding",
    "body_too_large",
    "body_timeout",
    "body_incomplete",
    "bad_compression",
    "not_utf8",
    "malformed_json",
    "too_many_readings",
    "no_readings",
    "no_reading_accepted",
    "atomic_too_large",
    "overloaded",
    "registry_unavailable",
    "queue_unavailable",
    "unconfirmed",
    "unknown_device",
    "unknown_series",
    "not_acceptable",
    "database_unavailable",
    "query_timeout",
    "internal",
    "bad_request_head",
    "uri_too_long",
    "head_too_large",
    "head_timeout",
    "bad_header",
    "invalid_body",
    "unknown_resource",
    "already_exists",
    "version_mismatch",
    "has_dependents",
    "idempotency_key_reused",
    "forbidden_host",
    "forbidden_origin",
];

/// A field of a body that is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Line of the body, from 1, when the body is a list.
    pub line: Option<usize>,
    /// JSON Pointer (RFC 6901) to the field.
    pub pointer: String,
    /// What is expected, for people.
    pub reason: String,
}

/// An error as the client sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiError {
    /// There is nothing at this path. Holds the sentence for the client.
    NotFound(&'static str),
    /// The path does not support the method. Holds the sentence for the client.
    MethodNotAllowed(&'static str),
    /// The query string has an unknown parameter or a bad value.
    BadQuery(String),
    /// The `Content-Type` is not supported. Holds the sentence for the client.
    UnsupportedMediaType(String),
    /// The `Content-Encoding` is not supported. Holds its value in quotes.
    UnsupportedEncoding(String),
    /// The body is longer than this many bytes, before or after decompression.
    BodyTooLarge(usize),
    /// The body did not arrive within this many seconds.
    BodyTimeout(u64),
    /// The connection broke in the middle of the body.
    BodyIncomplete(String),
    /// The `Transfer-Encoding: chunked` of the body is not valid.
    BadChunks,
    /// The body cannot be decompressed.
    BadCompression(String),
    /// The body is not UTF-8 from this offset on.
    NotUtf8(usize),
    /// The body is UTF-16 or UTF-32.
    WideText,
    /// The body is not JSON. Holds what is wrong and where.
    MalformedJson(String),
    /// The request has more readings than this.
    TooManyReadings(usize),
    /// The request has no readings.
    NoReadings,
    /// Every reading of the request was rejected.
    NoReadingAccepted {
        /// Number of readings.
        rejected: u64,
        /// The first of them, each with index, code and detail.
        errors: Value,
        /// Number of errors beyond these, if there are any.
        errors_omitted: Option<u64>,
    },
    /// An atomic request has more readings, or readings of more days, than a batch may have.
    AtomicTooLarge {
        /// Upper bound on readings.
        max_readings: usize,
        /// Upper bound on days.
        max_days: usize,
    },
    /// The bodies in flight use all the memory that they may use.
    TooManyBodies,
    /// The readings in flight reach the limit.
    TooManyPending,
    /// The tails that are open reach the limit.
    TooManyTails,
    /// PostgreSQL is unavailable and the request has names that are not in memory.
    RegistryUnavailable {
        /// Readings of the request that were accepted.
        accepted: u64,
        /// Readings that were rejected.
        rejected: u64,
        /// Readings that have to be sent again.
        unavailable: u64,
    },
    /// The readings were refused and are not stored. Holds the reason.
    QueueUnavailable(String),
    /// The readings may be stored or not.
    Unconfirmed {
        /// Why that is unknown.
        reason: String,
        /// Whether each reading has a time of its own, so that a retry stores it once.
        retry_is_safe: bool,
    },
    /// No device has this external id.
    UnknownDevice(String),
    /// The device has no such metric.
    UnknownSeries {
        /// External id of the device.
        device: String,
        /// Name of the metric.
        metric: String,
    },
    /// No form of the response is acceptable. Holds the sentence for the client.
    NotAcceptable(String),
    /// PostgreSQL cannot be reached.
    DatabaseUnavailable,
    /// The query took longer than a statement may.
    QueryTimeout,
    /// A fault of the server.
    Internal,
    /// The request line or a header is not valid. Holds what is wrong.
    BadRequestHead(String),
    /// The path and the query are too long.
    UriTooLong,
    /// The headers are too many or too long.
    HeadTooLarge,
    /// The request line and the headers did not arrive within this many seconds.
    HeadTimeout(u64),
    /// A header has a bad value. Holds the sentence for the client.
    BadHeader(String),
    /// Fields of the body are not valid. Holds at least one.
    InvalidBody(Vec<FieldError>),
    /// There is no such component, kind, type, customer, target or job.
    UnknownResource {
        /// What was looked for.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The resource exists already.
    AlreadyExists {
        /// What was to be created.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The resource has this version, and `If-Match` has another one.
    VersionMismatch(i64),
    /// Other resources depend on one that is to be deleted.
    HasDependents {
        /// The number of each.
        dependents: Value,
        /// Whether they can be deleted with it.
        can_cascade: bool,
    },
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused,
    /// The `Host` is not a name of loopback, where the port listens. Holds its value.
    ForbiddenHost(String),
    /// The request comes from a page of another site. Holds the `Origin`.
    ForbiddenOrigin(String),
}

impl ApiError {
    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadQuery(_)
            | Self::BodyIncomplete(_)
            | Self::BadChunks
            | Self::BadCompression(_)
            | Self::NotUtf8(_)
            | Self::WideText
            | Self::MalformedJson(_)
            | Self::BadRequestHead(_)
            | Self::BadHeader(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_)
            | Self::UnknownDevice(_)
            | Self::UnknownSeries { .. }
            | Self::UnknownResource { .. } => StatusCode::NOT_FOUND,
            Self::ForbiddenHost(_) | Self::ForbiddenOrigin(_) => StatusCode::FORBIDDEN,
            Self::AlreadyExists { .. } | Self::HasDependents { .. } => StatusCode::CONFLICT,
            Self::VersionMismatch(_) => StatusCode::PRECONDITION_FAILED,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout(_) | Self::HeadTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge(_) | Self::TooManyReadings(_) | Self::AtomicTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnsupportedMediaType(_) | Self::UnsupportedEncoding(_) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::NoReadings
            | Self::NoReadingAccepted { .. }
            | Self::InvalidBody(_)
            | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooManyBodies
            | Self::TooManyPending
            | Self::TooManyTails
            | Self::RegistryUnavailable { .. }
            | Self::QueueUnavailable(_)
            | Self::DatabaseUnavailable
            | Self::Unconfirmed { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::QueryTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The stable code: for programs, and a metric label.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::BadQuery(_) => "bad_query",
            Self::UnsupportedMediaType(_) => "unsupported_media_type",
            Self::UnsupportedEncoding(_) => "unsupported_encoding",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::BodyTimeout(_) => "body_timeout",
            Self::BodyIncomplete(_) | Self::BadChunks => "body_incomplete",
            Self::BadCompression(_) => "bad_compression",
            Self::NotUtf8(_) | Self::WideText => "not_utf8",
            Self::MalformedJson(_) => "malformed_json",
            Self::TooManyReadings(_) => "too_many_readings",
            Self::NoReadings => "no_readings",
            Self::NoReadingAccepted { .. } => "no_reading_accepted",
            Self::AtomicTooLarge { .. } => "atomic_too_large",
            Self::TooManyBodies | Self::TooManyPending | Self::TooManyTails => "overloaded",
            Self::RegistryUnavailable { .. } => "registry_unavailable",
            Self::QueueUnavailable(_) => "queue_unavailable",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::UnknownDevice(_) => "unknown_device",
            Self::UnknownSeries { .. } => "unknown_series",
            Self::NotAcceptable(_) => "not_acceptable",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::QueryTimeout => "query_timeout",
            Self::Internal => "internal",
            Self::BadRequestHead(_) => "bad_request_head",
            Self::UriTooLong => "uri_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout(_) => "head_timeout",
            Self::BadHeader(_) => "bad_header",
            Self::InvalidBody(_) => "invalid_body",
            Self::UnknownResource { .. } => "unknown_resource",
            Self::AlreadyExists { .. } => "already_exists",
            Self::VersionMismatch(_) => "version_mismatch",
            Self::HasDependents { .. } => "has_dependents",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::ForbiddenHost(_) => "forbidden_host",
            Self::ForbiddenOrigin(_) => "forbidden_origin",
        }
    }

    /// What happened and what to do about it, for people.
    fn detail(&self) -> String {
        match self {
            Self::NotFound(hint) | Self::MethodNotAllowed(hint) => (*hint).into(),
            Self::BadQuery(reason)
            | Self::UnsupportedMediaType(reason)
            | Self::MalformedJson(reason) => reason.clone(),
            Self::UnsupportedEncoding(value) => format!(
                "content-encoding {value} is not supported; compress the body once, with gzip or \
                 zstd, or send it as it is, without content-encoding"
            ),
            Self::BodyTooLarge(max_bytes) => format!(
                "the body exceeds {max_bytes} bytes, before or after decompression; split it into \
                 several requests"
            ),
            Self::BodyTimeout(seconds) => format!("the body did not arrive within {seconds} s"),
            Self::BodyIncomplete(reason) => format!("the body ended early: {reason}; retry"),
            Self::BadChunks => {
                "the chunked encoding of the body is not valid; correct the client".into()
            }
            Self::BadCompression(reason) => {
                format!("the body cannot be decompressed: {reason}")
            }
            Self::NotUtf8(offset) => {
                format!(
                    "the body is not valid UTF-8 at byte {}; encode it as UTF-8",
                    offset + 1
                )
            }
            Self::WideText => "the body is UTF-16 or UTF-32; encode it as UTF-8".into(),
            Self::TooManyReadings(max) => {
                format!("the request has more than {max} readings; split it into several requests")
            }
            Self::NoReadings => {
                "the request has no readings; send at least one, as a JSON object, or in an array \
                 of them"
                    .into()
            }
            Self::NoReadingAccepted { .. } => {
                "none of the readings was accepted; do not retry them unchanged".into()
            }
            Self::AtomicTooLarge {
                max_readings,
                max_days,
            } => {
                format!(
                    "an atomic request may have at most {max_readings} readings from at most \
                     {max_days} days; split it, or send it without atomic"
                )
            }
            Self::TooManyBodies => "too many request bodies are in flight; retry later".into(),
            Self::TooManyTails => "too many tails are open; close some, or retry later".into(),
            Self::TooManyPending => "too many readings are pending; retry later".into(),
            Self::RegistryUnavailable { .. } => {
                "the registry is unavailable and some names are not in memory; \
                 retry the whole request"
                    .into()
            }
            Self::QueueUnavailable(reason) => format!("{reason}; retry later"),
            Self::Unconfirmed {
                reason,
                retry_is_safe: true,
            } => format!("{reason}; the readings may or may not be stored; retrying is safe"),
            Self::Unconfirmed {
                reason,
                retry_is_safe: false,
            } => format!(
                "{reason}; the readings may or may not be stored; \
                 retrying stores readings without measured_at a second time"
            ),
            Self::UnknownDevice(device) => format!("no device '{device}' is registered"),
            Self::UnknownSeries { device, metric } => {
                format!("device '{device}' has no metric '{metric}'")
            }
            Self::NotAcceptable(reason) => reason.clone(),
            Self::DatabaseUnavailable => "the database is unavailable; retry later".into(),
            Self::QueryTimeout => {
                "the query took too long; ask for a shorter range or fewer devices".into()
            }
            Self::Internal => "the request failed because of a server error".into(),
            Self::BadRequestHead(reason) => format!(
                "the request line or a header is not valid HTTP/1.1: {reason}; the connection is \
                 closed"
            ),
            Self::UriTooLong => {
                "the path and the query are longer than 65,534 bytes; send readings in the body"
                    .into()
            }
            Self::HeadTooLarge => {
                "the request has more than 100 headers, or its head has more than 400,000 bytes"
                    .into()
            }
            Self::HeadTimeout(seconds) => {
                format!("the request line and the headers did not arrive within {seconds} s")
            }
            Self::BadHeader(reason) => reason.clone(),
            Self::InvalidBody(errors) => invalid_body(errors),
            Self::UnknownResource { what, id } => format!("there is no {what} '{id}'"),
            Self::AlreadyExists { what, id } => {
                format!("{what} '{id}' exists already; change it with PATCH or PUT")
            }
            Self::VersionMismatch(version) => format!(
                "someone else changed it: the version is now \"{version}\"; \
                 read it again and repeat the change"
            ),
            Self::HasDependents {
                can_cascade: true, ..
            } => "it is in use, see 'dependents'; to delete those too, add ?cascade=true".into(),
            Self::HasDependents {
                can_cascade: false, ..
            } => "it is in use, see 'dependents'; delete or change those first".into(),
            Self::ForbiddenHost(host) => format!(
                "the header host is {}, and must be localhost, 127.0.0.1 or [::1], because there \
                 are no API keys yet; a proxy must set it, or start with --insecure-no-auth",
                quote(host)
            ),
            Self::ForbiddenOrigin(origin) => format!(
                "a page of {} may not send requests to this site",
                quote(origin)
            ),
            Self::IdempotencyKeyReused => {
                "this Idempotency-Key was used for another request; use a new key".into()
            }
        }
    }

    /// Members of the problem details beyond the standard ones.
    fn members(&self) -> Map<String, Value> {
        let members = match self {
            Self::NoReadingAccepted {
                rejected,
                errors,
                errors_omitted: None,
            } => json!({ "accepted": 0, "rejected": rejected, "errors": errors }),
            Self::NoReadingAccepted {
                rejected,
                errors,
                errors_omitted: Some(omitted),
            } => json!({
                "accepted": 0, "rejected": rejected, "errors": errors, "errors_omitted": omitted
            }),
            Self::RegistryUnavailable {
                accepted,
                rejected,
                unavailable,
            } => json!({
                "accepted": accepted, "rejected": rejected, "unavailable": unavailable
            }),
            Self::InvalidBody(errors) => {
                let listed: Vec<Value> = errors.iter().take(MAX_LISTED).map(field_json).collect();
                let mut members = errors.first().map_or(json!({}), field_json);
                members["errors"] = listed.into();
                members["error_count"] = errors.len().into();
                members
            }
            Self::HasDependents { dependents, .. } => json!({ "dependents": dependents }),
            _ => Value::Null,
        };
        match members {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }
}

/// Upper bound on the field errors that a response lists.
const MAX_LISTED: usize = 100;

fn field_json(error: &FieldError) -> Value {
    let mut json = json!({ "pointer": error.pointer, "reason": error.reason });
    if let Some(line) = error.line {
        json["line"] = line.into();
    }
    json
}

fn invalid_body(errors: &[FieldError]) -> String {
    let Some(first) = errors.first() else {
        return "the body is not valid".into();
    };
    let line = first.line.map(|line| format!("line {line}: "));
    let line = line.unwrap_or_default();
    let name = first.pointer.trim_start_matches('/');
    let name = if name.is_empty() { "the body" } else { name };
    let others = match errors.len() {
        1 => String::new(),
        count => format!("; {} more, see 'errors'", count - 1),
    };
    format!("{line}{name}: {}{others}", first.reason)
}

impl ApiError {
    /// The problem details, which are the body of the response.
    pub fn problem(&self) -> Value {
        let status = self.status();
        let mut body = self.members();
        body.insert("type".into(), runbook::section(self.code()).into());
        let title = status.canonical_reason().unwrap_or("Error");
        body.insert("title".into(), title.into());
        body.insert("status".into(), status.as_u16().into());
        body.insert("code".into(), self.code().into());
        body.insert("detail".into(), self.detail().into());
        Value::Object(body)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let content_type = HeaderValue::from_static("application/problem+json");
        let headers = [(header::CONTENT_TYPE, content_type)];
        let mut response = (status, headers, format!("{}\n", self.problem())).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response.extensions_mut().insert(ErrorCode(self.code()));
        response
    }
}

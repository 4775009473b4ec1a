//! One example of each error code, for the documentation of the operations.

use serde_json::json;

use super::{ApiError, FieldError};

impl ApiError {
    /// An error of each code, in the order of [`super::CODES`].
    pub fn examples() -> Vec<Self> {
        let text = String::from;
        vec![
            Self::NotFound("there is nothing at this path; see /docs"),
            Self::MethodNotAllowed("this path does not support the method; see the header allow"),
            Self::BadQuery(text("order: 'down' is not an order: use asc or desc")),
            Self::UnsupportedMediaType(text(
                "content-type must be application/json, and it is 'text/html'",
            )),
            Self::UnsupportedEncoding(text("'br'")),
            Self::BodyTooLarge(1_048_576),
            Self::BodyTimeout(30),
            Self::BodyIncomplete(text("the connection was closed")),
            Self::BadCompression(text("the data is not gzip")),
            Self::NotUtf8(16),
            Self::MalformedJson(text(
                "the body is not valid JSON: expected value at line 1 column 1",
            )),
            Self::TooManyReadings(100_000),
            Self::NoReadings,
            Self::NoReadingAccepted {
                rejected: 1,
                errors: json!([{
                    "index": 0, "code": "unknown_device",
                    "detail": "no device 'meter-9' is registered",
                }]),
                errors_omitted: None,
            },
            Self::AtomicTooLarge {
                max_readings: 4_096,
                max_days: 256,
            },
            Self::TooManyPending,
            Self::RegistryUnavailable {
                accepted: 0,
                rejected: 0,
                unavailable: 1,
            },
            Self::QueueUnavailable(text("RabbitMQ is unavailable")),
            Self::Unconfirmed {
                reason: text("RabbitMQ did not confirm in time"),
                retry_is_safe: true,
            },
            Self::UnknownDevice(text("meter-9")),
            Self::UnknownSeries {
                device: text("meter-1"),
                metric: text("current"),
            },
            Self::NotAcceptable(text(
                "'text/html' is not available: accept application/json, application/x-ndjson or \
                 text/csv, or use the parameter format",
            )),
            Self::DatabaseUnavailable,
            Self::QueryTimeout,
            Self::Internal,
            Self::BadRequestHead(text("the header is malformed")),
            Self::UriTooLong,
            Self::HeadTooLarge,
            Self::HeadTimeout(75),
            Self::BadHeader(text("x-actor must be 1 to 128 printable ASCII characters")),
            Self::InvalidBody(vec![FieldError {
                line: None,
                pointer: text("/name"),
                reason: text("this field is required"),
            }]),
            Self::UnknownResource {
                what: "component",
                id: text("0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e"),
            },
            Self::AlreadyExists {
                what: "device",
                id: text("meter-1"),
            },
            Self::VersionMismatch(4),
            Self::HasDependents {
                dependents: json!({ "series": 1, "readings": 96 }),
                can_cascade: true,
            },
            Self::IdempotencyKeyReused,
            Self::ForbiddenHost(text("grid.example")),
            Self::ForbiddenOrigin(text("https://other.example")),
        ]
    }
}

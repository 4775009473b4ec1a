//! Every error, its status, its code, and a part of its detail.

use http_body_util::BodyExt as _;

use super::*;

/// Every variant, its status, its code, and a part of its detail. A variant that is missing
/// here does not compile: see `index`.
fn table() -> Vec<(ApiError, u16, &'static str, &'static str)> {
    let text = || "cause".to_owned();
    vec![
        (ApiError::NotFound("hint"), 404, "not_found", "hint"),
        (
            ApiError::MethodNotAllowed("hint"),
            405,
            "method_not_allowed",
            "hint",
        ),
        (ApiError::BadQuery(text()), 400, "bad_query", "cause"),
        (
            ApiError::UnsupportedMediaType(text()),
            415,
            "unsupported_media_type",
            "cause",
        ),
        (
            ApiError::UnsupportedEncoding("'br'".into()),
            415,
            "unsupported_encoding",
            "'br' is not supported",
        ),
        (
            ApiError::BodyTooLarge(16),
            413,
            "body_too_large",
            "; split it",
        ),
        (
            ApiError::BodyTimeout(30),
            408,
            "body_timeout",
            "within 30 s",
        ),
        (
            ApiError::BodyIncomplete(text()),
            400,
            "body_incomplete",
            "cause; retry",
        ),
        (
            ApiError::BadChunks,
            400,
            "body_incomplete",
            "correct the client",
        ),
        (
            ApiError::BadCompression(text()),
            400,
            "bad_compression",
            "cause",
        ),
        (ApiError::NotUtf8(7), 400, "not_utf8", "byte 8"),
        (ApiError::WideText, 400, "not_utf8", "as UTF-8"),
        (
            ApiError::MalformedJson(text()),
            400,
            "malformed_json",
            "cause",
        ),
        (
            ApiError::TooManyReadings(9),
            413,
            "too_many_readings",
            "more than 9 readings",
        ),
        (
            ApiError::NoReadings,
            422,
            "no_readings",
            "send at least one",
        ),
        (
            ApiError::NoReadingAccepted {
                rejected: 1,
                errors: json!([]),
                errors_omitted: None,
            },
            422,
            "no_reading_accepted",
            "do not retry",
        ),
        (
            ApiError::AtomicTooLarge {
                max_readings: 4,
                max_days: 2,
            },
            413,
            "atomic_too_large",
            "4 readings from at most 2 days; split it",
        ),
        (ApiError::TooManyBodies, 503, "overloaded", "retry later"),
        (ApiError::TooManyPending, 503, "overloaded", "retry later"),
        (ApiError::TooManyTails, 503, "overloaded", "retry later"),
        (
            ApiError::RegistryUnavailable {
                accepted: 1,
                rejected: 2,
                unavailable: 3,
            },
            503,
            "registry_unavailable",
            "retry the whole request",
        ),
        (
            ApiError::QueueUnavailable(text()),
            503,
            "queue_unavailable",
            "retry later",
        ),
        (
            ApiError::Unconfirmed {
                reason: text(),
                retry_is_safe: true,
            },
            503,
            "unconfirmed",
            "retrying is safe",
        ),
        (
            ApiError::Unconfirmed {
                reason: text(),
                retry_is_safe: false,
            },
            503,
            "unconfirmed",
            "a second time",
        ),
        (
            ApiError::UnknownDevice("m".into()),
            404,
            "unknown_device",
            "'m'",
        ),
        (
            ApiError::UnknownSeries {
                device: "m".into(),
                metric: "p".into(),
            },
            404,
            "unknown_series",
            "no metric 'p'",
        ),
        (
            ApiError::NotAcceptable("cause".into()),
            406,
            "not_acceptable",
            "cause",
        ),
        (
            ApiError::DatabaseUnavailable,
            503,
            "database_unavailable",
            "retry later",
        ),
        (
            ApiError::QueryTimeout,
            504,
            "query_timeout",
            "shorter range",
        ),
        (ApiError::Internal, 500, "internal", "server error"),
        (
            ApiError::BadRequestHead(text()),
            400,
            "bad_request_head",
            "cause",
        ),
        (ApiError::UriTooLong, 414, "uri_too_long", "65,534 bytes"),
        (
            ApiError::HeadTooLarge,
            431,
            "head_too_large",
            "400,000 bytes",
        ),
        (
            ApiError::HeadTimeout(75),
            408,
            "head_timeout",
            "within 75 s",
        ),
        (ApiError::BadHeader(text()), 400, "bad_header", "cause"),
        (
            ApiError::InvalidBody(vec![FieldError {
                line: Some(3),
                pointer: "/name".into(),
                reason: text(),
            }]),
            422,
            "invalid_body",
            "line 3: name: cause",
        ),
        (
            ApiError::UnknownResource {
                what: "kind",
                id: "x".into(),
            },
            404,
            "unknown_resource",
            "no kind 'x'",
        ),
        (
            ApiError::AlreadyExists {
                what: "kind",
                id: "x".into(),
            },
            409,
            "already_exists",
            "kind 'x' exists",
        ),
        (
            ApiError::VersionMismatch(7),
            412,
            "version_mismatch",
            "now \"7\"",
        ),
        (
            ApiError::HasDependents {
                dependents: json!({ "series": 1 }),
                can_cascade: true,
            },
            409,
            "has_dependents",
            "cascade=true",
        ),
        (
            ApiError::HasDependents {
                dependents: json!({ "devices": 1 }),
                can_cascade: false,
            },
            409,
            "has_dependents",
            "change those first",
        ),
        (
            ApiError::IdempotencyKeyReused,
            422,
            "idempotency_key_reused",
            "use a new key",
        ),
        (
            ApiError::ForbiddenHost(text()),
            403,
            "forbidden_host",
            "'cause', and must be localhost",
        ),
        (
            ApiError::ForbiddenOrigin(text()),
            403,
            "forbidden_origin",
            "'cause' may not",
        ),
    ]
}

/// The place of a variant among all of them. The match is exhaustive, so that a new variant
/// fails to compile here until it has its place, and the test fails until it has its row.
fn index(error: &ApiError) -> usize {
    match error {
        ApiError::NotFound(_) => 0,
        ApiError::MethodNotAllowed(_) => 1,
        ApiError::BadQuery(_) => 2,
        ApiError::UnsupportedMediaType(_) => 3,
        ApiError::UnsupportedEncoding(_) => 4,
        ApiError::BodyTooLarge(_) => 5,
        ApiError::BodyTimeout(_) => 6,
        ApiError::BodyIncomplete(_) => 7,
        ApiError::BadCompression(_) => 8,
        ApiError::NotUtf8(_) => 9,
        ApiError::MalformedJson(_) => 10,
        ApiError::TooManyReadings(_) => 11,
        ApiError::NoReadings => 12,
        ApiError::NoReadingAccepted { .. } => 13,
        ApiError::AtomicTooLarge { .. } => 14,
        ApiError::TooManyBodies => 15,
        ApiError::TooManyPending => 16,
        ApiError::TooManyTails => 38,
        ApiError::RegistryUnavailable { .. } => 17,
        ApiError::QueueUnavailable(_) => 18,
        ApiError::Unconfirmed { .. } => 19,
        ApiError::Internal => 20,
        ApiError::BadRequestHead(_) => 21,
        ApiError::UriTooLong => 22,
        ApiError::HeadTooLarge => 23,
        ApiError::HeadTimeout(_) => 24,
        ApiError::WideText => 25,
        ApiError::UnknownDevice(_) => 26,
        ApiError::UnknownSeries { .. } => 27,
        ApiError::NotAcceptable(_) => 28,
        ApiError::DatabaseUnavailable => 29,
        ApiError::QueryTimeout => 30,
        ApiError::BadHeader(_) => 31,
        ApiError::InvalidBody(_) => 32,
        ApiError::UnknownResource { .. } => 33,
        ApiError::AlreadyExists { .. } => 34,
        ApiError::VersionMismatch(_) => 35,
        ApiError::HasDependents { .. } => 36,
        ApiError::IdempotencyKeyReused => 37,
        ApiError::BadChunks => 38,
        ApiError::ForbiddenHost(_) => 39,
        ApiError::ForbiddenOrigin(_) => 40,
    }
}
const VARIANTS: usize = 41;

#[tokio::test]
async fn every_error_has_its_status_its_code_and_a_sentence_that_helps() {
    let mut seen = [false; VARIANTS];
    for (error, status, code, detail) in table() {
        seen[index(&error)] = true;
        let response = error.clone().into_response();
        assert_eq!(response.status().as_u16(), status, "{error:?}");
        assert_eq!(
            response.extensions().get(),
            Some(&ErrorCode(code)),
            "{error:?}"
        );
        let headers = response.headers();
        assert_eq!(
            headers["content-type"], "application/problem+json",
            "{error:?}"
        );
        assert_eq!(
            headers.contains_key("retry-after"),
            status == 503,
            "{error:?}"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["code"], code, "{body}");
        assert!(body["detail"].as_str().unwrap().contains(detail), "{body}");
        assert!(body["title"].is_string(), "{body}");
        assert_eq!(body["type"], format!("/docs/runbook#{code}"), "{body}");
    }
    assert_eq!(seen, [true; VARIANTS], "a variant has no row in the table");
    let mut codes: Vec<&str> = table().iter().map(|(_, _, code, _)| *code).collect();
    codes.dedup();
    assert_eq!(
        codes, CODES,
        "the list of codes is not that of the variants"
    );
}

#[tokio::test]
async fn the_counts_of_a_request_are_members_of_the_problem_details() {
    let error = ApiError::RegistryUnavailable {
        accepted: 1,
        rejected: 2,
        unavailable: 3,
    };
    let body = error.into_response().into_body().collect().await.unwrap();
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    assert_eq!(
        (&body["accepted"], &body["rejected"], &body["unavailable"]),
        (&json!(1), &json!(2), &json!(3))
    );
}

#[test]
fn every_code_has_one_example() {
    let codes: Vec<&str> = ApiError::examples().iter().map(ApiError::code).collect();
    assert_eq!(codes, CODES);
}

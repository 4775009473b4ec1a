//! The description of `POST /v1/readings`.

use serde_json::json;
use service::openapi::schema::{count, list, nullable, object, text};
use service::openapi::{Accepts, Api, Body, Content, Declared, Operation, Parameter, Success};

/// The parameters of the query string are those of [`crate::query`].
pub(crate) const PARAMETERS: Declared = &[&[
    Parameter::query(
        "precision",
        Accepts::OneOf(&crate::query::PRECISIONS),
        "unit of numbers in `measured_at`, which count from 1970: seconds (default), \
         milliseconds, microseconds or nanoseconds",
    )
    .example("s"),
    Parameter::query(
        "atomic",
        Accepts::Boolean,
        "`true` accepts all readings of the request or none (default: `false`). Such a request \
         has at most 4,096 readings from at most 256 days",
    )
    .example("false"),
    Parameter::header(
        "Content-Encoding",
        Accepts::OneOf(&["gzip", "zstd", "identity"]),
        "how the body is compressed",
    ),
]];

const DESCRIPTION: &str = "\
One reading, an array of readings, or `{\"readings\": […]}`; in NDJSON one reading per line. A bad \
reading is rejected alone, and is listed in `errors`.

202 means that the accepted readings are durable on the queue; 201, in direct mode, that they are \
stored. A retry of readings with `measured_at` is safe: they are stored once.";

/// The operation, and the schema of a reading.
pub fn api() -> Api {
    let success = |status, description| Success {
        status,
        description,
        headers: &[],
        contents: vec![Content {
            media_type: "application/json",
            schema: outcome(),
            example: json!({ "accepted": 1, "rejected": 1, "errors": [{
                "index": 1, "code": "bad_reading",
                "detail": "\"value\" must be a number, not the string \"abc\"",
            }] }),
        }],
    };
    let reading = json!({ "$ref": "#/components/schemas/Reading" });
    let example = json!({
        "device": "meter-1", "metric": "energy", "value": 51.66,
        "measured_at": "2019-01-17T00:15:00Z",
    });
    let line = "{\"device\":\"meter-1\",\"metric\":\"energy\",\"value\":51.66}\n";
    let operation = Operation {
        method: "post",
        path: "/v1/readings".into(),
        id: "sendReadings".into(),
        tag: "Readings",
        summary: "Send readings".into(),
        description: DESCRIPTION.into(),
        parameters: vec![PARAMETERS],
        body: Some(Body {
            description: "at most 16 MiB and 100,000 readings, in UTF-8".into(),
            contents: vec![
                Content {
                    media_type: "application/json",
                    schema: json!({ "anyOf": [
                        reading,
                        { "type": "array", "items": reading, "minItems": 1 },
                        object(json!({ "readings": {
                            "type": "array", "items": reading, "minItems": 1,
                            "description": "the readings",
                        } })),
                    ] }),
                    example: json!([example]),
                },
                Content {
                    media_type: "application/x-ndjson",
                    schema: json!({ "type": "string" }),
                    example: line.into(),
                },
            ],
        }),
        successes: vec![
            success(201, "stored in PostgreSQL (direct mode)"),
            success(202, "durable on the queue"),
        ],
        errors: vec![
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
        ],
    };
    Api {
        operations: vec![operation],
        schemas: vec![("Reading", reading_schema())],
    }
}

fn reading_schema() -> serde_json::Value {
    let name = |max: usize, description: &str| {
        json!({
            "type": "string", "minLength": 1, "maxLength": max, "description": description,
            "pattern": "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]\
                        ([^\\u0000-\\u001f\\u007f-\\u009f]*\
                        [^\\s\\u0000-\\u001f\\u007f-\\u009f])?$",
        })
    };
    let mut reading = object(json!({
        "device": name(schema::reading::MAX_DEVICE_BYTES, "external id of the device"),
        "metric": name(schema::reading::MAX_METRIC_BYTES, "name of the metric"),
        "value": { "type": "number", "description": "a finite number in the unit of the series" },
    }));
    reading["properties"]["measured_at"] = json!({
        "anyOf": [
            { "type": "string", "format": "date-time" }, { "type": "number" }, { "type": "null" },
        ],
        "description": "when it was measured: RFC 3339 with a zone, or a number in the unit of \
                        `precision` since 1970; null or absent: now. Stored in microseconds",
    });
    reading
}

fn outcome() -> serde_json::Value {
    let mut error = object(json!({
        "index": count("place among the readings of the body, from 0"),
        "code": text("what is wrong, for programs"),
        "detail": text("what is wrong, for people"),
    }));
    error["properties"]["line"] = nullable(count("line of the body, from 1; NDJSON only"));
    let mut outcome = object(json!({
        "accepted": count("number of readings that were accepted"),
        "rejected": count("number of readings that were rejected"),
        "errors": list(error),
    }));
    outcome["properties"]["errors_omitted"] = count("errors beyond the 100 that are listed");
    outcome
}

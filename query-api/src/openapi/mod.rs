//! The description of the read side: every operation with its parameters, bodies and errors.
//!
//! The parameters are the lists that the handlers read from (`parameters`). The fields of the
//! model are those of its definitions (`fields`). A test compares the operations with the routes,
//! and another one sends the examples.

mod bulk;
mod fields;
mod imports;
mod model;
pub(crate) mod parameters;
mod readings;
#[cfg(test)]
mod tests;

use serde_json::Value;
use service::openapi::{Api, Content, Operation, Success};

/// Every operation, and the schemas of the model.
pub fn api() -> Api {
    let mut operations = readings::operations();
    operations.extend(model::operations());
    Api {
        operations,
        schemas: model::schemas(),
    }
}

/// What every operation that reads the database can fail with.
const DATABASE: [&str; 2] = ["database_unavailable", "query_timeout"];
/// What every operation refuses from other sites.
const ACCESS: [&str; 2] = ["forbidden_host", "forbidden_origin"];
/// What every operation with a JSON body can fail with.
const BODY: [&str; 7] = [
    "unsupported_media_type",
    "body_too_large",
    "body_timeout",
    "body_incomplete",
    "not_utf8",
    "malformed_json",
    "invalid_body",
];

/// An operation without a body.
fn operation(
    (method, path, id): (&'static str, &str, &str),
    tag: &'static str,
    (summary, description): (&str, &str),
) -> Operation {
    Operation {
        method,
        path: path.into(),
        id: id.into(),
        tag,
        summary: summary.into(),
        description: description.into(),
        parameters: Vec::new(),
        body: None,
        successes: Vec::new(),
        errors: [DATABASE.as_slice(), &ACCESS, &["bad_query"]].concat(),
    }
}

const JSON: &str = "application/json";

fn json(schema: Value, example: Value) -> Content {
    Content {
        media_type: JSON,
        schema,
        example,
    }
}

fn success(status: u16, description: &'static str, contents: Vec<Content>) -> Success {
    Success {
        status,
        description,
        headers: &[],
        contents,
    }
}

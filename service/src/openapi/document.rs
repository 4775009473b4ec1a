//! Operations as an OpenAPI 3.1 document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schema::{count, object, reference, text};
use super::{Api, Content, Operation, Success};
use crate::ApiError;
use crate::api_error::CODES;

/// The codes that any request can get, because they concern the request line, the headers or the
/// server.
const COMMON: [&str; 5] = [
    "bad_request_head",
    "head_timeout",
    "uri_too_long",
    "head_too_large",
    "internal",
];

const DESCRIPTION: &str = "\
Readings of devices go in over HTTP; readings, aggregates and the model of the grid come out.

- **Times** in responses are RFC 3339 in UTC. A range of time has its beginning and not its end: \
`from` belongs to it, `to` does not. In a query a time is RFC 3339, a date, or a number of \
milliseconds since 1970-01-01T00:00:00Z.
- **Values** are 64-bit floating-point numbers in the unit of the series (UCUM), and never text.
- **Pages**: a list ends with `next`. It is the value of the parameter `next` for the page behind \
it, and null on the last page.
- **Errors** are problem details (RFC 9457) with a stable `code`. Programs should depend on the \
status and the code. An unknown parameter or field is an error. A path that does not exist gets \
404 `not_found`, and a method that a path does not have gets 405 `method_not_allowed`.
- There are no API keys yet: other machines must not reach this port without a proxy that \
authenticates.";

/// The OpenAPI document of a port with these APIs.
pub fn document(apis: &[Api]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let mut tags: Vec<&str> = Vec::new();
    for operation in apis.iter().flat_map(|api| &api.operations) {
        let path = paths.entry(operation.path.clone()).or_insert(json!({}));
        path[operation.method] = operation_json(operation);
        if !tags.contains(&operation.tag) {
            tags.push(operation.tag);
        }
    }
    schemas.insert("Problem".into(), problem());
    for (name, schema) in apis.iter().flat_map(|api| &api.schemas) {
        schemas.insert((*name).into(), schema.clone());
    }
    let tags: Vec<Value> = tags.into_iter().map(|tag| json!({ "name": tag })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gridwatch",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "NotFound": error_response(404, &["not_found"]),
                "MethodNotAllowed": error_response(405, &["method_not_allowed"]),
            },
        },
    })
}

fn operation_json(operation: &Operation) -> Value {
    let parameters = operation.parameters.iter().copied().flatten();
    let parameters: Vec<Value> = parameters
        .flat_map(|group| group.iter())
        .map(super::Parameter::json)
        .collect();
    let mut responses = Map::new();
    for success in &operation.successes {
        responses.insert(success.status.to_string(), success_json(success));
    }
    for (status, codes) in by_status(operation.errors.iter().copied().chain(COMMON)) {
        responses.insert(status.to_string(), error_response(status, &codes));
    }
    let mut json = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = &operation.body {
        json["requestBody"] = json!({
            "description": body.description, "required": true, "content": contents(&body.contents),
        });
    }
    json
}

fn contents(contents: &[Content]) -> Value {
    let entry = |content: &Content| {
        let value = json!({ "schema": content.schema, "example": content.example });
        (content.media_type.to_owned(), value)
    };
    Value::Object(contents.iter().map(entry).collect())
}

fn success_json(success: &Success) -> Value {
    let headers: Map<String, Value> = success
        .headers
        .iter()
        .map(|(name, description)| {
            let value = json!({
                "description": description, "required": true, "schema": { "type": "string" },
            });
            ((*name).to_owned(), value)
        })
        .collect();
    json!({
        "description": success.description, "headers": headers,
        "content": contents(&success.contents),
    })
}

/// The codes of each status. A code that does not exist has no status, and is left out; a test
/// looks for it.
fn by_status<'a>(codes: impl Iterator<Item = &'a str>) -> BTreeMap<u16, Vec<&'a str>> {
    let examples = ApiError::examples();
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in codes {
        if let Some(example) = examples.iter().find(|example| example.code() == code) {
            let codes = by_status.entry(example.status().as_u16()).or_default();
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
    }
    by_status
}

fn error_response(status: u16, codes: &[&str]) -> Value {
    let mut examples = Map::new();
    let mut title = String::new();
    for example in ApiError::examples() {
        if codes.contains(&example.code()) {
            let problem = example.problem();
            title = problem["title"].as_str().unwrap_or_default().into();
            examples.insert(example.code().into(), json!({ "value": problem }));
        }
    }
    let own = json!({ "properties": { "status": { "const": status }, "code": { "enum": codes } } });
    let codes: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let mut json = json!({
        "description": format!("{title}: {}", codes.join(", ")),
        "content": { "application/problem+json": {
            "schema": { "allOf": [reference("Problem"), own] },
            "examples": examples,
        } },
    });
    if status == 503 {
        json["headers"] = json!({ "Retry-After": {
            "description": "seconds to wait", "required": true, "schema": { "type": "string" },
        } });
    }
    json
}

fn problem() -> Value {
    let field_error = json!({
        "type": "object", "required": ["reason", "pointer"], "properties": {
            "line": count("line of the body, from 1, if the body is a list of lines"),
            "pointer": text("JSON Pointer (RFC 6901) to the field"),
            "reason": text("what is expected, for people"),
        },
    });
    let mut reading_error = object(json!({
        "index": count("place among the readings of the body, from 0"),
        "code": text("code of the reading"),
        "detail": text("what is wrong, for people"),
    }));
    reading_error["properties"]["line"] = count("line of the body, from 1; NDJSON only");
    let mut code = text("what went wrong, for programs");
    code["enum"] = json!(CODES.as_slice());
    json!({
        "type": "object",
        "description": "Problem details (RFC 9457).",
        "required": ["type", "title", "status", "code", "detail"],
        "additionalProperties": true,
        "properties": {
            "type": text("the section of the runbook about the code, relative to the port"),
            "title": text("the name of the status"),
            "status": { "type": "integer", "description": "the status of the response" },
            "code": code,
            "detail": text("what happened and what to do about it, for people"),
            "pointer": text("`invalid_body`: the first field at fault, as a JSON Pointer"),
            "reason": text("`invalid_body`: what is expected of it"),
            "line": count("`invalid_body`: its line, if the body is a list of lines"),
            "errors": {
                "description": "the fields or the readings at fault, at most 100",
                "type": "array", "items": { "anyOf": [field_error, reading_error] },
            },
            "error_count": count("`invalid_body`: the number of all errors"),
            "errors_omitted": count("readings at fault that are not in `errors`"),
            "accepted": count("number of readings that were accepted"),
            "rejected": count("number of readings that were rejected"),
            "unavailable": count("number of readings to send again"),
            "dependents": {
                "type": "object", "additionalProperties": { "type": "integer" },
                "description": "`has_dependents`: how many of each depend on it",
            },
        },
    })
}

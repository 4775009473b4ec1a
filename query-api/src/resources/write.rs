//! Creating, replacing and merging documents.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use service::{ApiError, FieldError};
use store::model::{self, Resource, WriteError};

use super::definition::{Definition, KIND};
use super::error::write_error;
use super::fields::{self, error};
use super::request::{conditions, post_conditions, receive_json};
use super::{Document, Model, document};
use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::Parameters;

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// `POST` on a list.
pub(crate) async fn create(
    model: &Model,
    definition: &'static Definition,
    path: Vec<String>,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    Parameters::new(uri.query(), openapi::NONE).finish()?;
    let (bytes, body) = receive_json(headers, body, &[JSON]).await?;
    let request = post_conditions(headers, uri.path(), &bytes)?;
    let read = move || fields::object(body).and_then(|map| definition.read(map, &[]));
    let values = match definition.resource {
        Resource::Kind => validate(model, read).await?,
        _ => read(),
    };
    let mut values = Value::Object(values.map_err(ApiError::InvalidBody)?);
    if definition.resource == Resource::Component {
        let kind = kind(model, &values["kind"]).await?;
        let validators = model.validators.clone();
        let checked = validate(model, move || {
            validators.check(&kind, &values["attributes"])?;
            Ok(values)
        });
        values = checked.await?.map_err(ApiError::InvalidBody)?;
    }
    let key = definition.new_key(path.clone(), &values);
    let created = model::create(&model.pool, definition.resource, &key, &values, &request).await;
    let created = created.map_err(|error| write_error(definition, &path, &key, error))?;
    let location = definition.location(&path, &created);
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, document(created)).into_response())
}

/// `PUT` on a resource.
pub(crate) async fn put(
    model: &Model,
    definition: &'static Definition,
    path: Vec<String>,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Document, ApiError> {
    Parameters::new(query, openapi::NONE).finish()?;
    let (_, body) = receive_json(headers, body, &[JSON]).await?;
    let body = fields::object(body).map_err(ApiError::InvalidBody)?;
    change(model, definition, path, headers, move |before| {
        let mut body = body.clone();
        // The path already has these.
        for field in definition.fields {
            if (field.fixed || field.name == "device") && !body.contains_key(field.name) {
                body.insert(field.name.into(), before[field.name].clone());
            }
        }
        definition.read(body, definition.computed)
    })
    .await
}

/// `PATCH` on a resource.
pub(crate) async fn patch(
    model: &Model,
    definition: &'static Definition,
    path: Vec<String>,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Document, ApiError> {
    Parameters::new(query, openapi::NONE).finish()?;
    let (_, body) = receive_json(headers, body, &[MERGE_PATCH, JSON]).await?;
    let patch = fields::object(body).map_err(ApiError::InvalidBody)?;
    let is_field = |name: &str| definition.fields.iter().any(|field| field.name == name);
    let unknown: Vec<FieldError> = patch
        .keys()
        .filter(|name| !is_field(name))
        .take(fields::MAX_ERRORS)
        .map(|name| fields::unknown_field(definition.fields, definition.computed, name))
        .collect();
    if !unknown.is_empty() {
        return Err(ApiError::InvalidBody(unknown));
    }
    change(model, definition, path, headers, move |before| {
        let stored = definition.fields.iter();
        let stored = stored.map(|field| (field.name.into(), before[field.name].clone()));
        let mut merged = Value::Object(stored.collect());
        merge(&mut merged, Value::Object(patch.clone()));
        definition.read(fields::object(merged)?, &[])
    })
    .await
}

/// How often a change is computed again because another one came first.
const MAX_ATTEMPTS: usize = 100;

/// Computes the new values of a document and stores them. That is done without a lock, and again if
/// the document was changed in the meantime.
async fn change(
    model: &Model,
    definition: &'static Definition,
    path: Vec<String>,
    headers: &HeaderMap,
    values: impl Fn(&Value) -> Result<Map<String, Value>, Vec<FieldError>> + Clone + Send + 'static,
) -> Result<Document, ApiError> {
    let request = conditions(headers)?;
    let (resource, key) = (definition.resource, definition.key(path)?);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let base = model::get(&model.pool, resource, &key).await;
        let base = base.map_err(|error| api_error(&error))?;
        let base = base.ok_or_else(|| definition.not_found(&key))?;
        let failed = |error| write_error(definition, &key, &key, error);
        model::check_version(&base, &request).map_err(failed)?;
        let kind = match resource {
            Resource::Component => Some(kind(model, &base["kind"]).await?),
            _ => None,
        };
        let (validators, values, before) = (model.validators.clone(), values.clone(), base.clone());
        let compute = move || {
            let values = Value::Object(values(&before)?);
            for field in definition.fields.iter().filter(|field| field.fixed) {
                if values[field.name] != before[field.name] {
                    let reason = format!("this field is fixed: it is {}", before[field.name]);
                    return Err(vec![error(fields::pointer(field.name), reason)]);
                }
            }
            if let Some(kind) = &kind {
                validators.check(kind, &values["attributes"])?;
            }
            Ok(values)
        };
        let values = match resource {
            Resource::Kind | Resource::Component => validate(model, compute).await?,
            _ => compute(),
        };
        let values = values.map_err(ApiError::InvalidBody)?;
        let changed = model::change(&model.pool, resource, &key, &request, &base, &values).await;
        match changed {
            Ok(changed) => return Ok(document(changed)),
            Err(WriteError::Changed) if attempts < MAX_ATTEMPTS => {}
            Err(error) => {
                let name = values["device"]
                    .as_str()
                    .filter(|_| resource == Resource::Device);
                let new_key = name.map_or_else(|| key.clone(), |name| vec![name.to_owned()]);
                return Err(write_error(definition, &key, &new_key, error));
            }
        }
    }
}

/// Runs a check against a schema, or of a schema, on a thread of its own, and few at a time: it may
/// take some time. The place is free when the check ends, even if the request was cancelled.
async fn validate<T: Send + 'static>(
    model: &Model,
    check: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let failed = |error: &dyn std::error::Error| {
        tracing::error!(%error, "a validation failed");
        ApiError::Internal
    };
    let permit = model.validations.clone().acquire_owned().await;
    let permit = permit.map_err(|error| failed(&error))?;
    let checking = tokio::task::spawn_blocking(move || {
        let checked = check();
        drop(permit);
        checked
    });
    checking.await.map_err(|error| failed(&error))
}

/// The document of a kind that a component has.
async fn kind(model: &Model, name: &Value) -> Result<Value, ApiError> {
    let name = name.as_str().unwrap_or_default().to_owned();
    let kind = model::get(&model.pool, KIND.resource, std::slice::from_ref(&name)).await;
    let kind = kind.map_err(|error| api_error(&error))?;
    kind.ok_or_else(|| {
        let reason = format!("no kind '{name}' exists; see /v1/kinds");
        ApiError::InvalidBody(vec![error("/kind", reason)])
    })
}

/// JSON Merge Patch (RFC 7396): an object merges member by member, null removes a member, and
/// anything else replaces.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(&name);
            } else {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn merge_patch_does_what_its_rfc_lists() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, expected, "{target} and {patch}");
        }
    }
}

//! The model over HTTP: components, kinds, devices, series, targets, types and customers.
//!
//! In: documents. Out: documents with their version as `ETag`, lists in pages, and what changed.
//! `POST` creates, `PUT` replaces, `PATCH` merges (RFC 7396), `DELETE` deletes. A write is one
//! transaction, so that a request that fails changes nothing. Until keys exist, `X-Actor` says who
//! changes something.

mod bulk;
mod changes;
pub(crate) mod definition;
mod delete;
mod error;
pub(crate) mod fields;
mod imports;
mod kinds;
mod list;
mod request;
mod targets;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Uri};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::Value;
use service::ApiError;
use store::Pool;
use store::model::health::{self, Health};
use store::model::list::Row;
use store::model::{self, Resource};
use tokio::sync::Semaphore;

use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::Parameters;
use definition::{COMPONENT, CUSTOMER, DEVICE, Definition, KIND, SERIES, TARGET, TYPE};

pub(crate) use request::{actor, media_type};

/// What every request needs.
pub(crate) struct Model {
    pool: Pool,
    validators: Arc<kinds::Validators>,
    validations: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
}

/// Validations at the same time. Each has a thread of its own, because it may take some time.
const MAX_VALIDATIONS: usize = 2;

type Shared = Arc<Model>;

/// The routes of the model.
pub(crate) fn routes(pool: Pool) -> Router {
    let model = Model {
        pool,
        validators: Arc::default(),
        validations: Arc::new(Semaphore::new(MAX_VALIDATIONS)),
        bulk: Arc::new(Semaphore::new(1)),
    };
    let mut router = Router::new();
    for definition in [&KIND, &COMPONENT, &DEVICE, &TYPE, &CUSTOMER] {
        let path = format!("/v1/{}", definition.list);
        router = router.route(&path, collection(definition));
        router = router.route(&format!("{path}/{{id}}"), item(definition));
    }
    let series = "/v1/devices/{device}/series";
    router
        .route(series, nested(&SERIES))
        .route(&format!("{series}/{{metric}}"), item(&SERIES))
        .route(
            &format!("{series}/{{metric}}/targets"),
            nested(&TARGET).put(targets::replace),
        )
        .route(
            &format!("{series}/{{metric}}/targets/{{starts_at}}"),
            item(&TARGET),
        )
        .route("/v1/devices:bulk", post(bulk::create_devices))
        .route("/v1/components:bulk", post(bulk::create_components))
        .route("/v1/changes", get(changes::list))
        .route("/v1/imports", get(imports::list))
        .route("/v1/imports/{id}", get(imports::get).put(imports::put))
        .route("/v1/jobs/{id}", get(delete::job))
        .with_state(Arc::new(model))
}

/// A list whose path has no parameters.
fn collection(definition: &'static Definition) -> MethodRouter<Shared> {
    get(
        move |State(model): State<Shared>, uri: Uri, RawQuery(query): RawQuery| async move {
            list::list(&model, definition, Vec::new(), &uri, query.as_deref()).await
        },
    )
    .post(
        move |State(model): State<Shared>, uri: Uri, headers: HeaderMap, body: Body| async move {
            write::create(&model, definition, Vec::new(), &uri, &headers, body).await
        },
    )
}

/// A list below a device or a series.
fn nested(definition: &'static Definition) -> MethodRouter<Shared> {
    get(
        move |State(model): State<Shared>,
              Path(path): Path<Vec<String>>,
              uri: Uri,
              RawQuery(query): RawQuery| async move {
            list::list(&model, definition, path, &uri, query.as_deref()).await
        },
    )
    .post(
        move |State(model): State<Shared>,
              Path(path): Path<Vec<String>>,
              uri: Uri,
              headers: HeaderMap,
              body: Body| async move {
            write::create(&model, definition, path, &uri, &headers, body).await
        },
    )
}

/// One resource.
fn item(definition: &'static Definition) -> MethodRouter<Shared> {
    get(
        move |State(model): State<Shared>,
              Path(path): Path<Vec<String>>,
              RawQuery(query): RawQuery| async move {
            read(&model, definition, path, query.as_deref()).await
        },
    )
    .put(
        move |State(model): State<Shared>,
              Path(path): Path<Vec<String>>,
              RawQuery(query): RawQuery,
              headers: HeaderMap,
              body: Body| async move {
            write::put(&model, definition, path, query.as_deref(), &headers, body).await
        },
    )
    .patch(
        move |State(model): State<Shared>,
              Path(path): Path<Vec<String>>,
              RawQuery(query): RawQuery,
              headers: HeaderMap,
              body: Body| async move {
            write::patch(&model, definition, path, query.as_deref(), &headers, body).await
        },
    )
    .delete(
        move |State(model): State<Shared>,
              Path(path): Path<Vec<String>>,
              RawQuery(query): RawQuery,
              headers: HeaderMap| async move {
            delete::delete(&model, definition, path, query.as_deref(), &headers).await
        },
    )
}

/// A document, and its version as `ETag`.
type Document = ([(axum::http::HeaderName, String); 1], Json<Value>);

fn document(value: Value) -> Document {
    let etag = format!("\"{}\"", value["version"]);
    ([(axum::http::header::ETAG, etag)], Json(value))
}

async fn read(
    model: &Model,
    definition: &Definition,
    path: Vec<String>,
    query: Option<&str>,
) -> Result<Document, ApiError> {
    Parameters::new(query, openapi::NONE).finish()?;
    let key = definition.key(path)?;
    let found = model::get(&model.pool, definition.resource, &key).await;
    let Some(mut value) = found.map_err(|error| api_error(&error))? else {
        return Err(definition.not_found(&key));
    };
    if definition.resource == Resource::Device {
        let name = key.concat();
        let health = health_of(&model.pool, &[&name]).await?;
        value["health"] = health
            .get(&name)
            .copied()
            .unwrap_or(Health::Unknown)
            .name()
            .into();
    }
    Ok(document(value))
}

/// Adds `health` to the documents of devices.
async fn add_health(pool: &Pool, devices: &mut [Row]) -> Result<(), ApiError> {
    let name = |device: &Row| device.document["device"].as_str().map(str::to_owned);
    let names: Vec<String> = devices.iter().filter_map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let health = health_of(pool, &names).await?;
    for device in devices {
        let own = name(device).and_then(|name| health.get(&name).copied());
        device.document["health"] = own.unwrap_or(Health::Unknown).name().into();
    }
    Ok(())
}

async fn health_of(pool: &Pool, names: &[&str]) -> Result<HashMap<String, Health>, ApiError> {
    let health = health::of_devices(pool, names).await;
    health.map_err(|error| api_error(&error))
}

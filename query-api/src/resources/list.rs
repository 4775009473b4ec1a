//! Lists of the model: filters, orders and pages.
//!
//! In: a query string. Out: `{"…": […], "next": …}` and a `Link` header to the next page.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use service::ApiError;
use store::model::health::Health;
use store::model::list::{self, Filter, List};
use store::model::{self, Resource};
use store::reads::points::Order;
use uuid::Uuid;

use super::definition::{DEVICE, Definition, SERIES};
use super::{Model, add_health};
use crate::error::api_error;
use crate::openapi::parameters as openapi;
use crate::parameters::{Parameters, bad};
use crate::time;

/// Entries of a page, unless the request has a `limit`.
const DEFAULT_LIMIT: usize = 100;
/// Upper bound on the entries of a page.
const MAX_LIMIT: usize = 5_000;
/// Rows of one query: the embedded database has one connection, so that each is short.
const SLICE: usize = 500;
/// Upper bound on the queries of one page: the devices of one health may be far apart.
const MAX_SLICES: usize = 20;
/// A page that is longer than this ends, with a `next`.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;
/// Separates the parts of a position. No name can have it.
const SEPARATOR: char = '\u{1f}';
/// Upper bound on a radius: half of the Earth's circumference.
const MAX_RADIUS: f64 = 20_037_508.0;

/// `GET` on a list.
pub(crate) async fn list(
    model: &Model,
    definition: &'static Definition,
    path: Vec<String>,
    uri: &Uri,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query, openapi::list(definition.resource));
    let limit = parameters.count("limit", MAX_LIMIT)?;
    let sort = parameters.parsed("sort", |text| {
        let found = definition.sorts.iter().find(|(name, _)| *name == text);
        let names: Vec<&str> = definition.sorts.iter().map(|(name, _)| *name).collect();
        let names = names.join(" or ");
        found.ok_or_else(|| format!("sort: '{text}' is not an order: use {names}"))
    })?;
    let mut wanted = List {
        resource: definition.resource,
        key: path,
        filters: filters(definition.resource, &mut parameters)?,
        sort: sort.map_or(definition.sorts[0].1, |(_, sort)| *sort),
        descending: parameters.order()? == Order::NewestFirst,
        after: None,
        limit: limit.unwrap_or(DEFAULT_LIMIT),
    };
    wanted.after = parameters.parsed("next", |text| {
        let position: Vec<String> = text.split(SEPARATOR).map(str::to_owned).collect();
        let is_position = list::is_position(&wanted, &position);
        is_position.then_some(position).ok_or_else(|| {
            format!("next: '{text}' is not a position of this list; use the one of the last page")
        })
    })?;
    let total = parameters.parsed("total", |text| boolean("total", text))? == Some(true);
    let health = match definition.resource {
        Resource::Device => parameters.parsed("health", health)?,
        _ => None,
    };
    parameters.finish()?;
    if total && health.is_some() {
        let reason = "total cannot be combined with health, which is computed for each page";
        return Err(bad(reason.into()));
    }
    check_path(model, definition, &wanted.key).await?;
    let total = match total {
        true => {
            let total = list::total(&model.pool, &wanted).await;
            Some(total.map_err(|error| api_error(&error))?)
        }
        false => None,
    };
    let (documents, next) = page(model, wanted, health).await?;
    let mut headers = HeaderMap::new();
    if let Some(next) = &next {
        headers.insert(header::LINK, link(uri, query, next));
    }
    let mut body = json!({ definition.list: documents, "next": next });
    if let Some(total) = total {
        body["total"] = total.into();
    }
    Ok((headers, Json(body)).into_response())
}

/// A list below a device or a series that does not exist is no empty list.
async fn check_path(
    model: &Model,
    definition: &Definition,
    path: &[String],
) -> Result<(), ApiError> {
    let parent = match definition.resource {
        Resource::Series => &DEVICE,
        Resource::Target => &SERIES,
        _ => return Ok(()),
    };
    let key = parent.key(path.to_vec())?;
    let found = model::get(&model.pool, parent.resource, &key).await;
    match found.map_err(|error| api_error(&error))? {
        Some(_) => Ok(()),
        None => Err(parent.not_found(&key)),
    }
}

async fn page(
    model: &Model,
    mut list: List,
    health: Option<Health>,
) -> Result<(Vec<Value>, Option<String>), ApiError> {
    let limit = list.limit;
    let (mut documents, mut bytes) = (Vec::new(), 0);
    for _ in 0..MAX_SLICES {
        list.limit = match health {
            Some(_) => SLICE,
            None => SLICE.min(limit - documents.len()),
        };
        let rows = list::page(&model.pool, &list).await;
        let mut rows = rows.map_err(|error| api_error(&error))?;
        let is_last = rows.len() < list.limit;
        if list.resource == Resource::Device {
            add_health(&model.pool, &mut rows).await?;
        }
        let count = rows.len();
        for (index, row) in rows.into_iter().enumerate() {
            if health.is_none_or(|own| row.document["health"] == own.name()) {
                bytes += row.bytes;
                documents.push(row.document);
            }
            let is_end = is_last && index + 1 == count;
            if !is_end && (documents.len() == limit || bytes > MAX_PAGE_BYTES) {
                return Ok((documents, Some(row.position.join(&SEPARATOR.to_string()))));
            }
            list.after = Some(row.position);
        }
        if is_last {
            return Ok((documents, None));
        }
    }
    // The page is not full, but enough devices were looked at for one request.
    let next = list
        .after
        .map(|position| position.join(&SEPARATOR.to_string()));
    Ok((documents, next))
}

/// The `Link` header to the next page.
fn link(uri: &Uri, query: Option<&str>, next: &str) -> HeaderValue {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs.filter(|(name, _)| name != "next"))
        .append_pair("next", next)
        .finish();
    let link = format!("<{}?{query}>; rel=\"next\"", uri.path());
    HeaderValue::try_from(link).unwrap_or(HeaderValue::from_static(""))
}

fn filters(resource: Resource, parameters: &mut Parameters<'_>) -> Result<Vec<Filter>, ApiError> {
    let mut filters = Vec::new();
    let id = |name: &'static str| {
        move |text: &str| {
            let id = text.parse::<Uuid>();
            id.map_err(|_| format!("{name}: '{text}' is not a UUID"))
        }
    };
    let instant = |name: &'static str| move |text: &str| time::parse(name, text, &TimeZone::UTC);
    match resource {
        Resource::Component => {
            filters.extend(text(parameters, "kind")?.map(Filter::Kind));
            filters.extend(parameters.parsed("parent", |text| match text {
                "none" => Ok(Filter::Root),
                _ => id("parent")(text).map(Filter::Parent).map_err(|reason| {
                    format!("{reason}; for components without a parent use none")
                }),
            })?);
        }
        Resource::Device => {
            filters.extend(parameters.parsed("type", id("type"))?.map(Filter::Type));
            let active = parameters.parsed("active", |text| boolean("active", text))?;
            filters.extend(active.map(Filter::Active));
        }
        Resource::Type => {
            filters.extend(text(parameters, "category")?.map(Filter::Category));
            filters.extend(text(parameters, "name")?.map(Filter::Name));
        }
        Resource::Customer => filters.extend(text(parameters, "name")?.map(Filter::Name)),
        Resource::Target => {
            filters.extend(
                parameters
                    .parsed("from", instant("from"))?
                    .map(Filter::From),
            );
            filters.extend(parameters.parsed("to", instant("to"))?.map(Filter::To));
        }
        Resource::Kind | Resource::Series => {}
    }
    if matches!(resource, Resource::Component | Resource::Device) {
        let within = parameters.parsed("within", id("within"))?;
        let at = parameters.parsed("at", instant("at"))?;
        filters.extend(match (within, at) {
            (Some(root), Some(at)) => Some(Filter::WithinAt(root, at)),
            (Some(root), None) => Some(Filter::Within(root)),
            (None, Some(_)) => return Err(bad("at needs within: the id of a component".into())),
            (None, None) => None,
        });
        filters.extend(
            parameters
                .parsed("customer", id("customer"))?
                .map(Filter::Customer),
        );
        filters.extend(parameters.parsed("box", bounding_box)?);
        filters.extend(near(parameters)?);
    }
    if !matches!(resource, Resource::Series | Resource::Target) {
        filters.extend(text(parameters, "text")?.map(Filter::Text));
    }
    Ok(filters)
}

/// Text that PostgreSQL can compare.
fn text(parameters: &mut Parameters<'_>, name: &'static str) -> Result<Option<String>, ApiError> {
    parameters.parsed(name, |text| {
        let is_text = !text.is_empty() && !text.contains('\0');
        let error = || format!("{name} must be at least one character, and not U+0000");
        is_text.then(|| text.to_owned()).ok_or_else(error)
    })
}

pub(super) fn boolean(name: &str, text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("{name}: '{text}' is not true or false"))
}

fn health(text: &str) -> Result<Health, String> {
    let found = Health::ALL.into_iter().find(|health| health.name() == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = Health::ALL.iter().map(|health| health.name()).collect();
        format!("health: '{text}' is not one of {}", names.join(", "))
    })
}

fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let numbers: Option<Vec<f64>> = text
        .split(',')
        .map(|part| part.trim().parse().ok())
        .collect();
    let numbers: [f64; N] = numbers?.try_into().ok()?;
    numbers
        .iter()
        .all(|number| number.is_finite())
        .then_some(numbers)
}

fn is_location(latitude: f64, longitude: f64) -> bool {
    (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude)
}

/// The order is that of GeoJSON.
fn bounding_box(text: &str) -> Result<Filter, String> {
    let corners = numbers(text).filter(|&[west, south, east, north]| {
        is_location(south, west) && is_location(north, east) && south <= north
    });
    let [west, south, east, north] = corners.ok_or_else(|| {
        format!("box: '{text}' is not west,south,east,north in degrees, such as 8.4,49.9,8.9,50.2")
    })?;
    Ok(Filter::Box {
        west,
        south,
        east,
        north,
    })
}

fn near(parameters: &mut Parameters<'_>) -> Result<Option<Filter>, ApiError> {
    let point = parameters.parsed("near", |text| {
        let point = numbers(text).filter(|&[latitude, longitude]| is_location(latitude, longitude));
        point.ok_or_else(|| {
            format!("near: '{text}' is not latitude,longitude in degrees, such as 50.1,8.7")
        })
    })?;
    let radius = parameters.parsed("radius", |text| {
        let metres = text.parse().ok();
        let metres = metres.filter(|metres: &f64| *metres > 0.0 && *metres <= MAX_RADIUS);
        metres.ok_or_else(|| {
            format!("radius: '{text}' is not a number of metres above 0, at most {MAX_RADIUS}")
        })
    })?;
    match (point, radius) {
        (Some([latitude, longitude]), Some(metres)) => Ok(Some(Filter::Near {
            latitude,
            longitude,
            metres,
        })),
        (None, None) => Ok(None),
        _ => Err(bad("near and radius belong together; give both".into())),
    }
}

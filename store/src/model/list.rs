//! Lists of the model, in pages.
//!
//! In: a [`List`], with filters, an order and the position behind which the page starts. Out: the
//! documents of the page, each with its position. Orders are those of an index, and the key is
//! their last part, so that a page starts exactly behind the last row of the page before it.

use schema::reading::{MAX_MEASURED_AT, MIN_MEASURED_AT, Micros};
use serde_json::Value;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Resource, parse};
use crate::Pool;
use crate::ledger::timestamp;
use crate::reads::{self, ReadError};

/// What is listed.
#[derive(Debug, Clone)]
pub struct List {
    /// The table.
    pub resource: Resource,
    /// The values in the path of the list: the device of a list of series.
    pub key: Vec<String>,
    /// Conditions, all of which hold for each row.
    pub filters: Vec<Filter>,
    /// The order.
    pub sort: Sort,
    /// Whether the order is reversed.
    pub descending: bool,
    /// The position of the last row of the page before.
    pub after: Option<Vec<String>>,
    /// Upper bound on the rows of the page.
    pub limit: usize,
}

/// A condition on rows. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// The name, or the external id, contains this text, in upper or lower case.
    Text(String),
    /// The kind of a component.
    Kind(String),
    /// A component without a parent.
    Root,
    /// The parent of a component.
    Parent(Uuid),
    /// A component in this subtree, or a device attached to one.
    Within(Uuid),
    /// The same, in the tree of a time.
    WithinAt(Uuid, Micros),
    /// A component that this customer owns, itself or by an ancestor, or a device attached to one.
    Customer(Uuid),
    /// The category of a type.
    Category(String),
    /// The exact name.
    Name(String),
    /// The type of a device.
    Type(Uuid),
    /// Whether a device is active.
    Active(bool),
    /// Between west and east, and between south and north, in degrees.
    Box {
        /// Least longitude. More than `east` if the box contains the 180th meridian.
        west: f64,
        /// Least latitude.
        south: f64,
        /// Greatest longitude.
        east: f64,
        /// Greatest latitude.
        north: f64,
    },
    /// Within a distance of a point.
    Near {
        /// In degrees.
        latitude: f64,
        /// In degrees.
        longitude: f64,
        /// The distance.
        metres: f64,
    },
    /// Targets that start at or after this time.
    From(Micros),
    /// Targets that start before this time.
    To(Micros),
}

/// An order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// The key: the time of creation of a row whose key is an id.
    Key,
    /// The time of creation of devices.
    Created,
    /// The name.
    Name,
    /// The time of the last change.
    Updated,
}

type Parameter = Box<dyn ToSql + Sync + Send>;

/// The text of a query and its parameters.
struct Sql {
    conditions: Vec<String>,
    parameters: Vec<Parameter>,
}

impl Sql {
    /// The placeholder of a value.
    fn bind(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.parameters.push(Box::new(value));
        format!("${}", self.parameters.len())
    }

    fn filter(&mut self, resource: Resource, filter: &Filter) {
        let component = match resource {
            Resource::Device => "e.component",
            _ => "e.id",
        };
        let condition = match filter {
            Filter::Text(text) => {
                let text = self.bind(text.to_lowercase());
                let contains = |column| format!("position({text}::text IN lower({column})) > 0");
                match resource {
                    Resource::Device => {
                        format!("({} OR {})", contains("e.external_id"), contains("e.name"))
                    }
                    _ => contains("e.name"),
                }
            }
            Filter::Kind(kind) => format!("e.kind = {}", self.bind(kind.clone())),
            Filter::Root => "e.parent IS NULL".into(),
            Filter::Parent(parent) => format!("e.parent = {}", self.bind(*parent)),
            Filter::Within(root) => {
                let root = self.bind(*root);
                format!("{component} IN (SELECT component FROM gridwatch_subtree({root}))")
            }
            Filter::WithinAt(root, at) => {
                let (root, at) = (self.bind(*root), self.bind_time(*at));
                let subtree = format!("(SELECT component FROM gridwatch_subtree({root}, {at}))");
                match resource {
                    Resource::Device => format!(
                        "e.id IN (SELECT device_id FROM placement
                                  WHERE parent IN {subtree} AND device_id IS NOT NULL
                                    AND valid_from <= {at} AND valid_to > {at})"
                    ),
                    _ => format!("{component} IN {subtree}"),
                }
            }
            Filter::Customer(customer) => {
                let customer = self.bind(*customer);
                format!(
                    "{component} IN (
                        WITH RECURSIVE owned (id) AS (
                            SELECT id FROM component WHERE customer = {customer}
                            UNION SELECT c.id FROM owned JOIN component c ON c.parent = owned.id
                                  WHERE c.customer IS NULL)
                        SELECT id FROM owned)"
                )
            }
            Filter::Category(category) => {
                format!("e.category = {}", self.bind(category.clone()))
            }
            Filter::Name(name) => format!("e.name = {}", self.bind(name.clone())),
            Filter::Type(id) => format!("e.type = {}", self.bind(*id)),
            Filter::Active(active) => format!("e.active = {}", self.bind(*active)),
            Filter::Box {
                west,
                south,
                east,
                north,
            } => {
                let (south, north) = (self.bind(*south), self.bind(*north));
                let (west_name, east_name) = (self.bind(*west), self.bind(*east));
                let join = if west <= east { "AND" } else { "OR" };
                format!(
                    "e.latitude BETWEEN {south} AND {north}
                     AND (e.longitude >= {west_name} {join} e.longitude <= {east_name})"
                )
            }
            Filter::Near {
                latitude,
                longitude,
                metres,
            } => {
                // A degree of latitude has at least 110,574 m. The distance is that on a sphere
                // (haversine), whose error is at most 0.6 %.
                let margin = metres / 110_574.0;
                let south = self.bind(latitude - margin);
                let north = self.bind(latitude + margin);
                let latitude = self.bind(*latitude);
                let longitude = self.bind(*longitude);
                let metres = self.bind(*metres);
                format!(
                    "e.latitude BETWEEN {south} AND {north}
                     AND 2 * 6371008.8 * asin(sqrt(least(1,
                         power(sind((e.latitude - {latitude}) / 2), 2)
                         + cosd({latitude}) * cosd(e.latitude)
                           * power(sind((e.longitude - {longitude}) / 2), 2)))) <= {metres}"
                )
            }
            Filter::From(time) => format!("e.starts_at >= {}", self.bind_time(*time)),
            Filter::To(time) => format!("e.starts_at < {}", self.bind_time(*time)),
        };
        self.conditions.push(condition);
    }

    fn bind_time(&mut self, time: Micros) -> String {
        self.bind(timestamp(time))
    }
}

impl Sort {
    /// The columns of the order, each with its type.
    const fn columns(self, resource: Resource) -> &'static [(&'static str, &'static str)] {
        match (self, resource) {
            (Self::Created, Resource::Device) => &[("e.id", "integer")],
            (_, Resource::Device) => &[("e.external_id", "text")],
            (_, Resource::Kind) => &[("e.name", "text")],
            (_, Resource::Series) => &[("e.metric", "text")],
            (_, Resource::Target) => &[("e.starts_at", "timestamptz")],
            (Self::Name, _) => &[("e.name", "text"), ("e.id", "uuid")],
            (Self::Updated, _) => &[("e.updated_at", "timestamptz"), ("e.id", "uuid")],
            // The ids are UUIDs of version 7, which start with the time.
            (Self::Key | Self::Created, _) => &[("e.id", "uuid")],
        }
    }
}

/// Whether `next` can be a position of this list.
pub fn is_position(list: &List, position: &[String]) -> bool {
    let columns = list.sort.columns(list.resource);
    columns.len() == position.len()
        && columns
            .iter()
            .zip(position)
            .all(|((_, kind), value)| match *kind {
                "integer" => value.parse::<i32>().is_ok(),
                "uuid" => value.parse::<Uuid>().is_ok(),
                "timestamptz" => value
                    .parse()
                    .is_ok_and(|time| (MIN_MEASURED_AT..=MAX_MEASURED_AT).contains(&time)),
                _ => !value.contains('\0'),
            })
}

/// A row of a page.
#[derive(Debug)]
pub struct Row {
    /// The document.
    pub document: Value,
    /// Where the next page starts if this is the last row of its page.
    pub position: Vec<String>,
    /// Length of the document as text.
    pub bytes: usize,
}

/// The rows of a page.
///
/// # Errors
/// [`ReadError`].
pub async fn page(pool: &Pool, list: &List) -> Result<Vec<Row>, ReadError> {
    let mut sql = start(list);
    let columns = list.sort.columns(list.resource);
    if let Some(after) = &list.after {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let mut values = Vec::new();
        for ((_, kind), value) in columns.iter().zip(after) {
            values.push(match *kind {
                "timestamptz" => sql.bind_time(value.parse().unwrap_or_default()),
                kind => format!("{}::text::{kind}", sql.bind(value.clone())),
            });
        }
        let operator = if list.descending { "<" } else { ">" };
        let condition = format!("({}) {operator} ({})", names.join(", "), values.join(", "));
        sql.conditions.push(condition);
    }
    let direction = if list.descending { " DESC" } else { "" };
    let order: Vec<String> = columns
        .iter()
        .map(|(name, _)| format!("{name}{direction}"))
        .collect();
    let position: Vec<String> = columns
        .iter()
        .map(|(name, kind)| match *kind {
            "timestamptz" => format!("(extract(epoch FROM {name}) * 1000000)::bigint::text"),
            _ => format!("{name}::text"),
        })
        .collect();
    let limit = sql.bind(i64::try_from(list.limit).unwrap_or(i64::MAX));
    let text = format!(
        "SELECT {}, ARRAY[{}] FROM {} e WHERE {} ORDER BY {} LIMIT {limit}",
        list.resource.document(),
        position.join(", "),
        list.resource.table(),
        sql.conditions.join(" AND "),
        order.join(", "),
    );
    let rows = reads::query(pool, &text, &references(&sql.parameters)).await?;
    let row = |row: &tokio_postgres::Row| {
        let text: &str = row.get(0);
        Ok(Row {
            document: parse(text)?,
            position: row.get(1),
            bytes: text.len(),
        })
    };
    rows.iter().map(row).collect()
}

/// The number of rows of all pages.
///
/// # Errors
/// [`ReadError`].
pub async fn total(pool: &Pool, list: &List) -> Result<i64, ReadError> {
    let sql = start(list);
    let text = format!(
        "SELECT count(*) FROM {} e WHERE {}",
        list.resource.table(),
        sql.conditions.join(" AND ")
    );
    let rows = reads::query(pool, &text, &references(&sql.parameters)).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// The conditions of a list, without its position.
fn start(list: &List) -> Sql {
    let mut sql = Sql {
        conditions: vec!["$1::text[] IS NOT NULL".into(), list.resource.is_listed()],
        parameters: vec![Box::new(list.key.clone())],
    };
    for filter in &list.filters {
        sql.filter(list.resource, filter);
    }
    sql
}

fn references(parameters: &[Parameter]) -> Vec<&(dyn ToSql + Sync)> {
    parameters
        .iter()
        .map(|parameter| &**parameter as &(dyn ToSql + Sync))
        .collect()
}

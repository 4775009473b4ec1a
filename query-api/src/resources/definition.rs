//! The resources of the model: their names in paths and bodies, and their fields.
//!
//! To add one: copy a neighbour, and register it in `resources::routes`.

use serde_json::{Map, Value};
use service::{ApiError, FieldError};
use store::model::Resource;
use store::model::list::Sort;
use uuid::Uuid;

use super::fields::Absent::{EmptyList, EmptyObject, Null, Refused, Text, True};
use super::fields::{Field, Rule, error, time_text};

/// A resource.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) resource: Resource,
    /// The member of a list's body.
    pub(crate) list: &'static str,
    pub(crate) fields: &'static [Field],
    /// Fields that are computed. `PUT` ignores them, so that a document that was read can be
    /// changed and sent back.
    pub(crate) computed: &'static [&'static str],
    /// The orders of a list, each with its name. The first one is the default.
    pub(crate) sorts: &'static [(&'static str, Sort)],
    /// Checks that concern more than one field.
    pub(crate) check: fn(&Map<String, Value>, &mut Vec<FieldError>),
}

const META: [&str; 4] = ["version", "created_at", "updated_at", "updated_by"];
const META_ID: [&str; 5] = ["id", META[0], META[1], META[2], META[3]];
const LATITUDE: Field = Field::new("latitude", Rule::Number(-90.0, 90.0), Null);
const LONGITUDE: Field = Field::new("longitude", Rule::Number(-180.0, 180.0), Null);
const ATTRIBUTES: Field = Field::new("attributes", Rule::Object, EmptyObject);
const NAME: Field = Field::new("name", Rule::Text(256), Refused);
/// A year, in seconds: the upper bound on the interval that is expected between readings.
const YEAR_SECONDS: f64 = 366.0 * 86_400.0;

pub(crate) static KIND: Definition = Definition {
    resource: Resource::Kind,
    list: "kinds",
    fields: &[
        Field::fixed("name", Rule::Slug),
        Field::new("parents", Rule::Parents, EmptyList),
        Field::new("attributes", Rule::Schema, EmptyObject),
    ],
    computed: &META,
    sorts: &[("name", Sort::Key)],
    check: |_, _| {},
};

pub(crate) static COMPONENT: Definition = Definition {
    resource: Resource::Component,
    list: "components",
    fields: &[
        Field::fixed("kind", Rule::Slug),
        Field::new("parent", Rule::Uuid, Null),
        NAME,
        Field::new("time_zone", Rule::TimeZone, Null),
        LATITUDE,
        LONGITUDE,
        ATTRIBUTES,
        Field::new("customer", Rule::Uuid, Null),
    ],
    computed: &[
        META_ID[0],
        META[0],
        META[1],
        META[2],
        META[3],
        "effective_time_zone",
        "missing",
    ],
    sorts: &[
        ("created_at", Sort::Key),
        ("name", Sort::Name),
        ("updated_at", Sort::Updated),
    ],
    check: check_location,
};

pub(crate) static DEVICE: Definition = Definition {
    resource: Resource::Device,
    list: "devices",
    fields: &[
        Field::new("device", Rule::Device, Refused),
        Field::new("type", Rule::Uuid, Null),
        Field::new("name", Rule::Text(256), Null),
        Field::new("component", Rule::Uuid, Null),
        LATITUDE,
        LONGITUDE,
        Field::new("specs", Rule::Object, EmptyObject),
        Field::new("configuration", Rule::Object, EmptyObject),
        Field::new("active", Rule::Boolean, True),
        Field::new("activation_date", Rule::Date, Null),
        Field::new("expected_interval", Rule::Positive(YEAR_SECONDS), Null),
    ],
    computed: &[META[0], META[1], META[2], META[3], "series", "health"],
    sorts: &[("device", Sort::Key), ("created_at", Sort::Created)],
    check: check_location,
};

pub(crate) static SERIES: Definition = Definition {
    resource: Resource::Series,
    list: "series",
    fields: &[
        Field::fixed("metric", Rule::Metric),
        Field::new("unit", Rule::Text(64), Null),
        Field::new(
            "kind",
            Rule::OneOf(&["gauge", "counter", "interval"]),
            Text("gauge"),
        ),
        Field::new("rollover", Rule::Positive(f64::MAX), Null),
    ],
    computed: &[META[0], META[1], META[2], META[3], "device"],
    sorts: &[("metric", Sort::Key)],
    check: |series, errors| {
        if series["kind"] != "counter" && !series["rollover"].is_null() {
            errors.push(error(
                "/rollover",
                "only a series of kind counter has a rollover",
            ));
        }
    },
};

pub(crate) static TARGET: Definition = Definition {
    resource: Resource::Target,
    list: "targets",
    fields: &[
        Field::fixed("starts_at", Rule::Time),
        Field::new("value", Rule::Number(f64::MIN, f64::MAX), Null),
    ],
    computed: &META,
    sorts: &[("starts_at", Sort::Key)],
    check: |_, _| {},
};

pub(crate) static TYPE: Definition = Definition {
    resource: Resource::Type,
    list: "types",
    fields: &[
        Field::new("category", Rule::Text(64), Refused),
        NAME,
        ATTRIBUTES,
    ],
    computed: &META_ID,
    sorts: &[("created_at", Sort::Key), ("name", Sort::Name)],
    check: |_, _| {},
};

pub(crate) static CUSTOMER: Definition = Definition {
    resource: Resource::Customer,
    list: "customers",
    fields: &[NAME, ATTRIBUTES],
    computed: &META_ID,
    sorts: &[("created_at", Sort::Key), ("name", Sort::Name)],
    check: |_, _| {},
};

fn check_location(map: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    for (name, other) in [("latitude", "longitude"), ("longitude", "latitude")] {
        if map[name].is_null() && !map[other].is_null() {
            let reason = format!("{other} is given, so {name} is required");
            errors.push(error(format!("/{name}"), reason));
        }
    }
}

impl Definition {
    /// Every field of an object, or every error.
    pub(crate) fn read(
        &self,
        map: Map<String, Value>,
        ignored: &[&str],
    ) -> Result<Map<String, Value>, Vec<FieldError>> {
        let values = super::fields::read(self.fields, ignored, map)?;
        let mut errors = Vec::new();
        (self.check)(&values, &mut errors);
        if errors.is_empty() {
            Ok(values)
        } else {
            Err(errors)
        }
    }

    /// The key of a path in its normal form.
    ///
    /// # Errors
    /// 404: no row can have this key.
    pub(crate) fn key(&self, mut path: Vec<String>) -> Result<Vec<String>, ApiError> {
        let missing = self.not_found(&path);
        let normal = match (self.resource, path.last()) {
            (Resource::Component | Resource::Type | Resource::Customer, Some(id)) => {
                id.parse::<Uuid>().ok().map(|id| id.to_string())
            }
            (Resource::Target, Some(time)) => time_text(time),
            (_, last) => last.cloned(),
        };
        match (normal, path.last_mut()) {
            (Some(normal), Some(last)) => *last = normal,
            _ => return Err(missing),
        }
        Ok(path)
    }

    /// The key of a new row in the list of this path.
    pub(crate) fn new_key(&self, mut path: Vec<String>, value: &Value) -> Vec<String> {
        let own = match self.resource {
            Resource::Kind => value["name"].as_str(),
            Resource::Device => value["device"].as_str(),
            Resource::Series => value["metric"].as_str(),
            Resource::Target => value["starts_at"].as_str(),
            Resource::Component | Resource::Type | Resource::Customer => None,
        };
        path.push(own.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned));
        path
    }

    /// The URL path of a document.
    pub(crate) fn location(&self, path: &[String], document: &Value) -> String {
        let part = |name: &str| encode(document[name].as_str().unwrap_or_default());
        let before: Vec<String> = path.iter().map(|part| encode(part)).collect();
        match (self.resource, before.as_slice()) {
            (Resource::Kind, _) => format!("/v1/kinds/{}", part("name")),
            (Resource::Device, _) => format!("/v1/devices/{}", part("device")),
            (Resource::Series, [device, ..]) => {
                format!("/v1/devices/{device}/series/{}", part("metric"))
            }
            (Resource::Target, [device, metric, ..]) => {
                format!(
                    "/v1/devices/{device}/series/{metric}/targets/{}",
                    part("starts_at")
                )
            }
            _ => format!("/v1/{}/{}", self.list, part("id")),
        }
    }

    /// The error of a key that no row has.
    pub(crate) fn not_found(&self, key: &[String]) -> ApiError {
        match (self.resource, key) {
            (Resource::Device | Resource::Series, [device]) => {
                ApiError::UnknownDevice(device.clone())
            }
            (Resource::Series | Resource::Target, [device, metric]) => ApiError::UnknownSeries {
                device: device.clone(),
                metric: metric.clone(),
            },
            (_, key) => ApiError::UnknownResource {
                what: self.resource.name(),
                id: key.last().cloned().unwrap_or_default(),
            },
        }
    }
}

/// Percent-encodes a part of a path.
fn encode(part: &str) -> String {
    let mut encoded = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_each_resource_are_the_columns_of_its_table() {
        for definition in [
            &KIND, &COMPONENT, &DEVICE, &SERIES, &TARGET, &TYPE, &CUSTOMER,
        ] {
            let fields: Vec<&str> = definition.fields.iter().map(|field| field.name).collect();
            let columns = definition.resource.columns().iter();
            let columns: Vec<&str> = columns.map(|column| column.field).collect();
            assert_eq!(fields, columns);
        }
    }
}

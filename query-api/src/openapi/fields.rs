//! The fields of the model as JSON Schemas: what each of them accepts, and what it means.
//!
//! In: the tables that the handlers read bodies with. Out: schemas of documents, and of the bodies
//! that create, replace and change them.

use serde_json::{Map, Value, json};
use service::openapi::schema::{
    boolean, count, list, nullable, number, object, reference, text, time, uuid,
};
use store::model::Resource;

use crate::resources::definition::Definition;
use crate::resources::fields::{Absent, Field, Rule};

/// Which body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A document in a response.
    Response,
    Create,
    Replace,
    Merge,
}

/// The schema of a document, or of the body of a write.
pub(super) fn schema(definition: &Definition, usage: Use) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in definition.fields {
        let is_refused = field.absent == Absent::Refused;
        // Those that the path has may be left out.
        let in_path = field.fixed || field.name == "device";
        if match usage {
            Use::Response => true,
            Use::Create => is_refused,
            Use::Replace => is_refused && !in_path,
            Use::Merge => false,
        } {
            required.push(field.name);
        }
        properties.insert(
            field.name.into(),
            property(definition.resource, field, usage),
        );
    }
    let computed = definition.computed.iter().filter(|_| {
        // PUT ignores these.
        matches!(usage, Use::Response | Use::Replace)
    });
    for name in computed {
        if usage == Use::Response && *name != "missing" && *name != "health" {
            required.push(name);
        }
        properties.insert((*name).into(), computed_field(name, usage));
    }
    json!({
        "type": "object", "required": required, "additionalProperties": false,
        "properties": properties,
    })
}

fn property(resource: Resource, field: &Field, usage: Use) -> Value {
    let mut schema = rule(field.rule, usage);
    schema["description"] = describe(resource, field.name).into();
    // A field that is absent and one that is null are the same.
    let is_nullable = match usage {
        Use::Response => field.absent == Absent::Null,
        _ => field.absent != Absent::Refused,
    };
    match is_nullable {
        true => nullable(schema),
        false => schema,
    }
}

fn rule(rule: Rule, usage: Use) -> Value {
    match rule {
        Rule::Text(max) => json!({
            "type": "string", "minLength": 1, "maxLength": max,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
        }),
        Rule::Device => name(schema::reading::MAX_DEVICE_BYTES),
        Rule::Metric => name(schema::reading::MAX_METRIC_BYTES),
        Rule::Slug => json!({ "type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$" }),
        Rule::Uuid => json!({ "type": "string", "format": "uuid" }),
        Rule::Boolean => json!({ "type": "boolean" }),
        Rule::Number(min, max) if min == f64::MIN && max == f64::MAX => json!({ "type": "number" }),
        Rule::Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Rule::Positive(max) if max == f64::MAX => {
            json!({ "type": "number", "exclusiveMinimum": 0 })
        }
        Rule::Positive(max) => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": max }),
        Rule::Object | Rule::Schema => json!({ "type": "object" }),
        Rule::TimeZone => json!({ "type": "string", "examples": ["Europe/Berlin"] }),
        Rule::Date => json!({ "type": "string", "format": "date" }),
        Rule::Time if usage == Use::Response => json!({ "type": "string", "format": "date-time" }),
        Rule::Time => json!({
            "anyOf": [
                { "type": "string", "format": "date-time" },
                { "type": "string", "format": "date" },
                { "type": "string", "pattern": "^[+-]?[0-9]{1,15}$" },
            ],
        }),
        Rule::OneOf(names) => json!({ "type": "string", "enum": names }),
        Rule::Parents => list(parent(usage)),
    }
}

/// A name as in a reading: without control characters, and without white space at its ends.
fn name(max: usize) -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": max,
        "pattern": "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]\
                    ([^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f])?$",
    })
}

/// A rule for the parents of a kind.
fn parent(usage: Use) -> Value {
    let whole = |minimum: i64, description: &str| {
        json!({
            "type": "integer", "minimum": minimum, "maximum": 1_000_000_000,
            "description": description,
        })
    };
    let mut schema = object(json!({
        "kind": {
            "type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$",
            "description": "kind of the parent",
        },
        "min": whole(0, "how many components of the kind a parent needs"),
        "max": nullable(whole(1, "how many a parent may have; null: any number")),
    }));
    if usage != Use::Response {
        schema["required"] = json!(["kind"]);
        schema["properties"]["min"] = nullable(schema["properties"]["min"].take());
    }
    schema
}

/// A field that the server computes.
fn computed_field(name: &str, usage: Use) -> Value {
    if usage == Use::Replace {
        return json!({ "description": "computed, and ignored" });
    }
    match name {
        "id" => uuid("the id that the server chose"),
        "version" => count("grows with each change; the `ETag`"),
        "created_at" => time("when it was created"),
        "updated_at" => time("when it was changed last"),
        "updated_by" => text("who changed it last, see the header `X-Actor`"),
        "effective_time_zone" => nullable(text(
            "IANA name of its own zone, or of the nearest ancestor with one; null: UTC",
        )),
        "missing" => {
            let mut missing = list(object(json!({
                "kind": text("kind of the children"),
                "min": count("how many it needs"),
                "count": count("how many it has"),
            })));
            missing["description"] = "children that the rules of their kinds ask for".into();
            missing
        }
        "series" => {
            let mut series = list(object(json!({
                "metric": text("name of the metric"),
                "unit": nullable(text("unit (UCUM)")),
                "kind": text("gauge, counter or interval"),
            })));
            series["description"] = "its metrics".into();
            series
        }
        "health" => {
            let mut health = text(
                "from the latest readings and `expected_interval`: `ok`, at most 2 intervals old; \
                 `unreachable`, more than 5; `deteriorated`, in between or mixed; `unknown`",
            );
            health["enum"] = json!(["ok", "deteriorated", "unreachable", "unknown"]);
            health
        }
        "device" => text("external id of the device"),
        _ => json!({}),
    }
}

/// What a field means. A test asks for every field.
pub(super) fn describe(resource: Resource, name: &str) -> &'static str {
    match (resource, name) {
        (Resource::Kind, "name") => "name of the kind; fixed",
        (Resource::Kind, "parents") => {
            "the kinds of parents that its components may have; a kind without parents is a root"
        }
        (Resource::Kind, "attributes") => {
            "JSON Schema of the attributes of its components, at most 64 KiB"
        }
        (Resource::Component, "kind") => "name of the kind; fixed",
        (Resource::Component, "parent") => "id of the parent; null for a root",
        (Resource::Component, "time_zone") => {
            "IANA name of the zone of its days; null: inherited from the parent"
        }
        (Resource::Component, "attributes") => "as the JSON Schema of its kind asks for",
        (Resource::Component, "customer") => "id of the customer who owns it and what is below",
        (_, "latitude") => "degrees north (WGS 84); given together with `longitude`",
        (_, "longitude") => "degrees east (WGS 84); given together with `latitude`",
        (Resource::Device, "device") => "external id: its name on the wire, unique",
        (Resource::Device, "type") => "id of an entry of the catalogue",
        (Resource::Device, "component") => "id of the component that it is attached to",
        (Resource::Device, "specs") => "what the device is, at most 64 KiB",
        (Resource::Device, "configuration") => "how the device is set, at most 64 KiB",
        (Resource::Device, "active") => "readings of an inactive device are rejected",
        (Resource::Device, "activation_date") => "the day on which it went into operation",
        (Resource::Device, "expected_interval") => {
            "seconds between two readings, for health and coverage"
        }
        (Resource::Series, "metric") => "name of the metric; fixed",
        (Resource::Series, "unit") => "unit of the values (UCUM), such as kWh",
        (Resource::Series, "kind") => {
            "`gauge`, a state; `counter`, a register that grows; `interval`, the amount of a time"
        }
        (Resource::Series, "rollover") => {
            "of a counter: the value at which it starts again from 0, in its unit"
        }
        (Resource::Target, "starts_at") => {
            "from when on it holds, until the next target; RFC 3339, a date, or a number of \
             milliseconds since 1970 as text; fixed"
        }
        (Resource::Target, "value") => {
            "the goal in the unit of the series, of a counter its increase per hour; null: none"
        }
        (Resource::Type, "category") => "what kind of thing it is, such as meter or sprocket",
        (Resource::Type | Resource::Customer, "attributes") => "an object of at most 64 KiB",
        (_, "name") => "name for people",
        _ => "",
    }
}

/// The body of a list.
pub(super) fn page(name: &str, item: &str) -> Value {
    let mut schema = object(json!({
        name: list(reference(item)),
        "next": nullable(text("the parameter `next` of the page behind it; null on the last one")),
    }));
    schema["properties"]["total"] = count("entries of all pages, with `total=true`");
    schema
}

/// The body of a response to a deletion.
pub(super) fn deletion() -> Value {
    object(json!({
        "deleted": {
            "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 },
            "description": "the number of each that was deleted",
        },
        "job": nullable(uuid("the job that deletes the rest")),
    }))
}

/// A job.
pub(super) fn job() -> Value {
    object(json!({
        "id": uuid("the id of the job"),
        "action": text("what it does"),
        "state": { "type": "string", "enum": ["running", "done", "failed"] },
        "actor": text("who asked for it"),
        "error": nullable(text("why it failed")),
        "deleted": {
            "type": "object", "additionalProperties": { "type": "integer" },
            "description": "the number of each that was deleted so far",
        },
        "progress": number("from 0 to 1"),
        "created_at": time("when it was asked for"),
        "updated_at": time("when it did something last"),
        "finished_at": nullable(time("when it was done")),
    }))
}

/// Whether a list was cut off.
pub(super) fn complete() -> Value {
    boolean("false if there is more than was looked for")
}

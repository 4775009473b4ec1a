//! The operations that create many devices or components.

use serde_json::{Value, json};
use service::openapi::schema::{count, list, nullable, object, text};
use service::openapi::{Body, Content, Operation};

use super::fields::{Use, schema};
use super::{BODY, json, operation, parameters, success};
use crate::resources::definition::{COMPONENT, DEVICE, SERIES};

/// What a body has, in each form.
struct Rows {
    schema: Value,
    array: Value,
    line: &'static str,
    table: &'static str,
    /// What was created, and an example.
    created: Value,
    example: Value,
}

pub(super) fn devices() -> Operation {
    let own = operation(
        ("post", "/v1/devices:bulk", "createDevices"),
        "Devices",
        (
            "Create many devices",
            "Up to 200,000 devices with their series: all of them, or none and an error for each \
             line. One request at a time.",
        ),
    );
    let mut device = schema(&DEVICE, Use::Create);
    device["properties"]["series"] = nullable(list(schema(&SERIES, Use::Create)));
    let rows = Rows {
        schema: device,
        array: json!([{
            "device": "meter-2", "expected_interval": 60,
            "series": [{ "metric": "current", "unit": "A" }, { "metric": "voltage", "unit": "V" }],
        }]),
        line: r#"{"device":"meter-3","expected_interval":60,"series":[{"metric":"current"}]}"#,
        table: "device,expected_interval,series\nmeter-4,60,current:A;voltage:V\n",
        created: json!({
            "devices": count("number of devices"), "series": count("number of series"),
        }),
        example: json!({ "devices": 1, "series": 2 }),
    };
    bulk(own, rows, "devices")
}

pub(super) fn components() -> Operation {
    let own = operation(
        ("post", "/v1/components:bulk", "createComponents"),
        "Components",
        (
            "Create many components",
            "Up to 200,000 components: all of them, or none and an error for each line. A parent \
             exists already, or is an earlier row: then `parent` is the `id` that the client chose \
             for that row, or `parent_name` is its name. One request at a time.",
        ),
    );
    let mut component = schema(&COMPONENT, Use::Create);
    let id = json!({ "type": "string", "format": "uuid", "description": "id of the component" });
    component["properties"]["id"] = nullable(id);
    let parent = "name of an earlier row, instead of `parent`";
    component["properties"]["parent_name"] = nullable(text(parent));
    let rows = Rows {
        schema: component,
        array: json!([{ "kind": "station", "name": "Station 2" }]),
        line: r#"{"kind":"station","name":"Station 3"}"#,
        table: "kind,name,parent_name\nstation,Station 4,\ntransformer,T1,Station 4\n",
        created: json!({ "components": count("number of components") }),
        example: json!({ "components": 1 }),
    };
    bulk(own, rows, "components")
}

fn bulk(mut own: Operation, rows: Rows, what: &str) -> Operation {
    own.parameters = vec![parameters::BULK, parameters::CREATE];
    own.errors.extend(BODY);
    own.errors
        .extend(["bad_header", "idempotency_key_reused", "overloaded"]);
    let text = |media_type, example: &str| Content {
        media_type,
        schema: json!({ "type": "string" }),
        example: example.into(),
    };
    let mut schema = list(rows.schema);
    schema["minItems"] = 1.into();
    own.body = Some(Body {
        description: "at most 64 MiB, and 1 MiB for a row".into(),
        contents: vec![
            json(schema, rows.array),
            text("application/x-ndjson", &format!("{}\n", rows.line)),
            text("text/csv", rows.table),
        ],
    });
    let mut schema = object(json!({ "created": object(rows.created) }));
    schema["properties"]["existing"] = object(json!({
        what: count("with `existing=skip`: number of rows that exist already"),
    }));
    let example = json!({ "created": rows.example });
    let sentence = "all of them were created";
    own.successes = vec![success(201, sentence, vec![json(schema, example)])];
    own
}

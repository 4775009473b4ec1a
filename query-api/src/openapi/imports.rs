//! The operations on imports.

use serde_json::{Value, json};
use service::openapi::schema::{count, list, nullable, object, text, time, uuid};
use service::openapi::{Body, Operation};

use super::{BODY, json, operation, parameters, success};

const TAG: &str = "Imports";
const PATH: &str = "/v1/imports/{id}";

pub(super) fn operations() -> [Operation; 3] {
    [list_imports(), read(), write()]
}

/// What a client writes.
fn properties() -> Value {
    let slug = json!({
        "type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$",
        "description": "what the file has, such as `readings`",
    });
    let whole = |description| {
        let mut schema = count(description);
        schema["maximum"] = json!(1_000_000_000_000_000_u64);
        schema
    };
    let line = |max: u32, description| {
        let mut schema = text(description);
        schema["minLength"] = 1.into();
        schema["maxLength"] = max.into();
        schema["pattern"] = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$".into();
        schema
    };
    json!({
        "name": line(1_024, "name of the file"),
        "digest": nullable(line(128, "SHA-256 of the file; null for a pipe")),
        "kind": slug,
        "accepted": whole("number of readings or rows that were accepted"),
        "left_out": whole("number of readings or rows that were left out"),
        "complete": { "type": "boolean", "description": "whether the file was read to its end" },
    })
}

fn document() -> Value {
    let mut properties = properties();
    properties["id"] = uuid("id of the import");
    properties["created_at"] = time("when it began");
    properties["updated_at"] = time("when it was written last");
    properties["updated_by"] = text("who wrote it");
    object(properties)
}

fn example() -> Value {
    json!({
        "id": "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d71", "name": "meterusage.csv", "digest": null,
        "kind": "readings", "accepted": 95, "left_out": 1, "complete": true,
        "created_at": "2026-11-20T10:00:00.000000Z", "updated_at": "2026-11-20T10:00:01.000000Z",
        "updated_by": "ada",
    })
}

fn list_imports() -> Operation {
    let mut own = operation(
        ("get", "/v1/imports", "listImports"),
        TAG,
        (
            "List imports",
            "What `gridwatch import` has loaded. The oldest come first. The newest 10,000 are \
             kept.",
        ),
    );
    own.parameters = vec![parameters::IMPORTS];
    let next = "the parameter `next` of the page behind it; null on the last one";
    let schema = object(json!({ "imports": list(document()), "next": nullable(text(next)) }));
    let example = json!({ "imports": [example()], "next": null });
    own.successes = vec![success(200, "the page", vec![json(schema, example)])];
    own
}

fn read() -> Operation {
    let mut own = operation(
        ("get", PATH, "readImport"),
        TAG,
        ("Read an import", "What was loaded, and when."),
    );
    own.parameters = vec![parameters::IMPORT];
    own.errors.push("unknown_resource");
    own.successes = vec![success(
        200,
        "the import",
        vec![json(document(), example())],
    )];
    own
}

fn write() -> Operation {
    let mut own = operation(
        ("put", PATH, "writeImport"),
        TAG,
        (
            "Write an import",
            "Creates or replaces the entry. The client chooses the id, a UUIDv7.",
        ),
    );
    own.parameters = vec![parameters::IMPORT, parameters::ACTOR_ONLY];
    own.errors.extend(BODY);
    own.errors.extend(["bad_header", "unknown_resource"]);
    let mut schema = object(properties());
    let required = ["name", "kind", "accepted", "left_out", "complete"];
    schema["required"] = json!(required);
    let mut body = example();
    if let Some(body) = body.as_object_mut() {
        for name in ["id", "created_at", "updated_at", "updated_by"] {
            body.remove(name);
        }
    }
    own.body = Some(Body {
        description: "at most 1 MiB".into(),
        contents: vec![json(schema, body)],
    });
    own.successes = vec![success(
        200,
        "the import",
        vec![json(document(), example())],
    )];
    own
}

//! The operations on the model, made from the definitions of its resources.

use serde_json::{Value, json};
use service::openapi::schema::{count, list, nullable, object, reference, text, time};
use service::openapi::{Body, Content, Operation, Success};
use store::model::Resource;

use super::fields::{Use, deletion, job, page, schema};
use super::{BODY, bulk, imports, json, operation, parameters, success};
use crate::resources::definition::{
    COMPONENT, CUSTOMER, DEVICE, Definition, KIND, SERIES, TARGET, TYPE,
};

/// The resources, in the order of the pages.
pub(super) static DEFINITIONS: [&Definition; 7] = [
    &COMPONENT, &KIND, &DEVICE, &SERIES, &TARGET, &TYPE, &CUSTOMER,
];

const ETAG: (&str, &str) = ("ETag", "the version, for `If-Match`");
const LOCATION: (&str, &str) = ("Location", "path of the new resource");

/// The schemas of documents and of bodies.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let mut schemas = Vec::new();
    for definition in DEFINITIONS {
        let names = names(definition.resource);
        schemas.extend([
            (names.document, schema(definition, Use::Response)),
            (names.create, schema(definition, Use::Create)),
            (names.replace, schema(definition, Use::Replace)),
            (names.merge, schema(definition, Use::Merge)),
        ]);
    }
    schemas
}

pub(super) fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for definition in DEFINITIONS {
        operations.extend(of_list(definition));
        operations.extend(of_item(definition));
        match definition.resource {
            Resource::Component => operations.push(bulk::components()),
            Resource::Device => operations.push(bulk::devices()),
            Resource::Target => operations.push(replace_targets()),
            _ => {}
        }
    }
    operations.extend([changes(), read_job()]);
    operations.extend(imports::operations());
    operations
}

/// How a resource is called in the document.
struct Names {
    tag: &'static str,
    /// In operation ids.
    one: &'static str,
    many: &'static str,
    document: &'static str,
    create: &'static str,
    replace: &'static str,
    merge: &'static str,
    /// The path of the list.
    path: &'static str,
    /// The last part of the path of one.
    key: &'static str,
}

macro_rules! names {
    ($tag:literal, $one:literal, $path:literal, $key:literal) => {
        Names {
            tag: $tag,
            one: $one,
            many: $tag,
            document: $one,
            create: concat!("New", $one),
            replace: concat!($one, "Replacement"),
            merge: concat!($one, "Patch"),
            path: $path,
            key: $key,
        }
    };
}

const fn names(resource: Resource) -> Names {
    match resource {
        Resource::Component => names!("Components", "Component", "/v1/components", "id"),
        Resource::Kind => names!("Kinds", "Kind", "/v1/kinds", "name"),
        Resource::Device => names!("Devices", "Device", "/v1/devices", "device"),
        Resource::Series => {
            let mut names = names!("Series", "Series", "/v1/devices/{device}/series", "metric");
            names.many = "AllSeries";
            names
        }
        Resource::Target => names!(
            "Targets",
            "Target",
            "/v1/devices/{device}/series/{metric}/targets",
            "starts_at"
        ),
        Resource::Type => names!("Types", "Type", "/v1/types", "id"),
        Resource::Customer => names!("Customers", "Customer", "/v1/customers", "id"),
    }
}

/// The errors of a path that names devices, series or others.
fn not_found(resource: Resource, is_item: bool) -> Vec<&'static str> {
    match (resource, is_item) {
        (Resource::Device, true) | (Resource::Series, false) => vec!["unknown_device"],
        (Resource::Series, true) => vec!["unknown_device", "unknown_series"],
        (Resource::Target, false) => vec!["unknown_device", "unknown_series"],
        (Resource::Target, true) => vec!["unknown_series", "unknown_resource"],
        (_, true) => vec!["unknown_resource"],
        (_, false) => Vec::new(),
    }
}

fn of_list(definition: &'static Definition) -> [Operation; 2] {
    let (resource, names) = (definition.resource, names(definition.resource));
    let many = definition.list;
    let mut list = operation(
        ("get", names.path, &format!("list{}", names.many)),
        names.tag,
        (&format!("List {many}"), about(resource)),
    );
    list.parameters = vec![parameters::list_path(resource), parameters::list(resource)];
    list.errors.extend(not_found(resource, false));
    let (body, document) = (body_example(resource), document_example(definition));
    let page_example = json!({ many: [document], "next": null });
    let schema = page(many, names.document);
    list.successes = vec![success(
        200,
        "the page; if there is a next one, the header `Link` has its address",
        vec![json(schema, page_example)],
    )];

    let mut create = operation(
        ("post", names.path, &format!("create{}", names.one)),
        names.tag,
        (
            &format!("Create a {}", resource.name()),
            "A field that is absent has its default. A retry with the same `Idempotency-Key` gets \
             the first response.",
        ),
    );
    create.parameters = vec![parameters::list_path(resource), parameters::CREATE];
    create.errors.extend(not_found(resource, false));
    create.errors.extend(BODY);
    create
        .errors
        .extend(["bad_header", "already_exists", "idempotency_key_reused"]);
    create.body = Some(Body {
        description: "at most 1 MiB".into(),
        contents: vec![json(reference(names.create), body)],
    });
    create.successes = vec![Success {
        headers: &[LOCATION, ETAG],
        ..success(
            201,
            "it was created",
            vec![json(reference(names.document), document)],
        )
    }];
    [list, create]
}

fn of_item(definition: &'static Definition) -> [Operation; 4] {
    let (resource, names) = (definition.resource, names(definition.resource));
    let one = resource.name();
    let path = format!("{}/{{{}}}", names.path, names.key);
    let new = |method, verb: &str, summary: String, description: &str| {
        let id = format!("{verb}{}", names.one);
        let mut own = operation((method, &path, &id), names.tag, (&summary, description));
        own.parameters = vec![parameters::item_path(resource)];
        own.errors.extend(not_found(resource, true));
        own
    };
    let document = document_example(definition);
    let current = || Success {
        headers: &[ETAG],
        ..success(
            200,
            "the document",
            vec![json(reference(names.document), document.clone())],
        )
    };
    let mut read = new("get", "read", format!("Read a {one}"), about(resource));
    read.successes = vec![current()];

    let write_errors = ["bad_header", "version_mismatch", "already_exists"];
    let mut replace = new(
        "put",
        "replace",
        format!("Replace a {one}"),
        "A field that is absent gets its default. Computed fields are ignored, so that a document \
         that was read can be changed and sent back.",
    );
    replace.parameters.push(parameters::CHANGE);
    replace.errors.extend(BODY);
    replace.errors.extend(write_errors);
    replace.body = Some(Body {
        description: "at most 1 MiB".into(),
        contents: vec![json(reference(names.replace), body_of_item(resource))],
    });
    replace.successes = vec![current()];

    let mut merge = new(
        "patch",
        "change",
        format!("Change fields of a {one}"),
        "JSON Merge Patch (RFC 7396): a field that is absent stays as it is, null removes it, and \
         objects merge member by member.",
    );
    merge.parameters.push(parameters::CHANGE);
    merge.errors.extend(BODY);
    merge.errors.extend(write_errors);
    let content = json(reference(names.merge), patch_example(resource));
    let other = Content {
        media_type: "application/merge-patch+json",
        ..content.clone()
    };
    merge.body = Some(Body {
        description: "at most 1 MiB".into(),
        contents: vec![other, content],
    });
    merge.successes = vec![current()];

    let mut delete = new(
        "delete",
        "delete",
        format!("Delete a {one}"),
        "What others depend on is deleted with `cascade=true` only; kinds, types and customers in \
         use never are. A large deletion is done by a job.",
    );
    delete.parameters.push(parameters::DELETE);
    delete
        .errors
        .extend(["bad_header", "version_mismatch", "has_dependents"]);
    let done = json!({ "deleted": { format!("{one}s"): 1 }, "job": null });
    let id = "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d70";
    let begun = json!({ "deleted": {}, "job": id });
    delete.successes = vec![
        success(200, "it is deleted", vec![json(deletion(), done)]),
        Success {
            headers: &[("Location", "path of the job")],
            ..success(202, "a job deletes the rest", vec![json(deletion(), begun)])
        },
    ];
    [read, replace, merge, delete]
}

fn replace_targets() -> Operation {
    let mut own = operation(
        (
            "put",
            "/v1/devices/{device}/series/{metric}/targets",
            "replaceTargets",
        ),
        "Targets",
        ("Replace all targets of a series", "At most 10,000 targets."),
    );
    own.parameters = vec![parameters::item_path(Resource::Series), parameters::CHANGE];
    own.errors.extend(not_found(Resource::Series, true));
    own.errors.extend(BODY);
    own.errors.extend(["bad_header", "version_mismatch"]);
    let mut target = schema(&TARGET, Use::Create);
    for name in TARGET.computed {
        target["properties"][*name] = json!({ "description": "computed, and ignored" });
    }
    let mut schema = object(json!({ "targets": list(target) }));
    schema["properties"]["targets"]["maxItems"] = 10_000.into();
    let example = json!({ "targets": [
        { "starts_at": "2019-01-01T00:00:00Z", "value": 50 },
        { "starts_at": "2020-01-01T00:00:00Z", "value": null },
    ] });
    own.body = Some(Body {
        description: "at most 1 MiB".into(),
        contents: vec![json(schema, example)],
    });
    let schema = object(json!({
        "deleted": count("number of targets that were there"),
        "created": count("number of targets that are there now"),
    }));
    let example = json!({ "deleted": 1, "created": 2 });
    own.successes = vec![success(
        200,
        "they are replaced",
        vec![json(schema, example)],
    )];
    own
}

fn changes() -> Operation {
    let mut own = operation(
        ("get", "/v1/changes", "listChanges"),
        "Changes and jobs",
        (
            "List changes",
            "Who changed what in the model, and when. The oldest come first.",
        ),
    );
    own.parameters = vec![parameters::CHANGES];
    let document =
        |description: &str| nullable(json!({ "type": "object", "description": description }));
    let schema = object(json!({
        "changes": list(object(json!({
            "id": count("number of the change"),
            "at": time("when it was made"),
            "actor": text("who made it"),
            "entity": text("what was changed"),
            "entity_id": text("its key; the parts are separated by `/`"),
            "action": text("what was done"),
            "before": document("the document before; null for a new one"),
            "after": document("the document after; null for a deleted one"),
        }))),
        "next": nullable(text("the parameter `next` of the page behind it; null on the last one")),
    }));
    let example = json!({
        "changes": [{
            "id": 7, "at": "2026-11-20T10:00:00.000000Z", "actor": "ada", "entity": "type",
            "entity_id": "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6f", "action": "create",
            "before": null, "after": document_example(&TYPE),
        }],
        "next": null,
    });
    own.successes = vec![success(200, "the page", vec![json(schema, example)])];
    own
}

fn read_job() -> Operation {
    let mut own = operation(
        ("get", "/v1/jobs/{id}", "readJob"),
        "Changes and jobs",
        (
            "Read a job",
            "A deletion in the background and its progress.",
        ),
    );
    own.parameters = vec![parameters::JOB];
    own.errors.push("unknown_resource");
    let example = json!({
        "id": "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d70", "action": "delete", "state": "running",
        "actor": "ada", "error": null, "progress": 0.25,
        "deleted": { "components": 1, "devices": 1, "series": 1, "readings": 5_000 },
        "created_at": "2026-11-20T10:00:00.000000Z", "updated_at": "2026-11-20T10:00:01.000000Z",
        "finished_at": null,
    });
    own.successes = vec![success(200, "the job", vec![json(job(), example)])];
    own
}

/// What a resource is.
const fn about(resource: Resource) -> &'static str {
    match resource {
        Resource::Component => {
            "A component is a node of the tree: a station, a transformer, a factory. What it may \
             be and have is said by its kind."
        }
        Resource::Kind => {
            "A kind of components is data: which parents they may have, how many of them, and \
             which attributes."
        }
        Resource::Device => {
            "A device measures. It has a unique external id, its name on the wire, and can be \
             attached to a component and moved."
        }
        Resource::Series => "A series is one metric of one device, with its unit.",
        Resource::Target => "A target is the goal of a series. It holds until the next one starts.",
        Resource::Type => "A type is an entry of the catalogue: device models and others.",
        Resource::Customer => "A customer owns subtrees of components.",
    }
}

/// A body that creates.
fn body_example(resource: Resource) -> Value {
    match resource {
        Resource::Component => json!({
            "kind": "station", "name": "Station 12", "time_zone": "Europe/Berlin",
            "latitude": 50.11, "longitude": 8.68, "attributes": { "address": "Main Street 1" },
        }),
        Resource::Kind => json!({
            "name": "cable", "parents": [{ "kind": "feeder", "min": 0, "max": 8 }],
            "attributes": {
                "type": "object", "required": ["length"],
                "properties": { "length": { "type": "number" } },
            },
        }),
        Resource::Device => json!({
            "device": "meter-5", "name": "Main meter", "expected_interval": 900,
            "specs": { "phases": 3 }, "configuration": { "interval": "15m" },
        }),
        Resource::Series => json!({ "metric": "power", "unit": "kW", "kind": "gauge" }),
        Resource::Target => json!({ "starts_at": "2019-07-01T00:00:00Z", "value": 50 }),
        Resource::Type => {
            json!({ "category": "meter", "name": "A1", "attributes": { "phases": 3 } })
        }
        Resource::Customer => json!({ "name": "Example Utility", "attributes": {} }),
    }
}

/// A body that replaces what the path of the example names.
fn body_of_item(resource: Resource) -> Value {
    let mut body = body_example(resource);
    match resource {
        Resource::Device => body["device"] = "meter-1".into(),
        Resource::Kind => {
            body = json!({ "parents": [], "attributes": { "type": "object", "properties": {
                "address": { "type": "string" },
            } } });
        }
        Resource::Series => {
            body = json!({ "unit": "kWh", "kind": "gauge" });
        }
        Resource::Target => body = json!({ "value": 55 }),
        _ => {}
    }
    body
}

/// A body that changes one thing.
fn patch_example(resource: Resource) -> Value {
    match resource {
        Resource::Component => json!({ "name": "Station 12 (north)" }),
        Resource::Kind => json!({ "parents": [] }),
        Resource::Device => json!({ "configuration": { "interval": "5m" } }),
        Resource::Series => json!({ "unit": "kWh" }),
        Resource::Target => json!({ "value": 60 }),
        Resource::Type | Resource::Customer => json!({ "attributes": { "phases": null } }),
    }
}

/// A document as it is read.
fn document_example(definition: &Definition) -> Value {
    let mut document = json!({});
    for field in definition.fields {
        document[field.name] = field.absent.default_value();
    }
    let body = body_example(definition.resource);
    for (name, value) in body.as_object().into_iter().flatten() {
        document[name] = value.clone();
    }
    for name in definition.computed {
        document[*name] = match *name {
            "id" => match definition.resource {
                Resource::Type => "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6f",
                Resource::Customer => "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d71",
                _ => "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e",
            }
            .into(),
            "version" => 1.into(),
            "created_at" | "updated_at" => "2026-11-20T10:00:00.000000Z".into(),
            "updated_by" => "ada".into(),
            "effective_time_zone" => "Europe/Berlin".into(),
            "missing" => json!([{ "kind": "transformer", "min": 1, "count": 0 }]),
            "series" => json!([]),
            "health" => "unknown".into(),
            "device" => "meter-1".into(),
            _ => Value::Null,
        };
    }
    document
}

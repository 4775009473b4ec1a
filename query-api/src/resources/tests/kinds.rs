//! Kinds: what a schema may cost, and changes of kinds that have components.

use serde_json::{Value, json};

use super::Api;

/// A kind `area` whose components can be below each other, and a factory.
async fn areas(api: &Api) -> String {
    let parents = json!([{ "kind": "factory" }, { "kind": "area" }]);
    let kind = json!({ "name": "area", "parents": parents });
    api.ok("POST /v1/kinds", kind).await;
    api.component("factory", "F", None).await
}

/// A chain of areas below a component. Returns the first and the last one.
async fn chain(api: &Api, parent: &str, length: usize) -> (String, String) {
    let first = api.component("area", "1", Some(parent)).await;
    let mut last = first.clone();
    for n in 2..=length {
        last = api.component("area", &n.to_string(), Some(&last)).await;
    }
    (first, last)
}

#[tokio::test]
async fn a_schema_that_could_take_long_is_refused() {
    let api = Api::new().await;
    let mut deep = json!({});
    for _ in 0..20 {
        deep = json!({ "items": deep });
    }
    let many = |n: u32, entry: Value| Value::Array(vec![entry; n as usize]);
    // Each definition refers six times to the next one.
    let mut definitions = json!({ "d0": { "type": "string" } });
    for n in 1..6 {
        let next = json!({ "$ref": format!("#/$defs/d{}", n - 1) });
        definitions[format!("d{n}")] = json!({ "allOf": many(6, next) });
    }
    let doubling = json!({ "$defs": definitions, "$ref": "#/$defs/d5" });
    for (schema, text) in [
        (deep, "depth"),
        (json!({ "anyOf": many(3_000, json!({})) }), "subschemas"),
        (json!({ "properties": { "x": { "$ref": "#" } } }), "itself"),
        (json!({ "$ref": "#" }), "itself"),
        (doubling, "subschemas"),
        (json!({ "$ref": "#/$defs/missing" }), "nothing"),
        (json!({ "$ref": "other.json" }), "'#'"),
        (json!({ "$dynamicRef": "#x" }), "$dynamicRef"),
        (json!({ "$id": "https://example.com/x" }), "$id"),
        (json!({ "pattern": "(a{1000}){1000}" }), "pattern"),
        (
            json!({ "allOf": many(40, json!({ "pattern": "a" })) }),
            "patterns",
        ),
        (json!({ "description": "x".repeat(66_000) }), "65536 bytes"),
    ] {
        let kind = json!({ "name": "cable", "attributes": schema });
        let error = api.fails("POST /v1/kinds", kind, 422, "invalid_body").await;
        let reason = error["reason"].as_str().unwrap();
        assert!(reason.contains(text), "{text}: {reason}");
        assert_eq!(error["pointer"], "/attributes", "{error}");
    }
}

#[tokio::test]
async fn a_schema_may_refer_to_its_definitions_and_have_patterns() {
    let api = Api::new().await;
    let schema = json!({
        "$defs": { "code": { "type": "string", "pattern": r"^[\p{L}\d]{2,8}$" } },
        "properties": { "from": { "$ref": "#/$defs/code" }, "to": { "$ref": "#/$defs/code" } }
    });
    let kind = json!({ "name": "cable", "attributes": schema });
    api.ok("POST /v1/kinds", kind).await;
    let cable = |to: &str| {
        let attributes = json!({ "from": "Ä1", "to": to });
        json!({ "kind": "cable", "name": "c", "attributes": attributes })
    };
    api.ok("POST /v1/components", cable("B2")).await;
    let error = api
        .fails("POST /v1/components", cable("-"), 422, "invalid_body")
        .await;
    assert_eq!(error["pointer"], "/attributes/to");
}

#[tokio::test]
async fn a_kind_that_is_a_parent_of_another_kind_is_not_deleted() {
    let api = Api::new().await;
    let line = "DELETE /v1/kinds/station";
    let error = api.fails(line, Value::Null, 409, "has_dependents").await;
    assert_eq!(error["dependents"], json!({ "kinds": 1 }));
    for kind in ["feeder", "distributor", "transformer", "station"] {
        api.ok(&format!("DELETE /v1/kinds/{kind}"), Value::Null)
            .await;
    }
    // A kind that may be below itself is not in its own way.
    areas(&api).await;
    api.ok("DELETE /v1/kinds/area", Value::Null).await;
}

#[tokio::test]
async fn a_kind_is_not_changed_so_that_its_components_are_in_the_wrong_place() {
    let api = Api::new().await;
    let factory = areas(&api).await;
    let (upper, _) = chain(&api, &factory, 2).await;
    chain(&api, &upper, 1).await;
    let line = "PATCH /v1/kinds/area";
    for (parents, text) in [
        (json!([{ "kind": "factory" }]), "2 components"),
        (json!([{ "kind": "area" }]), "1 component"),
        (json!([]), "2 components"),
        (
            json!([{ "kind": "factory" }, { "kind": "area", "max": 1 }]),
            "has 2",
        ),
    ] {
        let patch = json!({ "parents": parents });
        let error = api.fails(line, patch, 422, "invalid_body").await;
        let reason = error["reason"].as_str().unwrap();
        assert!(reason.contains(text), "{text}: {reason}");
        assert_eq!(error["pointer"], "/parents");
    }
    let rule = json!([{ "kind": "factory", "max": 1 }, { "kind": "area", "max": 2 }]);
    api.ok(line, json!({ "parents": rule })).await;
    let error = api
        .fails(
            "PATCH /v1/kinds/factory",
            json!({ "parents": [{ "kind": "station" }] }),
            422,
            "invalid_body",
        )
        .await;
    assert!(
        error["reason"].as_str().unwrap().contains("1 component"),
        "{error}"
    );
}

#[tokio::test]
async fn the_limit_of_the_depth_includes_what_moves_along() {
    let api = Api::new().await;
    let factory = areas(&api).await;
    let (_, last) = chain(&api, &factory, 20).await;
    let (first, second) = chain(&api, &factory, 12).await;
    let line = format!("PATCH /v1/components/{first}");
    let patch = json!({ "parent": last });
    let error = api.fails(&line, patch.clone(), 422, "invalid_body").await;
    assert!(error["reason"].as_str().unwrap().contains("32"), "{error}");
    api.ok(&format!("DELETE /v1/components/{second}"), Value::Null)
        .await;
    api.ok(&line, patch).await;
}

#[tokio::test]
async fn names_follow_the_rules_of_readings() {
    let api = Api::new().await;
    api.ok("POST /v1/devices", json!({ "device": "m" })).await;
    let long = "x".repeat(300);
    for (name, text) in [
        (" m", "begins or ends with whitespace"),
        ("m\u{a0}", "begins or ends with whitespace"),
        (" ", "whitespace"),
        ("", "empty"),
        ("a\u{85}b", "control character"),
        (long.as_str(), "300 bytes"),
    ] {
        let expected = |pointer: &'static str| (pointer, text);
        for (line, body, (pointer, text)) in [
            (
                "POST /v1/devices",
                json!({ "device": name }),
                expected("/device"),
            ),
            (
                "PATCH /v1/devices/m",
                json!({ "device": name }),
                expected("/device"),
            ),
            (
                "POST /v1/devices/m/series",
                json!({ "metric": name }),
                expected("/metric"),
            ),
            (
                "POST /v1/devices:bulk",
                json!([{ "device": name }]),
                expected("/0/device"),
            ),
        ] {
            let error = api.fails(line, body, 422, "invalid_body").await;
            let reason = error["reason"].as_str().unwrap();
            assert!(reason.contains(text), "{line} {name:?}: {reason}");
            assert_eq!(error["pointer"], pointer);
        }
    }
}

//! One document at a time.

use serde_json::{Value, json};

use super::Api;

#[tokio::test]
async fn every_resource_is_created_read_replaced_and_merged() {
    let api = Api::new().await;
    api.ok("POST /v1/devices", json!({ "device": "m 1" })).await;
    api.ok("POST /v1/devices/m%201/series", json!({ "metric": "p/q" }))
        .await;
    for (list, first, second, patch) in [
        (
            "/v1/kinds",
            json!({ "name": "cable", "parents": [{ "kind": "station" }] }),
            json!({ "name": "cable", "attributes": { "required": ["length"] } }),
            json!({ "parents": [{ "kind": "feeder", "max": 3 }] }),
        ),
        (
            "/v1/components",
            json!({ "kind": "station", "name": "S1", "attributes": { "address": "x" } }),
            json!({ "kind": "station", "name": "S2", "time_zone": "Europe/Berlin" }),
            json!({ "latitude": 52.5, "longitude": 13 }),
        ),
        (
            "/v1/devices",
            json!({ "device": "m2", "configuration": { "a": 1, "b": 2 } }),
            json!({ "device": "m2", "specs": { "bus": "x" }, "activation_date": "2026-01-31" }),
            json!({ "configuration": { "b": 3 }, "expected_interval": 60, "active": false }),
        ),
        (
            "/v1/devices/m%201/series",
            json!({ "metric": "energy", "unit": "kWh" }),
            json!({ "metric": "energy", "unit": "MWh", "kind": "counter" }),
            json!({ "rollover": 999_999.5 }),
        ),
        (
            "/v1/devices/m%201/series/p%2Fq/targets",
            json!({ "starts_at": "2026-11-21T01:00:00+01:00", "value": 5 }),
            json!({ "starts_at": "2026-11-21T00:00:00Z", "value": null }),
            json!({ "value": 7.25 }),
        ),
        (
            "/v1/types",
            json!({ "category": "sprocket", "name": "S", "attributes": { "teeth": 5 } }),
            json!({ "category": "sprocket", "name": "T" }),
            json!({ "attributes": { "teeth": 20 } }),
        ),
        (
            "/v1/customers",
            json!({ "name": "ACME" }),
            json!({ "name": "ACME 2" }),
            json!({ "attributes": { "vip": true } }),
        ),
    ] {
        let created = api.send(&format!("POST {list}"), &[], first.clone()).await;
        assert_eq!(created.status, 201, "{list}: {}", created.body);
        assert_eq!(created.headers["etag"], "\"1\"", "{list}");
        let path = created.headers["location"].to_str().unwrap().to_owned();
        let read = api.get(&path).await;
        for name in created.body.as_object().unwrap().keys() {
            assert_eq!(read[name], created.body[name], "{path}: {name}");
        }
        let replaced = api.ok(&format!("PUT {path}"), second.clone()).await;
        assert_eq!(replaced["version"], 2, "{path}");
        for (name, value) in second.as_object().unwrap() {
            let expected = if name == "starts_at" {
                &read[name]
            } else {
                value
            };
            assert_eq!(&replaced[name], expected, "{path}: {name}");
        }
        let merged = api.ok(&format!("PATCH {path}"), patch.clone()).await;
        assert_eq!(merged["version"], 3, "{path}");
        let same = api.ok(&format!("PATCH {path}"), patch).await;
        assert_eq!(
            same["version"], 3,
            "{path}: a patch that changes nothing is no new version"
        );
        // What was read can be sent back.
        let read = api.get(&path).await;
        let back = api.ok(&format!("PUT {path}"), read).await;
        assert_eq!(back["version"], 3, "{path}");
    }
}

#[tokio::test]
async fn a_merge_changes_one_field_of_a_configuration_and_leaves_the_others() {
    let api = Api::new().await;
    let configuration = json!({ "a": 1, "b": { "c": 2, "d": 3 } });
    let device = json!({ "device": "m", "configuration": configuration, "name": "meter" });
    api.ok("POST /v1/devices", device).await;
    let patch = json!({ "configuration": { "b": { "c": null, "d": 4 } } });
    let merged = api.ok("PATCH /v1/devices/m", patch).await;
    assert_eq!(merged["configuration"], json!({ "a": 1, "b": { "d": 4 } }));
    assert_eq!(merged["name"], "meter");
    let merged = api
        .ok(
            "PATCH /v1/devices/m",
            json!({ "device": "n", "name": null }),
        )
        .await;
    assert_eq!(
        (&merged["device"], &merged["name"]),
        (&json!("n"), &Value::Null)
    );
    api.fails("GET /v1/devices/m", Value::Null, 404, "unknown_device")
        .await;
}

#[tokio::test]
async fn a_write_with_a_stale_version_is_refused() {
    let api = Api::new().await;
    api.ok("POST /v1/devices", json!({ "device": "m" })).await;
    for (etag, status) in [
        ("\"1\"", 200),
        ("\"1\"", 412),
        ("\"7\", \"2\"", 200),
        ("*", 200),
        ("\"x\"", 412),
        ("3", 400),
    ] {
        let patch = json!({ "name": format!("{etag}{status}") });
        let headers = [("if-match", etag)];
        let reply = api.send("PATCH /v1/devices/m", &headers, patch).await;
        assert_eq!(reply.status, status, "{etag}: {}", reply.body);
    }
    assert_eq!(api.get("/v1/devices/m").await["version"], 4);
}

#[tokio::test]
async fn the_tree_is_the_one_that_kinds_allow() {
    let api = Api::new().await;
    let station = api.component("station", "S", None).await;
    let missing = api.get(&format!("/v1/components/{station}")).await["missing"].clone();
    assert_eq!(
        missing,
        json!([{ "kind": "transformer", "min": 1, "count": 0 }])
    );
    let transformer = api.component("transformer", "T", Some(&station)).await;
    let missing = api.get(&format!("/v1/components/{station}")).await["missing"].clone();
    assert_eq!(missing, json!([]));
    let distributor = api.component("distributor", "D", Some(&transformer)).await;
    for n in 0..20 {
        api.component("feeder", &format!("F{n}"), Some(&distributor))
            .await;
    }
    for (kind, parent, text) in [
        ("feeder", json!(distributor), "already has 20"),
        ("feeder", json!(station), "is of kind station"),
        ("feeder", json!(null), "needs a parent: a distributor"),
        ("station", json!(station), "is a root"),
        (
            "transformer",
            json!("0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e"),
            "no component",
        ),
        ("windmill", json!(null), "no kind 'windmill'"),
    ] {
        let body = json!({ "kind": kind, "name": "x", "parent": parent });
        let error = api
            .fails("POST /v1/components", body, 422, "invalid_body")
            .await;
        let reason = error["reason"].as_str().unwrap();
        assert!(reason.contains(text), "{reason}");
        let pointer = if kind == "windmill" {
            "/kind"
        } else {
            "/parent"
        };
        assert_eq!(error["pointer"], pointer);
    }
    let patch = json!({ "kind": "factory" });
    let path = format!("PATCH /v1/components/{station}");
    let error = api.fails(&path, patch, 422, "invalid_body").await;
    assert!(
        error["reason"].as_str().unwrap().contains("fixed"),
        "{error}"
    );
}

#[tokio::test]
async fn a_component_cannot_be_moved_below_itself() {
    let api = Api::new().await;
    let parents = json!([{ "kind": "factory" }, { "kind": "area" }]);
    api.ok(
        "POST /v1/kinds",
        json!({ "name": "area", "parents": parents }),
    )
    .await;
    let factory = api.component("factory", "F", None).await;
    let upper = api.component("area", "upper", Some(&factory)).await;
    let lower = api.component("area", "lower", Some(&upper)).await;
    for parent in [&lower, &upper] {
        let line = format!("PATCH /v1/components/{upper}");
        let error = api
            .fails(&line, json!({ "parent": parent }), 422, "invalid_body")
            .await;
        assert!(
            error["reason"].as_str().unwrap().contains("below it"),
            "{error}"
        );
    }
    let line = format!("PATCH /v1/components/{lower}");
    let moved = api.ok(&line, json!({ "parent": factory })).await;
    assert_eq!(moved["parent"], json!(factory));
}

#[tokio::test]
async fn attributes_are_checked_against_the_schema_of_the_kind_in_its_current_version() {
    let api = Api::new().await;
    let length = json!({ "type": "number", "minimum": 0 });
    let schema = json!({
        "type": "object", "required": ["length"], "additionalProperties": false,
        "properties": { "length": length }
    });
    let kind = json!({ "name": "cable", "attributes": schema });
    api.ok("POST /v1/kinds", kind).await;
    let cable =
        |attributes: Value| json!({ "kind": "cable", "name": "x", "attributes": attributes });
    let good = cable(json!({ "length": 5 }));
    let created = api.ok("POST /v1/components", good.clone()).await;
    for (attributes, pointer) in [
        (json!({}), "/attributes"),
        (json!({ "length": -1 }), "/attributes/length"),
        (json!({ "length": 1, "x": 2 }), "/attributes"),
    ] {
        let error = api
            .fails(
                "POST /v1/components",
                cable(attributes),
                422,
                "invalid_body",
            )
            .await;
        assert_eq!(error["pointer"], pointer, "{error}");
    }
    let patch = json!({ "attributes": { "properties": { "length": { "maximum": 4 } } } });
    api.ok("PATCH /v1/kinds/cable", patch).await;
    api.fails("POST /v1/components", good, 422, "invalid_body")
        .await;
    let path = format!("PATCH /v1/components/{}", created["id"].as_str().unwrap());
    api.fails(&path, json!({ "name": "y" }), 422, "invalid_body")
        .await;
    for schema in [
        json!({ "type": "nothing" }),
        json!({ "$ref": "https://example.com/schema.json" }),
        json!({ "properties": { "x": { "pattern": "(" } } }),
    ] {
        let kind = json!({ "name": "other", "attributes": schema });
        let error = api.fails("POST /v1/kinds", kind, 422, "invalid_body").await;
        assert_eq!(error["pointer"], "/attributes", "{error}");
    }
}

#[tokio::test]
async fn a_time_zone_is_inherited_from_the_nearest_ancestor_that_has_one() {
    let api = Api::new().await;
    let station = api.component("station", "S", None).await;
    let transformer = api.component("transformer", "T", Some(&station)).await;
    let distributor = api.component("distributor", "D", Some(&transformer)).await;
    let path = format!("/v1/components/{distributor}");
    assert_eq!(api.get(&path).await["effective_time_zone"], Value::Null);
    for (id, zone) in [(&station, "Asia/Kolkata"), (&transformer, "Europe/Berlin")] {
        let patch = json!({ "time_zone": zone });
        api.ok(&format!("PATCH /v1/components/{id}"), patch).await;
        let component = api.get(&path).await;
        assert_eq!(component["effective_time_zone"], zone);
        assert_eq!(component["time_zone"], Value::Null);
    }
}

#[tokio::test]
async fn mistakes_in_a_body_are_all_reported_each_with_its_field() {
    let api = Api::new().await;
    let id = "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e";
    for (line, body, pointers) in [
        ("POST /v1/devices", json!({}), vec!["/device"]),
        (
            "POST /v1/devices",
            json!({ "device": "", "type": "x", "latitude": 91, "colour": 1, "version": 2 }),
            vec!["/device", "/type", "/latitude", "/colour", "/version"],
        ),
        (
            "POST /v1/devices",
            json!({ "device": "a\u{0}", "specs": [], "active": "yes", "activation_date": "x" }),
            vec!["/device", "/specs", "/active", "/activation_date"],
        ),
        (
            "POST /v1/devices",
            json!({ "device": "a", "latitude": 1, "expected_interval": 60 }),
            vec!["/longitude"],
        ),
        (
            "POST /v1/devices",
            json!({ "device": "a", "component": id }),
            vec!["/component"],
        ),
        (
            "POST /v1/devices",
            json!({ "device": "a", "type": id }),
            vec!["/type"],
        ),
        (
            "POST /v1/devices",
            json!({ "device": "a", "specs": { "x": ["a\u{0}"] } }),
            vec!["/specs/x/0"],
        ),
        ("POST /v1/devices", json!([1]), vec![""]),
        (
            "POST /v1/components",
            json!({ "kind": "station", "name": "x", "customer": id }),
            vec!["/customer"],
        ),
        (
            "POST /v1/components",
            json!({ "kind": "station", "name": "x", "time_zone": "Mars" }),
            vec!["/time_zone"],
        ),
        (
            "POST /v1/kinds",
            json!({ "name": "X", "parents": [{ "kind": "a", "min": 3, "max": 2 }, { "x": 1 }] }),
            vec!["/name", "/parents/0", "/parents/1/kind", "/parents/1/x"],
        ),
    ] {
        let error = api.fails(line, body, 422, "invalid_body").await;
        assert_eq!(
            super::column(&error["errors"], "pointer"),
            pointers,
            "{error}"
        );
        assert_eq!(error["pointer"], pointers[0]);
    }
    api.ok("POST /v1/devices", json!({ "device": "m" })).await;
    let (line, series) = (
        "POST /v1/devices/m/series",
        json!({ "metric": "p", "rollover": 9 }),
    );
    let error = api.fails(line, series, 422, "invalid_body").await;
    assert_eq!(error["pointer"], "/rollover");
    let error = api
        .fails(
            "PATCH /v1/devices/m",
            json!({ "health": "ok" }),
            422,
            "invalid_body",
        )
        .await;
    assert!(
        error["reason"].as_str().unwrap().contains("computed"),
        "{error}"
    );
    api.fails(
        "POST /v1/devices",
        json!({ "device": "m" }),
        409,
        "already_exists",
    )
    .await;
    api.fails("POST /v1/devices", json!("{"), 400, "malformed_json")
        .await;
    let long = json!("x".repeat(2_000_000));
    api.fails("POST /v1/devices", long, 413, "body_too_large")
        .await;
    let headers = [("content-type", "text/plain")];
    let reply = api
        .send("POST /v1/devices", &headers, json!({ "device": "x" }))
        .await;
    assert_eq!(reply.status, 415);
}

#[tokio::test]
async fn what_does_not_exist_is_a_404_that_names_it() {
    let api = Api::new().await;
    api.ok("POST /v1/devices", json!({ "device": "m" })).await;
    let id = "0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e";
    let series = json!({ "metric": "p" });
    let target = json!({ "starts_at": "2026-11-21T00:00:00Z" });
    for (line, body, code) in [
        ("GET /v1/devices/x", Value::Null, "unknown_device"),
        ("PATCH /v1/devices/x", json!({}), "unknown_device"),
        ("GET /v1/devices/x/series", Value::Null, "unknown_device"),
        ("POST /v1/devices/x/series", series, "unknown_device"),
        ("GET /v1/devices/m/series/p", Value::Null, "unknown_series"),
        (
            "GET /v1/devices/m/series/p/targets",
            Value::Null,
            "unknown_series",
        ),
        (
            "POST /v1/devices/m/series/p/targets",
            target,
            "unknown_series",
        ),
        (
            "GET /v1/devices/m/series/p/targets/x",
            Value::Null,
            "unknown_resource",
        ),
        ("GET /v1/components/x", Value::Null, "unknown_resource"),
        (
            &format!("GET /v1/components/{id}"),
            Value::Null,
            "unknown_resource",
        ),
        (
            &format!("PUT /v1/types/{id}"),
            json!({ "name": "x" }),
            "unknown_resource",
        ),
        ("GET /v1/kinds/x", Value::Null, "unknown_resource"),
    ] {
        api.fails(line, body, 404, code).await;
    }
}

#[tokio::test]
async fn who_changed_what_is_recorded() {
    let api = Api::new().await;
    let headers = [("x-actor", "alice")];
    let device = json!({ "device": "m" });
    api.send("POST /v1/devices", &headers, device).await;
    api.ok("PATCH /v1/devices/m", json!({ "name": "meter" }))
        .await;
    api.fails(
        "PATCH /v1/devices/m",
        json!({ "name": "" }),
        422,
        "invalid_body",
    )
    .await;
    let body = api.get("/v1/changes?entity=device&id=m").await;
    let changes = body["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2);
    assert_eq!(
        super::column(&body["changes"], "actor"),
        ["alice", "anonymous"]
    );
    assert_eq!(
        super::column(&body["changes"], "action"),
        ["create", "update"]
    );
    assert_eq!(changes[1]["before"]["name"], Value::Null);
    assert_eq!(changes[1]["after"]["name"], "meter");
    assert_eq!(changes[1]["after"]["updated_by"], "anonymous");
    let body = api.get("/v1/changes?order=desc&limit=1").await;
    let next = body["next"].as_str().unwrap();
    let body = api
        .get(&format!("/v1/changes?order=desc&limit=1&next={next}"))
        .await;
    assert_eq!(body["changes"][0]["actor"], "alice");
    assert_eq!(api.get("/v1/changes?actor=bob").await["changes"], json!([]));
}

#[tokio::test]
async fn a_post_that_is_retried_with_its_key_creates_nothing_twice() {
    let api = Api::new().await;
    let station = json!({ "kind": "station", "name": "S" });
    let headers = [("idempotency-key", "k1")];
    let first = api
        .send("POST /v1/components", &headers, station.clone())
        .await;
    let second = api
        .send("POST /v1/components", &headers, station.clone())
        .await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201));
    assert_eq!(first.body, second.body);
    assert_eq!(first.headers["location"], second.headers["location"]);
    let other = json!({ "kind": "station", "name": "other" });
    let reply = api.send("POST /v1/components", &headers, other).await;
    assert_eq!(reply.body["code"], "idempotency_key_reused");
    let list = api.get("/v1/components").await;
    assert_eq!(list["components"].as_array().unwrap().len(), 1);
    // A request that fails leaves its key unused.
    let headers = [("idempotency-key", "k2")];
    let bad = json!({ "kind": "feeder", "name": "F" });
    assert_eq!(
        api.send("POST /v1/components", &headers, bad).await.status,
        422
    );
    assert_eq!(
        api.send("POST /v1/components", &headers, station)
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn front_ends_see_what_was_created_over_http() {
    let api = Api::new().await;
    api.ok(
        "POST /v1/devices",
        json!({ "device": "m", "active": false }),
    )
    .await;
    api.ok("POST /v1/devices/m/series", json!({ "metric": "p" }))
        .await;
    let (mut found, pool) = (Vec::new(), store::testing::pool(&api.url, 1));
    let start = store::registry::Position::default();
    let next = store::registry::changes_since(&pool, &start, |devices| found.extend(devices)).await;
    assert_eq!((found[0].name.as_str(), found[0].active), ("m", false));
    assert_eq!(found[0].series[0].0, "p");
    api.ok(
        "PATCH /v1/devices/m",
        json!({ "active": true, "device": "n" }),
    )
    .await;
    found.clear();
    let changed = |devices| found.extend(devices);
    store::registry::changes_since(&pool, &next.unwrap(), changed)
        .await
        .unwrap();
    assert_eq!((found[0].name.as_str(), found[0].active), ("n", true));
}

#[tokio::test]
async fn all_targets_of_a_series_are_replaced_at_once() {
    let api = Api::new().await;
    api.ok("POST /v1/devices", json!({ "device": "m" })).await;
    api.ok("POST /v1/devices/m/series", json!({ "metric": "p" }))
        .await;
    let path = "/v1/devices/m/series/p/targets";
    let target = |hour: u32, value: u32| {
        let starts_at = format!("2026-11-21T{hour:02}:00:00Z");
        json!({ "starts_at": starts_at, "value": value })
    };
    let first = json!({ "targets": [target(0, 1), target(1, 2), target(2, 3)] });
    let reply = api.ok(&format!("PUT {path}"), first).await;
    assert_eq!(reply, json!({ "deleted": 0, "created": 3 }));
    let second = json!({ "targets": [target(5, 4)] });
    let reply = api.ok(&format!("PUT {path}"), second).await;
    assert_eq!(reply, json!({ "deleted": 3, "created": 1 }));
    let list = api.get(path).await;
    assert_eq!(
        super::column(&list["targets"], "starts_at"),
        ["2026-11-21T05:00:00.000000Z"]
    );
    for (body, pointer) in [
        (
            json!({ "targets": [target(1, 1), target(1, 2)] }),
            "/targets/1/starts_at",
        ),
        (
            json!({ "targets": [{ "value": 1 }] }),
            "/targets/0/starts_at",
        ),
        (json!({ "targets": [], "x": 1 }), "/x"),
        (json!({ "targets": {} }), "/targets"),
    ] {
        let error = api
            .fails(&format!("PUT {path}"), body, 422, "invalid_body")
            .await;
        assert_eq!(error["pointer"], pointer, "{error}");
    }
    let path = "PUT /v1/devices/m/series/q/targets";
    api.fails(path, json!({ "targets": [] }), 404, "unknown_series")
        .await;
}

#[tokio::test]
async fn a_device_is_not_renamed_to_a_name_that_exists() {
    let api = Api::new().await;
    for name in ["a", "b"] {
        api.ok("POST /v1/devices", json!({ "device": name })).await;
    }
    let patch = json!({ "device": "b" });
    let error = api
        .fails("PATCH /v1/devices/a", patch, 409, "already_exists")
        .await;
    assert!(error["detail"].as_str().unwrap().contains("'b'"), "{error}");
}

#[tokio::test]
async fn headers_that_cannot_be_used_are_refused() {
    let api = Api::new().await;
    let long = "x".repeat(129);
    for (name, value, status) in [
        ("x-actor", "", 400),
        ("x-actor", long.as_str(), 400),
        ("idempotency-key", long.as_str(), 400),
        ("content-encoding", "gzip", 415),
        ("x-actor", "alice", 201),
    ] {
        let headers = [(name, value)];
        let reply = api
            .send("POST /v1/devices", &headers, json!({ "device": "m" }))
            .await;
        assert_eq!(reply.status, status, "{name}: {}", reply.body);
    }
}

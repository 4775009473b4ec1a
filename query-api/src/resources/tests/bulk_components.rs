//! Many components at once.

use serde_json::{Value, json};

use super::{Api, Reply, column};

const LINE: &str = "POST /v1/components:bulk";

async fn post(api: &Api, content_type: &str, body: impl Into<String>) -> Reply {
    let headers = [("content-type", content_type)];
    api.send(LINE, &headers, Value::String(body.into())).await
}

/// An id that a client chose.
fn id(number: usize) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

#[tokio::test]
async fn the_same_components_are_created_from_json_ndjson_and_csv() {
    for format in ["application/json", "application/x-ndjson", "text/csv"] {
        let api = Api::new().await;
        let old = api.component("station", "old", None).await;
        let rows = [
            json!({ "kind": "station", "name": "new", "latitude": 1.5, "longitude": 2,
                    "attributes": { "address": "Main" }, "time_zone": "Europe/Berlin" }),
            json!({ "id": id(1), "kind": "transformer", "name": "t1", "parent_name": "new" }),
            json!({ "kind": "distributor", "name": "d1", "parent": id(1) }),
            json!({ "kind": "transformer", "name": "t2", "parent": old }),
        ];
        let body = match format {
            "application/json" => json!(rows).to_string(),
            "text/csv" => format!(
                "id,kind,name,parent,parent_name,latitude,longitude,attributes,time_zone\n\
                 ,station,new,,,1.5,2,\"{{\"\"address\"\": \"\"Main\"\"}}\",Europe/Berlin\n\
                 {0},transformer,t1,,new,,,,\n\
                 ,distributor,d1,{0},,,,,\n\
                 ,transformer,t2,{old},,,,,\n",
                id(1)
            ),
            _ => rows.map(|row| row.to_string()).join("\n"),
        };
        let reply = post(&api, format, body).await;
        assert_eq!(reply.status, 201, "{format}: {}", reply.body);
        assert_eq!(reply.body, json!({ "created": { "components": 4 } }));
        let new = api.get("/v1/components?text=new").await["components"][0].clone();
        assert_eq!(new["attributes"], json!({ "address": "Main" }), "{format}");
        assert_eq!(
            (&new["latitude"], &new["version"]),
            (&json!(1.5), &json!(1))
        );
        let within = format!("/v1/components?within={}&at=2001-01-01&sort=name", id(1));
        let within = api.get(&within).await;
        assert_eq!(column(&within["components"], "name"), ["d1", "t1"]);
        let first = api.get(&format!("/v1/components/{}", id(1))).await;
        assert_eq!(first["parent"], new["id"]);
        assert_eq!(first["effective_time_zone"], "Europe/Berlin");
        let below_old = api.get(&format!("/v1/components?parent={old}")).await;
        assert_eq!(column(&below_old["components"], "name"), ["t2"]);
        let changes = api.get("/v1/changes?entity=component").await;
        let changed = column(&changes["changes"], "entity_id");
        assert_eq!((changed.len(), &changed[2]), (5, &id(1)), "{format}");
    }
}

#[tokio::test]
async fn one_bad_component_leaves_nothing_behind_and_every_bad_line_is_reported() {
    let api = Api::new().await;
    let station = api.component("station", "S", None).await;
    let transformer = api.component("transformer", "T", Some(&station)).await;
    let distributor = api.component("distributor", "D", Some(&transformer)).await;
    api.component("feeder", "F", Some(&distributor)).await;
    let schema = json!({ "name": "cable", "parents": [{ "kind": "feeder" }],
                         "attributes": { "required": ["length"] } });
    api.ok("POST /v1/kinds", schema).await;
    let feeder =
        |n: usize| json!({ "kind": "feeder", "name": n.to_string(), "parent": distributor });
    let named = |name: &str| json!({ "kind": "station", "name": name });
    let below = |name: &str| json!({ "kind": "transformer", "name": "t", "parent_name": name });
    for (rows, expected) in [
        // Each row by itself.
        (
            vec![
                named("good"),
                json!({ "kind": "station", "name": "x", "colour": "red" }),
                json!({ "id": "1", "kind": "station" }),
                below("nowhere"),
                json!({ "kind": "cable", "name": "c", "parent": distributor }),
                json!([]),
            ],
            vec![
                (2, "/colour"),
                (3, "/id"),
                (3, "/name"),
                (4, "/parent_name"),
                (5, "/attributes"),
                (6, ""),
            ],
        ),
        // Names and ids within the request.
        (
            vec![
                named("twice"),
                named("twice"),
                below("twice"),
                json!({
                    "kind": "transformer", "name": "t", "parent_name": "t", "parent": station
                }),
                json!({ "kind": "transformer", "name": "t", "parent": id(1) }),
                json!({ "id": id(1), "kind": "station", "name": "late" }),
                json!({ "id": id(1), "kind": "station", "name": "again" }),
                json!({ "id": id(2), "kind": "station", "name": "own", "parent": id(2) }),
            ],
            vec![
                (3, "/parent_name"),
                (4, "/parent_name"),
                (6, "/id"),
                (7, "/id"),
                (8, "/id"),
            ],
        ),
        // What depends on stored rows.
        (
            vec![
                json!({ "id": station, "kind": "station", "name": "exists" }),
                json!({ "kind": "tower", "name": "x" }),
                json!({ "kind": "station", "name": "x", "customer": id(9) }),
                json!({ "kind": "feeder", "name": "x" }),
                json!({ "kind": "station", "name": "x", "parent": station }),
                json!({ "kind": "feeder", "name": "x", "parent": id(9) }),
                json!({ "kind": "feeder", "name": "x", "parent": station }),
                json!({ "kind": "feeder", "name": "x", "parent_name": "exists" }),
            ],
            vec![
                (1, "/id"),
                (2, "/kind"),
                (3, "/customer"),
                (4, "/parent"),
                (5, "/parent"),
                (6, "/parent"),
                (7, "/parent"),
                (8, "/parent"),
            ],
        ),
        // There is one feeder, and 20 is the limit.
        (
            (0..21).map(feeder).collect(),
            vec![(20, "/parent"), (21, "/parent")],
        ),
    ] {
        let body = rows
            .iter()
            .map(|row| format!("{row}\n"))
            .collect::<String>();
        let reply = post(&api, "application/x-ndjson", body.clone()).await;
        assert_eq!(reply.body["code"], "invalid_body", "{body}: {}", reply.body);
        let errors = reply.body["errors"].as_array().unwrap();
        let found: Vec<_> = errors
            .iter()
            .map(|error| {
                let line = error["line"].as_u64().unwrap_or(0);
                (line, error["pointer"].as_str().unwrap())
            })
            .collect();
        assert_eq!(found, expected, "{body}: {}", reply.body);
    }
    let all = api.get("/v1/components?total=true").await;
    assert_eq!(all["total"], 4);
    let full: Vec<Value> = (0..19).map(feeder).collect();
    assert_eq!(api.ok(LINE, json!(full)).await["created"]["components"], 19);
}

#[tokio::test]
async fn rows_that_exist_are_left_out_on_request() {
    let api = Api::new().await;
    let rows = json!([
        { "id": id(1), "kind": "station", "name": "S" },
        { "id": id(2), "kind": "transformer", "name": "T", "parent": id(1) },
        { "id": id(3), "kind": "distributor", "name": "D", "parent": id(2) },
    ]);
    let line = format!("{LINE}?existing=skip");
    let part = json!([rows[0], rows[1]]);
    for (body, created, existing) in [(&part, 2, 0), (&rows, 1, 2), (&rows, 0, 3)] {
        let counts = json!({ "created": { "components": created },
                             "existing": { "components": existing } });
        assert_eq!(api.ok(&line, body.clone()).await, counts);
    }
    api.fails(LINE, rows, 422, "invalid_body").await;
    let devices = json!([
        { "device": "m", "component": id(3), "series": [{ "metric": "p" }] },
        { "device": "n" },
    ]);
    let line = "POST /v1/devices:bulk?existing=skip";
    for (created, series, existing) in [(2, 1, 0), (0, 0, 2)] {
        let counts = json!({ "created": { "devices": created, "series": series },
                             "existing": { "devices": existing } });
        assert_eq!(api.ok(line, devices.clone()).await, counts);
    }
    let changes = api.get("/v1/changes?limit=100").await;
    assert_eq!(changes["changes"].as_array().unwrap().len(), 5);
    let wrong = format!("{LINE}?existing=merge");
    api.fails(&wrong, json!([]), 400, "bad_query").await;
}

#[tokio::test]
async fn the_tree_has_a_depth_that_a_request_cannot_exceed() {
    let api = Api::new().await;
    let kind =
        json!({ "name": "folder", "parents": [{ "kind": "station" }, { "kind": "folder" }] });
    api.ok("POST /v1/kinds", kind).await;
    let station = api.component("station", "S", None).await;
    let top = api.component("folder", "top", Some(&station)).await;
    let chain = |count: usize| {
        let row = |n: usize| {
            let parent = if n == 0 { top.clone() } else { id(n) };
            json!({ "id": id(n + 1), "kind": "folder", "name": n.to_string(), "parent": parent })
        };
        Value::Array((0..count).map(row).collect())
    };
    let refused = api.fails(LINE, chain(31), 422, "invalid_body").await;
    assert_eq!(refused["pointer"], "/30/parent", "{refused}");
    api.ok(LINE, chain(30)).await;
}

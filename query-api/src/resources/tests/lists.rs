//! Lists: pages, filters, orders and totals.

use serde_json::{Value, json};

use super::{Api, column};

/// Reads every page of a list and returns the values of a member.
async fn pages(api: &Api, path: &str, list: &str, name: &str) -> Vec<String> {
    let (mut values, mut next) = (Vec::new(), path.to_owned());
    loop {
        let reply = api.send(&format!("GET {next}"), &[], Value::Null).await;
        assert_eq!(reply.status, 200, "{next}: {}", reply.body);
        values.extend(column(&reply.body[list], name));
        let Some(link) = reply.headers.get("link") else {
            assert_eq!(reply.body["next"], Value::Null);
            return values;
        };
        let link = link.to_str().unwrap();
        let link = link.strip_suffix(">; rel=\"next\"").unwrap();
        next = link.strip_prefix('<').unwrap().to_owned();
    }
}

#[tokio::test]
async fn pages_in_every_order_return_each_row_once() {
    let api = Api::new().await;
    for name in ["c", "a", "b", "a", "ä/?&"] {
        api.component("station", name, None).await;
    }
    let first = pages(&api, "/v1/components", "components", "name").await;
    assert_eq!(first, ["c", "a", "b", "a", "ä/?&"]);
    for sort in ["created_at", "name", "updated_at"] {
        let path = format!("/v1/components?sort={sort}");
        let whole = pages(&api, &path, "components", "id").await;
        for limit in 1..=5 {
            let path = format!("{path}&limit={limit}");
            assert_eq!(
                pages(&api, &path, "components", "id").await,
                whole,
                "{path}"
            );
            let path = format!("{path}&order=desc");
            let mut reversed = pages(&api, &path, "components", "id").await;
            reversed.reverse();
            assert_eq!(reversed, whole, "{path}");
        }
    }
    for n in 0..5 {
        api.ok(
            "POST /v1/devices",
            json!({ "device": format!("m{}", 5 - n) }),
        )
        .await;
    }
    let names = pages(&api, "/v1/devices?limit=2&order=desc", "devices", "device").await;
    assert_eq!(names, ["m5", "m4", "m3", "m2", "m1"]);
    let names = pages(
        &api,
        "/v1/devices?limit=2&sort=created_at",
        "devices",
        "device",
    )
    .await;
    assert_eq!(names, ["m5", "m4", "m3", "m2", "m1"]);
    for metric in ["p", "q", "r"] {
        api.ok("POST /v1/devices/m1/series", json!({ "metric": metric }))
            .await;
    }
    let metrics = pages(&api, "/v1/devices/m1/series?limit=1", "series", "metric").await;
    assert_eq!(metrics, ["p", "q", "r"]);
    let targets = "/v1/devices/m1/series/p/targets";
    for day in 1..=4 {
        let target =
            json!({ "starts_at": format!("2026-11-0{day}T00:00:00.000001Z"), "value": day });
        api.ok(&format!("POST {targets}"), target).await;
    }
    let starts = pages(&api, &format!("{targets}?limit=1"), "targets", "starts_at").await;
    assert_eq!(starts.len(), 4);
    let path = format!("{targets}?from=2026-11-02&to=2026-11-04");
    let starts = pages(&api, &path, "targets", "starts_at").await;
    assert_eq!(
        starts,
        ["2026-11-02T00:00:00.000001Z", "2026-11-03T00:00:00.000001Z"]
    );
}

#[tokio::test]
async fn components_are_filtered() {
    let api = Api::new().await;
    let customer = api
        .ok("POST /v1/customers", json!({ "name": "ACME" }))
        .await["id"]
        .clone();
    let other = api
        .ok("POST /v1/customers", json!({ "name": "other" }))
        .await["id"]
        .clone();
    let station = json!({
        "kind": "station", "name": "North", "latitude": 52.52, "longitude": 13.405,
        "customer": customer
    });
    let north = api.ok("POST /v1/components", station).await["id"].clone();
    let north = north.as_str().unwrap();
    let station = json!({
        "kind": "station", "name": "South", "latitude": -17, "longitude": 179.9
    });
    api.ok("POST /v1/components", station).await;
    let first = api.component("transformer", "T1", Some(north)).await;
    let second = api.component("transformer", "T2", Some(north)).await;
    let patch = json!({ "customer": other });
    api.ok(&format!("PATCH /v1/components/{second}"), patch)
        .await;
    let lower = api.component("distributor", "D1", Some(&first)).await;
    let customer = customer.as_str().unwrap();
    for (query, expected) in [
        ("kind=transformer".into(), vec!["T1", "T2"]),
        ("parent=none".into(), vec!["North", "South"]),
        (format!("parent={north}"), vec!["T1", "T2"]),
        (format!("within={north}"), vec!["North", "T1", "T2", "D1"]),
        (format!("within={first}&kind=distributor"), vec!["D1"]),
        (format!("customer={customer}"), vec!["North", "T1", "D1"]),
        ("text=nOR".into(), vec!["North"]),
        ("box=13,52,14,53".into(), vec!["North"]),
        ("box=179,-20,-179,0".into(), vec!["South"]),
        ("near=52.5,13.4&radius=5000".into(), vec!["North"]),
        ("near=52.5,13.4&radius=1000".into(), vec![]),
        ("near=-17,-179.9&radius=30000".into(), vec!["South"]),
    ] {
        let body = api.get(&format!("/v1/components?total=true&{query}")).await;
        assert_eq!(column(&body["components"], "name"), expected, "{query}");
        assert_eq!(body["total"], expected.len(), "{query}");
    }
    // The tree of an earlier time.
    let moved = format!("PATCH /v1/components/{lower}");
    api.ok(&moved, json!({ "parent": second })).await;
    let at = api.client().await;
    let sql = "SELECT gridwatch_time(valid_to - interval '1 microsecond') FROM placement
               WHERE valid_to <> 'infinity'";
    let before: String = at.query_one(sql, &[]).await.unwrap().get(0);
    for (query, expected) in [
        (format!("within={first}"), vec!["T1"]),
        (format!("within={first}&at=2001-01-01"), vec!["T1", "D1"]),
        (format!("within={first}&at={before}"), vec!["T1", "D1"]),
        (format!("within={second}&at={before}"), vec!["T2"]),
        (format!("within={second}"), vec!["T2", "D1"]),
    ] {
        let body = api.get(&format!("/v1/components?{query}")).await;
        assert_eq!(column(&body["components"], "name"), expected, "{query}");
    }
}

#[tokio::test]
async fn devices_are_filtered_and_a_move_keeps_the_history() {
    let api = Api::new().await;
    let model = json!({ "category": "meter", "name": "M3" });
    let model = api.ok("POST /v1/types", model).await["id"].clone();
    let customer = api
        .ok("POST /v1/customers", json!({ "name": "ACME" }))
        .await["id"]
        .clone();
    let first = api.component("station", "S1", None).await;
    let second = api.component("station", "S2", None).await;
    let path = format!("PATCH /v1/components/{second}");
    api.ok(&path, json!({ "customer": customer })).await;
    for device in [
        json!({ "device": "m1", "type": model, "component": first, "name": "Main Street" }),
        json!({ "device": "m2", "component": second, "active": false }),
        json!({ "device": "m3", "latitude": 1, "longitude": 2 }),
    ] {
        api.ok("POST /v1/devices", device).await;
    }
    let (model, customer) = (model.as_str().unwrap(), customer.as_str().unwrap());
    let check = async |query: &str, expected: &[&str]| {
        let body = api.get(&format!("/v1/devices?{query}")).await;
        assert_eq!(column(&body["devices"], "device"), expected, "{query}");
    };
    check(&format!("type={model}"), &["m1"]).await;
    check("active=false", &["m2"]).await;
    check("active=true", &["m1", "m3"]).await;
    check(&format!("within={first}"), &["m1"]).await;
    check(&format!("customer={customer}"), &["m2"]).await;
    check("text=street", &["m1"]).await;
    check("text=M", &["m1", "m2", "m3"]).await;
    check("near=1,2&radius=1", &["m3"]).await;
    api.ok("PATCH /v1/devices/m1", json!({ "component": second }))
        .await;
    check(&format!("within={first}"), &[]).await;
    check(&format!("within={first}&at=2001-01-01"), &["m1"]).await;
    check(&format!("within={second}"), &["m1", "m2"]).await;
}

#[tokio::test]
async fn health_is_computed_from_the_latest_readings() {
    let api = Api::new().await;
    for device in ["late", "lost", "never", "ok", "unknown", "unwatched"] {
        let interval = if device == "unwatched" {
            Value::Null
        } else {
            json!(60)
        };
        let body = json!({ "device": device, "expected_interval": interval });
        api.ok("POST /v1/devices", body).await;
        for metric in ["p", "q"] {
            if device != "unknown" {
                let path = format!("POST /v1/devices/{device}/series");
                api.ok(&path, json!({ "metric": metric })).await;
            }
        }
    }
    let sql = "
        SELECT gridwatch_create_reading_day((now() - n * interval '1 day')::date)
        FROM generate_series(-1, 2) n;
        INSERT INTO reading
        SELECT s.id, now() - age * interval '1 second', 0
        FROM (VALUES ('ok', 'p', 0), ('ok', 'q', 90), ('late', 'p', 10), ('late', 'q', 200),
                     ('lost', 'p', 4000), ('lost', 'q', 100000)) AS new (device, metric, age)
        JOIN device d ON d.external_id = device
        JOIN series s ON s.device_id = d.id AND s.metric = new.metric";
    api.client().await.batch_execute(sql).await.unwrap();
    let body = api.get("/v1/devices").await;
    let health = column(&body["devices"], "health");
    let expected = [
        "deteriorated",
        "unreachable",
        "unreachable",
        "ok",
        "unknown",
        "unknown",
    ];
    assert_eq!(health, expected);
    assert_eq!(api.get("/v1/devices/late").await["health"], "deteriorated");
    for (query, expected) in [
        ("health=ok", vec!["ok"]),
        ("health=unknown&limit=1", vec!["unknown", "unwatched"]),
        ("health=unreachable&limit=1", vec!["lost", "never"]),
        ("health=deteriorated&limit=1", vec!["late"]),
    ] {
        let found = pages(&api, &format!("/v1/devices?{query}"), "devices", "device").await;
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn mistakes_in_a_query_are_refused_with_a_sentence_that_names_them() {
    let api = Api::new().await;
    for (path, text) in [
        ("/v1/components?sort=colour", "created_at or name"),
        ("/v1/components?parent=x", "use none"),
        ("/v1/components?within=x", "'x' is not a UUID"),
        ("/v1/components?at=2026-01-01", "at needs within"),
        ("/v1/components?box=1,2,3", "west,south"),
        ("/v1/components?near=1,2", "give both"),
        ("/v1/components?near=1,2&radius=-1", "'-1'"),
        ("/v1/components?next=x", "'x' is not a position"),
        ("/v1/components?total=yes", "'yes' is not true or false"),
        ("/v1/components?type=x", "'type' is not a parameter"),
        ("/v1/devices?health=good", "'good'"),
        ("/v1/devices?health=ok&total=true", "cannot be combined"),
        ("/v1/devices?limit=5001", "from 1 to 5000"),
        ("/v1/changes?next=x", "'x' is not a position"),
    ] {
        let error = api
            .fails(&format!("GET {path}"), Value::Null, 400, "bad_query")
            .await;
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(text), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_page_of_large_documents_ends_early_and_the_next_one_continues() {
    let api = Api::new().await;
    let large = "x".repeat(60_000);
    for n in 0..300 {
        let customer = json!({ "name": n.to_string(), "attributes": { "note": large } });
        api.ok("POST /v1/customers", customer).await;
    }
    let body = api.get("/v1/customers?limit=5000").await;
    let first = body["customers"].as_array().unwrap().len();
    assert!((100..300).contains(&first), "{first}");
    let names = pages(&api, "/v1/customers?limit=5000", "customers", "name").await;
    let expected: Vec<String> = (0..300).map(|n: u32| n.to_string()).collect();
    assert_eq!(names, expected);
    let (mut path, mut found) = ("/v1/changes?limit=5000".to_owned(), Vec::new());
    loop {
        let body = api.get(&path).await;
        found.extend(column(&body["changes"], "entity_id"));
        match body["next"].as_str() {
            Some(next) => path = format!("/v1/changes?limit=5000&next={next}"),
            None => break,
        }
    }
    assert_eq!(found.len(), 300);
    let huge = json!({ "name": "x", "attributes": { "note": "x".repeat(70_000) } });
    let error = api
        .fails("POST /v1/customers", huge, 422, "invalid_body")
        .await;
    assert_eq!(error["pointer"], "/attributes");
}

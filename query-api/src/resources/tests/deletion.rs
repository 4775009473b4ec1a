//! Deleting, cascades and jobs.

use serde_json::{Value, json};
use store::model::jobs::run_slice;
use store::testing::pool;

use super::{Api, column};

/// Stores readings of every series, some in each of three days.
async fn store_readings(api: &Api, readings_of_a_day: u32) {
    let sql = format!(
        "SELECT gridwatch_create_reading_day('2026-11-01'::date + n) FROM generate_series(0, 2) n;
         INSERT INTO reading
         SELECT s.id,
                '2026-11-01'::timestamptz + day * interval '1 day' + n * interval '1 second', n
         FROM series s, generate_series(0, 2) day, generate_series(1, {readings_of_a_day}) n"
    );
    api.client().await.batch_execute(&sql).await.unwrap();
}

async fn count(api: &Api, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    api.client()
        .await
        .query_one(&sql, &[])
        .await
        .unwrap()
        .get(0)
}

async fn device(api: &Api, name: &str, component: Option<&str>) {
    let body = json!({ "device": name, "component": component });
    api.ok("POST /v1/devices", body).await;
    for metric in ["p", "q"] {
        let path = format!("POST /v1/devices/{name}/series");
        api.ok(&path, json!({ "metric": metric })).await;
    }
}

#[tokio::test]
async fn what_nothing_depends_on_is_deleted_at_once() {
    let api = Api::new().await;
    let station = api.component("station", "S", None).await;
    api.ok("POST /v1/devices", json!({ "device": "m" })).await;
    let customer = api
        .ok("POST /v1/customers", json!({ "name": "ACME" }))
        .await;
    let model = api
        .ok("POST /v1/types", json!({ "category": "c", "name": "n" }))
        .await;
    for (path, expected) in [
        (
            format!("/v1/components/{station}"),
            json!({ "components": 1 }),
        ),
        ("/v1/devices/m".into(), json!({ "devices": 1 })),
        ("/v1/kinds/factory".into(), json!({ "kinds": 1 })),
        (
            format!("/v1/customers/{}", customer["id"].as_str().unwrap()),
            json!({ "customers": 1 }),
        ),
        (
            format!("/v1/types/{}", model["id"].as_str().unwrap()),
            json!({ "types": 1 }),
        ),
    ] {
        let body = api.ok(&format!("DELETE {path}"), Value::Null).await;
        assert_eq!(body, json!({ "deleted": expected, "job": null }), "{path}");
        let reply = api.send(&format!("GET {path}"), &[], Value::Null).await;
        assert_eq!(reply.status, 404, "{path}");
        let reply = api.send(&format!("DELETE {path}"), &[], Value::Null).await;
        assert_eq!(reply.status, 404, "{path}");
    }
    let changes = api.get("/v1/changes?order=desc&limit=5").await;
    assert!(
        column(&changes["changes"], "action")
            .iter()
            .all(|action| action == "delete")
    );
}

#[tokio::test]
async fn what_is_in_use_is_not_deleted_unless_the_client_asks_for_it() {
    let api = Api::new().await;
    let station = api.component("station", "S", None).await;
    let transformer = api.component("transformer", "T", Some(&station)).await;
    device(&api, "m", Some(&transformer)).await;
    device(&api, "other", None).await;
    store_readings(&api, 10).await;
    let target = json!({ "starts_at": "2026-11-01T00:00:00Z", "value": 1 });
    api.ok("POST /v1/devices/m/series/p/targets", target).await;
    for (path, dependents) in [
        (
            format!("/v1/components/{station}"),
            json!({
                "components": 1, "devices": 1, "series": 2, "readings": 60
            }),
        ),
        (
            "/v1/devices/m".into(),
            json!({ "series": 2, "readings": 60 }),
        ),
        (
            "/v1/devices/m/series/p".into(),
            json!({ "series": 1, "readings": 30 }),
        ),
        (
            "/v1/kinds/station".into(),
            json!({ "components": 1, "kinds": 1 }),
        ),
    ] {
        let error = api
            .fails(
                &format!("DELETE {path}"),
                Value::Null,
                409,
                "has_dependents",
            )
            .await;
        assert_eq!(error["dependents"], dependents, "{path}");
    }
    let stale = [("if-match", "\"9\"")];
    let reply = api
        .send("DELETE /v1/devices/m?cascade=true", &stale, Value::Null)
        .await;
    assert_eq!(reply.status, 412);
    let body = api
        .ok("DELETE /v1/devices/m/series/p?cascade=true", Value::Null)
        .await;
    assert_eq!(body["deleted"], json!({ "series": 1, "readings": 30 }));
    let body = api
        .ok(
            &format!("DELETE /v1/components/{station}?cascade=true"),
            Value::Null,
        )
        .await;
    let expected = json!({ "components": 2, "devices": 1, "series": 1, "readings": 30 });
    assert_eq!(body["deleted"], expected);
    assert_eq!(
        (count(&api, "reading").await, count(&api, "component").await),
        (60, 0)
    );
    let body = api.get("/v1/devices?total=true").await;
    assert_eq!(
        (column(&body["devices"], "device"), &body["total"]),
        (vec!["other".into()], &json!(1))
    );
    // The name is free again, and the history of the deleted device is kept.
    api.ok("POST /v1/devices", json!({ "device": "m" })).await;
    let changes = api.get("/v1/changes?entity=device&id=m").await;
    assert_eq!(
        column(&changes["changes"], "action"),
        ["create", "delete", "create"]
    );
    assert_eq!(changes["changes"][1]["before"]["series"][0]["metric"], "q");
}

#[tokio::test]
async fn front_ends_notice_that_a_device_or_a_series_is_deleted() {
    let api = Api::new().await;
    device(&api, "m", None).await;
    let pool = pool(&api.url, 1);
    let changes = async |position: &store::registry::Position| {
        let mut found = Vec::new();
        let next = store::registry::changes_since(&pool, position, |devices| found.extend(devices));
        (next.await.unwrap(), found)
    };
    let (position, found) = changes(&store::registry::Position::default()).await;
    let id = found[0].id;
    api.ok("DELETE /v1/devices/m/series/p?cascade=true", Value::Null)
        .await;
    let (position, found) = changes(&position).await;
    let metrics: Vec<&str> = found[0]
        .series
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!((found[0].id, metrics), (id, vec!["q"]));
    api.ok("DELETE /v1/devices/m?cascade=true", Value::Null)
        .await;
    let (_, found) = changes(&position).await;
    assert_eq!(
        (found[0].id, found[0].active, found[0].series.len()),
        (id, false, 0)
    );
    assert_ne!(found[0].name, "m");
    // A front end that starts later does not need to know it.
    let (_, found) = changes(&store::registry::Position::default()).await;
    assert_eq!(found, []);
}

#[tokio::test]
async fn many_readings_are_deleted_by_a_job_that_survives_a_restart() {
    let api = Api::new().await;
    device(&api, "m", None).await;
    device(&api, "other", None).await;
    store_readings(&api, 4_000).await;
    let reply = api
        .send("DELETE /v1/devices/m?cascade=true", &[], Value::Null)
        .await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    assert_eq!(reply.body["deleted"], json!({ "devices": 1, "series": 2 }));
    let path = reply.headers["location"].to_str().unwrap().to_owned();
    let job = api.get(&path).await;
    assert_eq!(
        (&job["state"], &job["deleted"]["readings"]),
        (&json!("running"), &json!(0))
    );
    let mut progress = Vec::new();
    // Each slice is run by another process.
    while run_slice(&pool(&api.url, 1)).await.unwrap() {
        let job = api.get(&path).await;
        progress.push(job["progress"].as_f64().unwrap());
    }
    let job = api.get(&path).await;
    let expected = json!({ "components": 0, "devices": 1, "series": 2, "readings": 24_000 });
    assert_eq!(
        (&job["state"], &job["deleted"]),
        (&json!("done"), &expected)
    );
    assert_eq!(count(&api, "reading").await, 24_000);
    assert!(progress.len() >= 5 && progress.is_sorted(), "{progress:?}");
    assert_eq!(progress.last(), Some(&1.0));
    api.fails("GET /v1/jobs/x", Value::Null, 404, "unknown_resource")
        .await;
}

#[tokio::test]
async fn a_large_subtree_is_deleted_by_a_job() {
    let api = Api::new().await;
    let station = api.component("station", "S", None).await;
    let other = api.component("station", "other", None).await;
    let sql = format!(
        "INSERT INTO component (id, kind, parent, name)
         SELECT gen_random_uuid(), 'transformer', '{station}', n
         FROM generate_series(1, 300) n;
         INSERT INTO device (external_id, component)
         SELECT 'm' || row_number() OVER (), id FROM component, generate_series(1, 3)
         WHERE kind = 'transformer';
         INSERT INTO device (external_id, component) VALUES ('rest', '{other}');
         INSERT INTO series (device_id, metric) SELECT id, 'p' FROM device"
    );
    api.client().await.batch_execute(&sql).await.unwrap();
    store_readings(&api, 1).await;
    let path = format!("DELETE /v1/components/{station}");
    let error = api.fails(&path, Value::Null, 409, "has_dependents").await;
    assert_eq!(
        error["dependents"],
        json!({ "components": 300, "devices": 900 })
    );
    let reply = api
        .send(&format!("{path}?cascade=true"), &[], Value::Null)
        .await;
    assert_eq!(
        (reply.status.as_u16(), &reply.body["deleted"]),
        (202, &json!({}))
    );
    while run_slice(&pool(&api.url, 1)).await.unwrap() {}
    let job = api.get(reply.headers["location"].to_str().unwrap()).await;
    let expected = json!({ "components": 301, "devices": 900, "series": 900, "readings": 2_700 });
    assert_eq!(
        (&job["state"], &job["deleted"]),
        (&json!("done"), &expected)
    );
    let devices = api.get("/v1/devices").await;
    assert_eq!(column(&devices["devices"], "device"), ["rest"]);
    assert_eq!(count(&api, "reading").await, 3);
}

#[tokio::test]
async fn a_job_that_cannot_continue_is_marked_as_failed_and_does_not_hold_up_the_next_one() {
    let api = Api::new().await;
    for name in ["broken", "m"] {
        device(&api, name, None).await;
    }
    store_readings(&api, 2_000).await;
    let mut jobs = Vec::new();
    for name in ["broken", "m"] {
        let line = format!("DELETE /v1/devices/{name}?cascade=true");
        let reply = api.send(&line, &[], Value::Null).await;
        jobs.push(reply.headers["location"].to_str().unwrap().to_owned());
    }
    let first = jobs[0].rsplit('/').next().unwrap();
    let sql = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'broken'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON job FOR EACH ROW
         WHEN (NEW.id = '{first}' AND NEW.state = 'running') EXECUTE FUNCTION refuse()"
    );
    api.client().await.batch_execute(&sql).await.unwrap();
    let pool = pool(&api.url, 1);
    run_slice(&pool).await.unwrap_err();
    while run_slice(&pool).await.unwrap() {}
    let states = [
        api.get(&jobs[0]).await["state"].clone(),
        api.get(&jobs[1]).await["state"].clone(),
    ];
    assert_eq!(states, ["failed", "done"]);
    assert!(
        api.get(&jobs[0]).await["error"]
            .as_str()
            .unwrap()
            .contains("log")
    );
}

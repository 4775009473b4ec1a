//! Deletions while something else happens at the same time: stores, moves and failures.

use serde_json::{Value, json};
use store::Client;
use store::model::jobs::run_slice;
use store::testing::{LIMIT, pool};
use tokio::time::timeout;

use super::{Api, column};

const DAY: &str = "from=2026-11-01&to=2026-11-02";

async fn count(client: &Client, rows: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {rows}");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

/// A device with one series, and as many readings, a second apart, on the first of November.
async fn device(api: &Api, name: &str, component: Option<&str>, readings: u32) {
    let body = json!({ "device": name, "component": component });
    api.ok("POST /v1/devices", body).await;
    let path = format!("POST /v1/devices/{name}/series");
    api.ok(&path, json!({ "metric": "p" })).await;
    store(&api.client().await, name, "0 seconds", readings).await;
}

/// Stores readings of a device.
async fn store(client: &Client, device: &str, after: &str, readings: u32) {
    let day = "SELECT gridwatch_create_reading_day('2026-11-01')";
    client.batch_execute(day).await.unwrap();
    let sql = format!(
        "INSERT INTO reading
         SELECT s.id, '2026-11-01'::timestamptz + interval '{after}' + n * interval '1 second', n
         FROM series s JOIN device d ON d.id = s.device_id AND d.external_id = '{device}',
              generate_series(1, {readings}) n"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Runs slices until the job of a path is done.
async fn finish(api: &Api, path: &str) -> Value {
    let pool = pool(&api.url, 1);
    let finished = async {
        loop {
            let _ = run_slice(&pool).await;
            let job = api.get(path).await;
            if job["state"] != "running" {
                return job;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, finished).await.expect("the job ends")
}

/// Runs slices while there is a job.
async fn finish_all(api: &Api) {
    let (pool, client) = (pool(&api.url, 1), api.client().await);
    let finished = async {
        while count(&client, "job WHERE state = 'running'").await > 0 {
            run_slice(&pool).await.unwrap();
        }
    };
    timeout(LIMIT, finished).await.expect("the jobs end");
}

/// Waits until a statement waits for a lock that another transaction has.
async fn until_blocked(client: &Client) {
    let sql = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let blocked = async { while count(client, sql).await == 0 {} };
    timeout(LIMIT, blocked).await.expect("a statement waits");
}

#[tokio::test]
async fn a_deletion_of_a_range_keeps_readings_that_are_stored_after_it_was_accepted() {
    let api = Api::new().await;
    device(&api, "m", None, 12_000).await;
    let line = format!("DELETE /v1/readings?device=m&metric=p&{DAY}");
    let reply = api.send(&line, &[], Value::Null).await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    let path = reply.headers["location"].to_str().unwrap();
    let client = api.client().await;
    store(&client, "m", "0.5 seconds", 7_000).await;
    let job = finish(&api, path).await;
    assert_eq!(job["deleted"]["readings"], 12_000, "{job}");
    assert_eq!(count(&client, "reading").await, 7_000);
}

#[tokio::test]
async fn readings_that_a_worker_stores_while_their_device_is_deleted_are_deleted_too() {
    for readings in [10, 6_000] {
        let api = Api::new().await;
        device(&api, "m", None, readings).await;
        let (worker, client) = (api.client().await, api.client().await);
        let sql = "SELECT max(id) FROM series";
        let series: i32 = client.query_one(sql, &[]).await.unwrap().get(0);
        // A worker checks which series are deleted in the statement that writes to the ledger.
        worker
            .batch_execute(
                "BEGIN;
                 INSERT INTO batch SELECT gen_random_uuid(), 0, 0, 0, 0, 0, now(), now(), now(),
                                          now(), now(), now()
                 RETURNING EXISTS (SELECT FROM deleted_series)",
            )
            .await
            .unwrap();
        api.ok("DELETE /v1/devices/m?cascade=true", Value::Null)
            .await;
        let pool = pool(&api.url, 1);
        for _ in 0..5 {
            run_slice(&pool).await.unwrap();
        }
        let insert = format!(
            "SAVEPOINT rows;
             INSERT INTO reading VALUES ({series}, '2026-11-01 20:00Z', 1);
             RELEASE SAVEPOINT rows; COMMIT"
        );
        worker.batch_execute(&insert).await.unwrap();
        finish_all(&api).await;
        assert_eq!(count(&client, "reading").await, 0, "{readings}");
    }
}

#[tokio::test]
async fn a_device_that_is_moved_while_its_component_is_deleted_stays() {
    // A few devices are deleted by the request, many by a job.
    for others in [0, 1_100] {
        let api = Api::new().await;
        let station = api.component("station", "S", None).await;
        let other = api.component("station", "other", None).await;
        device(&api, "m", Some(&station), 1).await;
        let (mover, client) = (api.client().await, api.client().await);
        let sql = format!(
            "INSERT INTO device (external_id, component)
             SELECT 'n' || n, '{station}' FROM generate_series(1, {others}) n"
        );
        client.batch_execute(&sql).await.unwrap();
        let sql = format!("BEGIN; UPDATE device SET component = '{other}' WHERE external_id = 'm'");
        mover.batch_execute(&sql).await.unwrap();
        let deleting = async {
            let line = format!("DELETE /v1/components/{station}?cascade=true");
            api.ok(&line, Value::Null).await;
            finish_all(&api).await;
        };
        let moving = async {
            until_blocked(&client).await;
            mover.batch_execute("COMMIT").await.unwrap();
        };
        tokio::join!(deleting, moving);
        let devices = api.get("/v1/devices").await;
        assert_eq!(column(&devices["devices"], "device"), ["m"], "{others}");
        assert_eq!(devices["devices"][0]["component"], json!(other));
        assert_eq!(count(&client, "reading").await, 1);
        assert_eq!(count(&client, "component").await, 1);
    }
}

#[tokio::test]
async fn a_job_whose_slices_fail_is_retried_later_and_does_not_hold_up_the_next_one() {
    // The codes of a statement timeout, of a deadlock, and of a partition that was dropped.
    for code in ["57014", "40P01", "42P01"] {
        let api = Api::new().await;
        let mut paths = Vec::new();
        for name in ["first", "second"] {
            device(&api, name, None, 6_000).await;
        }
        let client = api.client().await;
        let sql = "SELECT min(id) FROM series";
        let series: i32 = client.query_one(sql, &[]).await.unwrap().get(0);
        let sql = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$;
             CREATE TRIGGER refuse BEFORE DELETE ON reading_20261101 FOR EACH ROW
             WHEN (OLD.series_id = {series}) EXECUTE FUNCTION refuse()"
        );
        client.batch_execute(&sql).await.unwrap();
        for name in ["first", "second"] {
            let line = format!("DELETE /v1/devices/{name}?cascade=true");
            let reply = api.send(&line, &[], Value::Null).await;
            assert_eq!(reply.status, 202, "{}", reply.body);
            paths.push(reply.headers["location"].to_str().unwrap().to_owned());
        }
        assert_eq!(finish(&api, &paths[1]).await["state"], "done", "{code}");
        let first = api.get(&paths[0]).await;
        let error = first["error"].as_str().unwrap_or_default();
        assert_eq!(first["state"], "running", "{code}: {first}");
        assert!(error.contains("retried"), "{code}: {first}");
        client
            .batch_execute("DROP TRIGGER refuse ON reading_20261101; UPDATE job SET due_at = now()")
            .await
            .unwrap();
        let first = finish(&api, &paths[0]).await;
        assert_eq!(
            (&first["state"], &first["error"]),
            (&json!("done"), &Value::Null)
        );
        assert_eq!(count(&client, "reading").await, 0);
    }
}

#[tokio::test]
async fn moves_at_the_same_time_give_placements_that_do_not_overlap() {
    let api = Api::new().await;
    let mut stations = Vec::new();
    for name in ["a", "b", "c"] {
        stations.push(api.component("station", name, None).await);
    }
    device(&api, "m", Some(&stations[0]), 0).await;
    let (first, second) = (api.client().await, api.client().await);
    let to = |station: &str| {
        format!("UPDATE device SET component = '{station}' WHERE external_id = 'm'")
    };
    // The transaction that begins first moves the device last.
    first.batch_execute("BEGIN; SELECT now()").await.unwrap();
    second.batch_execute(&to(&stations[1])).await.unwrap();
    first.batch_execute(&to(&stations[2])).await.unwrap();
    first.batch_execute(&to(&stations[1])).await.unwrap();
    first.batch_execute("COMMIT").await.unwrap();
    second
        .batch_execute("UPDATE device SET component = NULL WHERE external_id = 'm'")
        .await
        .unwrap();
    second.batch_execute(&to(&stations[0])).await.unwrap();
    let client = api.client().await;
    assert_eq!(count(&client, "placement").await, 5);
    assert_eq!(
        count(&client, "placement WHERE valid_to <= valid_from").await,
        0
    );
    let overlaps = "placement a JOIN placement b ON a.id < b.id AND a.device_id = b.device_id
                    AND a.valid_from < b.valid_to AND b.valid_from < a.valid_to";
    assert_eq!(count(&client, overlaps).await, 0);
}

#[tokio::test]
async fn a_deleted_component_leaves_the_history_of_devices_that_had_been_below_it() {
    let api = Api::new().await;
    let station = api.component("station", "S", None).await;
    let transformer = api.component("transformer", "T", Some(&station)).await;
    let other = api.component("station", "other", None).await;
    device(&api, "m", Some(&transformer), 0).await;
    let client = api.client().await;
    let sql = "SELECT gridwatch_time(clock_timestamp())";
    let before: String = client.query_one(sql, &[]).await.unwrap().get(0);
    api.ok("PATCH /v1/devices/m", json!({ "component": other }))
        .await;
    api.ok(&format!("DELETE /v1/components/{transformer}"), Value::Null)
        .await;
    let at = async |at: &str| {
        let path = format!("/v1/devices?within={station}&at={at}");
        column(&api.get(&path).await["devices"], "device")
    };
    assert_eq!(at(&before).await, ["m"]);
    let after: String = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(at(&after).await, Vec::<String>::new());
    let open = "placement WHERE component IS NOT NULL AND valid_to = 'infinity'";
    assert_eq!(count(&client, open).await, 0);
}

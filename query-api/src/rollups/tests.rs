//! Roll-ups on a real database: they give the answers that the readings give, always.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::sync::Arc;

use jiff::Timestamp;
use schema::batch::{Batch, Receipt};
use schema::reading::Reading;
use store::transaction::{ReceivedBatch, store_batches};
use store::{Client, Pool, testing};
use tower::ServiceExt as _;

use super::*;

struct Api {
    url: String,
    router: Router,
    pool: Pool,
    client: Client,
    builder: Builder,
}

/// From 2024-10-25 to 2024-10-29, on which clocks change in Berlin: `dense` is there and has a
/// counter with rollovers, resets and gaps; `gauge` has a value every 20 s in UTC; `sparse` has one
/// every hour.
async fn api() -> Api {
    let url = testing::create_database().await;
    let client = testing::connect(&url).await;
    let sql = "
        INSERT INTO component (id, kind, name, time_zone)
        VALUES ('00000000-0000-0000-0000-000000000001', 'station', 's', 'Europe/Berlin');
        INSERT INTO device (external_id, component)
        VALUES ('dense', '00000000-0000-0000-0000-000000000001'), ('gauge', NULL),
               ('sparse', NULL);
        INSERT INTO series (device_id, metric, unit) SELECT id, 'p', 'W' FROM device;
        UPDATE series SET kind = 'counter', rollover = 1000
        WHERE device_id = (SELECT id FROM device WHERE external_id = 'dense');
        SELECT gridwatch_create_reading_day(day::date)
        FROM generate_series('2024-10-25'::date, '2024-10-29', '1 day') AS day;
        INSERT INTO reading
        SELECT s.id, t, CASE external_id WHEN 'dense' THEN n * 7 % 1000 / (1 + n / 9000)
                                         ELSE n * 7919 % 1000 END
        FROM device d JOIN series s ON s.device_id = d.id
        JOIN (VALUES ('dense', 25), ('gauge', 20), ('sparse', 3600)) AS every (device, seconds)
             ON device = external_id,
        LATERAL (SELECT n, '2024-10-25 00:00:07Z'::timestamptz + n * seconds * interval '1 second'
                 FROM generate_series(0, 5 * 86400 / seconds - 1) AS n) AS times (n, t)
        WHERE external_id <> 'dense'
           OR t NOT BETWEEN '2024-10-26 10:00Z' AND '2024-10-26 17:05Z'";
    client.batch_execute(sql).await.unwrap();
    let pool = testing::pool(&url, 3);
    Api {
        url,
        router: crate::routes(pool.clone()),
        pool,
        client,
        builder: Builder::new(),
    }
}

impl Api {
    /// Builds until there is nothing to do. The server has other transactions, for which building
    /// may have to wait.
    async fn build(&mut self) {
        let todo = "SELECT count(*) FROM (SELECT 1 FROM rollup_day WHERE built_at IS NULL
                                          UNION ALL SELECT 1 FROM rollup_mark) AS todo";
        rollups::close_days(&self.pool, CLOSE_DELAY).await.unwrap();
        let pool = self.pool.clone();
        while self.count(todo).await > 0 {
            if !self.builder.run_slice(&pool).await.unwrap() {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn get(&self, path: &str) -> Value {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The answer of the readings, without any roll-up.
    async fn get_from_readings(&self, path: &str) -> Value {
        let sql = "BEGIN; CREATE TABLE kept_q AS SELECT * FROM rollup_quarter_hour;
                   CREATE TABLE kept_d AS SELECT * FROM rollup_local_day;
                   TRUNCATE rollup_quarter_hour, rollup_local_day; COMMIT";
        self.client.batch_execute(sql).await.unwrap();
        let answer = self.get(path).await;
        let sql = "INSERT INTO rollup_quarter_hour SELECT * FROM kept_q;
                   INSERT INTO rollup_local_day SELECT * FROM kept_d; DROP TABLE kept_q, kept_d";
        self.client.batch_execute(sql).await.unwrap();
        answer
    }

    async fn series(&self, device: &str) -> i32 {
        let sql = "SELECT s.id FROM series s JOIN device d ON d.id = device_id
                   WHERE external_id = $1";
        self.client.query_one(sql, &[&device]).await.unwrap().get(0)
    }

    /// Stores readings as a worker does, up to the commit.
    async fn begin_to_store(&self, series: i32, readings: &[(&str, f64)]) -> store::Object {
        let mut batch = Batch {
            enqueued_at: 1,
            ..Batch::new()
        };
        batch.receipts.push(Receipt {
            received_at: 1,
            count: readings.len() as u32,
        });
        for &(time, value) in readings {
            batch.push(Reading {
                series_id: series,
                measured_at: micros(time),
                value,
            });
        }
        let received = ReceivedBatch {
            batch: Arc::new(batch),
            dequeued_at: 1,
        };
        let client = self.pool.get().await.unwrap();
        store_batches(&client, &[received], &[], false, &mut Vec::new())
            .await
            .unwrap();
        client
    }
}

fn micros(time: &str) -> Micros {
    time.parse::<Timestamp>().unwrap().as_microsecond()
}

/// Sums are added up in another order, so that the last digits may differ.
fn assert_same(path: &str, own: &Value, expected: &Value) {
    match (own, expected) {
        (Value::Number(own), Value::Number(expected)) => {
            let (own, expected) = (own.as_f64().unwrap(), expected.as_f64().unwrap());
            let difference = (own - expected).abs();
            assert!(
                difference <= 1e-9 * expected.abs().max(1.0),
                "{path}: {own}, not {expected}"
            );
        }
        (Value::Array(own), Value::Array(expected)) => {
            assert_eq!(own.len(), expected.len(), "{path}");
            for (own, expected) in own.iter().zip(expected) {
                assert_same(path, own, expected);
            }
        }
        (Value::Object(own), Value::Object(expected)) => {
            assert!(own.keys().eq(expected.keys()), "{path}");
            for (name, own) in own {
                assert_same(&format!("{path} {name}"), own, &expected[name]);
            }
        }
        _ => assert_eq!(own, expected, "{path}"),
    }
}

const ALL: &str = "aggregates=min,max,mean,twa,sum,count,first,last,increase";

/// Requests of every kind that roll-ups can answer, and of some that they cannot.
fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    for device in ["dense", "gauge", "sparse"] {
        for range in [
            "from=2024-10-25&to=2024-10-30",
            "from=2024-10-25T10:07:03Z&to=2024-10-28T21:44:59Z",
            "from=2024-10-20&to=2024-11-03",
            "from=2024-10-26T10:00:00Z&to=2024-10-26T11:00:00Z",
        ] {
            for resolution in ["10m", "15m", "1h", "5h", "1d", "2d", "1mo"] {
                for fill in ["", "&fill=null", "&fill=previous", "&fill=linear"] {
                    paths.push(format!(
                        "/v1/readings?device={device}&metric=p&{range}&resolution={resolution}\
                         &{ALL}{fill}&time_zone=Europe/Berlin"
                    ));
                }
            }
            for zone in ["UTC", "Europe/Berlin", "Asia/Kathmandu"] {
                let of = format!("device={device}&metric=p&{range}&time_zone={zone}");
                paths.push(format!("/v1/daily?{of}"));
                paths.push(format!("/v1/readings?{of}&resolution=1d&{ALL},median"));
            }
        }
    }
    paths
}

#[tokio::test]
async fn roll_ups_answer_what_the_readings_answer_and_are_used() {
    let mut api = api().await;
    let paths = paths();
    let mut expected = Vec::new();
    for path in &paths {
        expected.push(api.get(path).await);
    }
    api.build().await;
    for (path, expected) in paths.iter().zip(&expected) {
        assert_same(path, &api.get(path).await, expected);
    }
    let hours = "/v1/readings?device=dense&metric=p&from=2024-10-26&to=2024-10-27&resolution=1h";
    let days = "/v1/daily?device=dense&metric=p&from=2024-10-25T22:00:00Z&to=2024-10-27T23:00:00Z\
                &time_zone=Europe/Berlin";
    let before = [api.get(hours).await, api.get(days).await];
    // Nothing marks the change, so that these answers can only come from roll-ups.
    api.client.batch_execute("TRUNCATE reading").await.unwrap();
    assert_eq!([api.get(hours).await, api.get(days).await], before);
    assert_eq!(days_of(&before[1]), 2);
}

fn days_of(answer: &Value) -> usize {
    answer["series"][0]["points"].as_array().unwrap().len()
}

#[tokio::test]
async fn late_readings_make_roll_ups_of_their_series_and_day_invalid_and_of_nothing_else() {
    let mut api = api().await;
    api.build().await;
    let of = "metric=p&from=2024-10-25&to=2024-10-30";
    let day = "/v1/readings?metric=p&from=2024-10-27&to=2024-10-28&resolution=1h&aggregates=max";
    let series = api.series("dense").await;
    let client = api
        .begin_to_store(series, &[("2024-10-27T11:00:00.5Z", 5_000.0)])
        .await;
    assert_eq!(api.count("SELECT count(*) FROM rollup_mark").await, 1);
    drop(client);
    let now = api.get(&format!("{day}&device=dense")).await;
    assert!(now.to_string().contains("5000"), "{now}");
    let paths = [
        format!("/v1/readings?device=dense&{of}&resolution=15m&{ALL}"),
        format!("/v1/daily?device=dense&{of}&time_zone=Europe/Berlin"),
    ];
    for path in &paths {
        let expected = api.get_from_readings(path).await;
        assert_same(path, &api.get(path).await, &expected);
    }
    api.build().await;
    for path in &paths {
        let expected = api.get_from_readings(path).await;
        assert_same(path, &api.get(path).await, &expected);
    }
    // The others are still answered by roll-ups.
    let other = format!("{day}&device=gauge");
    let before = api.get(&other).await;
    api.client.batch_execute("TRUNCATE reading").await.unwrap();
    assert_eq!(api.get(&other).await, before);
}

#[tokio::test]
async fn a_mark_that_is_committed_after_the_plan_stays_although_it_is_older_than_another_one() {
    let mut api = api().await;
    api.build().await;
    let series = api.series("dense").await;
    let mark = format!("SELECT gridwatch_mark_rollups({series}, '2024-10-27', '2024-10-27')");
    let late = testing::connect(&api.url).await;
    let store = format!(
        "BEGIN; {mark}; INSERT INTO reading VALUES ({series}, '2024-10-27T11:00:00.5Z', 5000)"
    );
    late.batch_execute(&store).await.unwrap();
    api.client.batch_execute(&mark).await.unwrap();
    let holder = api.builder.holder;
    let plan = loop {
        if let Some(plan) = rollups::plan(&api.pool, holder).await.unwrap() {
            break plan;
        }
    };
    let (built, _) = build(&api.pool, &plan.work[0]).await.unwrap();
    late.batch_execute("COMMIT").await.unwrap();
    assert!(
        rollups::write(&api.pool, holder, &plan, &[built])
            .await
            .unwrap()
    );
    assert_eq!(api.count("SELECT count(*) FROM rollup_mark").await, 1);
    let path = "/v1/readings?device=dense&metric=p&from=2024-10-27&to=2024-10-28&resolution=1h\
                &aggregates=max";
    let answer = api.get(path).await;
    assert!(answer.to_string().contains("5000"), "{answer}");
}

#[tokio::test]
async fn readings_that_are_stored_already_make_nothing_invalid() {
    let mut api = api().await;
    api.build().await;
    let series = api.series("gauge").await;
    let stored = ("2024-10-25T00:00:07Z", 0.0);
    drop(api.begin_to_store(series, &[stored]).await);
    assert_eq!(api.count("SELECT sum(duplicates) FROM batch").await, 1);
    assert_eq!(api.count("SELECT count(*) FROM rollup_mark").await, 0);
    let new = ("2024-10-25T00:00:07.5Z", 0.0);
    drop(api.begin_to_store(series, &[stored, new]).await);
    assert_eq!(api.count("SELECT count(*) FROM rollup_mark").await, 1);
}

#[tokio::test]
async fn days_are_built_on_a_server_that_the_database_was_restored_to() {
    let mut api = api().await;
    // Transactions of the server before had higher numbers.
    let sql = "INSERT INTO rollup_day (day, settled_in) VALUES ('2024-10-27', '9999999999')";
    api.client.batch_execute(sql).await.unwrap();
    let built = tokio::time::timeout(testing::LIMIT, api.build()).await;
    assert!(built.is_ok(), "the day should be built");
}

#[tokio::test]
async fn a_day_is_not_built_while_a_worker_that_began_before_it_was_closed_is_storing() {
    let mut api = api().await;
    let series = api.series("dense").await;
    let sql = "BEGIN; SELECT pg_current_xact_id();
               INSERT INTO reading SELECT id, '2024-10-27T11:00:00.5Z', 5000 FROM series
               WHERE id = (SELECT min(id) FROM series)";
    // This transaction has looked for closed days already.
    let worker = testing::connect(&api.url).await;
    worker.batch_execute(sql).await.unwrap();
    assert_eq!(
        series,
        api.count("SELECT min(id)::bigint FROM series").await as i32
    );
    rollups::close_days(&api.pool, CLOSE_DELAY).await.unwrap();
    let pool = api.pool.clone();
    for _ in 0..20 {
        api.builder.run_slice(&pool).await.unwrap();
    }
    let built = "SELECT count(*) FROM rollup_day WHERE built_at IS NOT NULL OR next_series > 0";
    assert_eq!(api.count(built).await, 0);
    worker.batch_execute("COMMIT").await.unwrap();
    api.build().await;
    let path = "/v1/readings?device=dense&metric=p&from=2024-10-27&to=2024-10-28&resolution=1h\
                &aggregates=max";
    let answer = api.get(path).await;
    assert!(answer.to_string().contains("5000"), "{answer}");
}

#[tokio::test]
async fn what_was_computed_before_another_process_took_the_lease_is_not_stored() {
    let api = api().await;
    rollups::close_days(&api.pool, CLOSE_DELAY).await.unwrap();
    let [first, second] = [Uuid::now_v7(), Uuid::now_v7()];
    let plan = loop {
        if let Some(plan) = rollups::plan(&api.pool, first).await.unwrap() {
            break plan;
        }
    };
    assert_eq!(rollups::plan(&api.pool, second).await.unwrap(), None);
    let expire = "UPDATE rollup_lease SET expires_at = now()";
    api.client.batch_execute(expire).await.unwrap();
    assert!(rollups::plan(&api.pool, second).await.unwrap().is_some());
    assert!(!rollups::write(&api.pool, first, &plan, &[]).await.unwrap());
    assert!(rollups::write(&api.pool, second, &plan, &[]).await.unwrap());
}

#[tokio::test]
async fn deletions_and_another_rollover_make_roll_ups_invalid() {
    let mut api = api().await;
    api.build().await;
    let path = format!(
        "/v1/readings?device=dense&metric=p&from=2024-10-25&to=2024-10-30&resolution=1h&{ALL}"
    );
    let delete = "/v1/readings?device=dense&metric=p&from=2024-10-26T04:00Z&to=2024-10-26T06:00Z";
    let request = Request::delete(delete).body(Body::empty()).unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
    while store::model::jobs::run_slice(&api.pool).await.unwrap() {}
    let expected = api.get_from_readings(&path).await;
    assert_same(&path, &api.get(&path).await, &expected);
    api.build().await;
    assert_same(&path, &api.get(&path).await, &expected);

    let sql = "UPDATE series SET rollover = NULL WHERE rollover IS NOT NULL";
    api.client.batch_execute(sql).await.unwrap();
    let other = api.get_from_readings(&path).await;
    assert_ne!(other, expected);
    assert_same(&path, &api.get(&path).await, &other);
    api.build().await;
    assert_same(&path, &api.get(&path).await, &other);

    let request = Request::delete("/v1/devices/dense?cascade=true").body(Body::empty());
    let response = api.router.clone().oneshot(request.unwrap()).await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
    let left = "SELECT count(*) FROM (SELECT series_id FROM rollup_quarter_hour
                                      UNION ALL SELECT series_id FROM rollup_local_day) AS r
                WHERE series_id IN (SELECT series_id FROM deleted_series)";
    assert!(api.count(left).await > 0);
    while store::model::jobs::run_slice(&api.pool).await.unwrap() {}
    while rollups::delete_orphans(&api.pool).await.unwrap() {}
    assert_eq!(api.count(left).await, 0);
}

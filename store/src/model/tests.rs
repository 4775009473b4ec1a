//! The model and the pipeline, in a real PostgreSQL.

use std::sync::Arc;

use schema::partition::DAY;
use schema::{Batch, Reading};
use tokio_postgres::Client;

use super::*;
use crate::rows::BatchCounts;
use crate::testing::{connect, create_database, pool};
use crate::transaction::{ReceivedBatch, store_batches};

/// 2026-11-01T00:00:00Z.
const START: i64 = 1_793_491_200_000_000;

async fn series(client: &Client, device: &str) -> i32 {
    let sql = "WITH created AS (INSERT INTO device (external_id) VALUES ($1) RETURNING id)
               INSERT INTO series (device_id, metric) SELECT id, 'p' FROM created RETURNING id";
    client.query_one(sql, &[&device]).await.unwrap().get(0)
}

/// A batch with two readings of each series.
fn batch(series: &[i32]) -> ReceivedBatch {
    let mut batch = Batch::new();
    for &series_id in series {
        for n in 0..2 {
            batch.push(Reading {
                series_id,
                measured_at: START + n,
                value: 1.0,
            });
        }
    }
    ReceivedBatch {
        batch: Arc::new(batch),
        dequeued_at: START,
    }
}

#[tokio::test]
async fn queued_readings_of_a_deleted_device_become_dead_letters_and_the_others_are_stored() {
    let url = create_database().await;
    let client = connect(&url).await;
    let (kept, deleted) = (
        series(&client, "kept").await,
        series(&client, "deleted").await,
    );
    let day = "SELECT gridwatch_create_reading_day('2026-11-01')";
    client.batch_execute(day).await.unwrap();
    let pool = pool(&url, 1);
    let store = async |batch: ReceivedBatch| {
        let client = pool.get().await.unwrap();
        let (batches, mut committing) = ([batch], Vec::new());
        let stored = store_batches(&client, &batches, &[], true, &mut committing).await;
        stored.unwrap().new[0].1
    };
    let request = Request {
        actor: "test".into(),
        ..Request::default()
    };
    let key = ["deleted".to_owned()];
    let deletion = delete(&pool, Resource::Device, &key, &request, true).await;
    assert_eq!(
        deletion.unwrap().deleted,
        serde_json::json!({ "devices": 1, "series": 1 })
    );
    let expected = BatchCounts {
        stored: 2,
        dead_letters: 2,
        ..BatchCounts::default()
    };
    assert_eq!(store(batch(&[kept, deleted])).await, expected);
    let sql = "SELECT array_agg(DISTINCT series_id), min(code), min(detail) FROM dead_letter";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, Vec<i32>>(0), [deleted]);
    let reason = (row.get(1), row.get(2));
    assert_eq!(
        reason,
        ("deleted_series", "the device or the series was deleted")
    );
    // These were in the queue before, and are received long after the deletion.
    let sql = "UPDATE deleted_series SET deleted_at = now() - interval '3 days'";
    client.batch_execute(sql).await.unwrap();
    let mut late = batch(&[deleted]);
    Arc::get_mut(&mut late.batch).unwrap().enqueued_at = schema::clock::now() - 4 * DAY;
    assert_eq!(store(late).await.dead_letters, 2);
    let sql = "SELECT array_agg(DISTINCT series_id) FROM reading";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, Vec<i32>>(0), [kept]);
}

//! The effect is once, whatever is delivered twice; and the checks that prove it can fail.

use schema::batch::Receipt;
use schema::{Batch, Reading};
use serde_json::json;
use testbed::faulty_proxy::Condition;
use testbed::wait::until_async;

use crate::support::*;

fn batch(series_id: i32, values: &[f64]) -> Batch {
    let mut batch = Batch {
        enqueued_at: BEGIN,
        ..Batch::new()
    };
    batch.receipts = vec![Receipt {
        received_at: BEGIN,
        count: values.len() as u32,
    }];
    for (at, &value) in values.iter().enumerate() {
        batch.push(Reading {
            series_id,
            measured_at: BEGIN + at as i64 * 1_000_000,
            value,
        });
    }
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_published_twice_is_stored_once() {
    let mut site = Site::new();
    site.start_worker(&[]);
    site.books_cannot_balance("the test deletes the ledger");
    let message = batch(1, &[1.0, 2.0, 3.0]).encode();
    site.publish(&message).await;
    site.wait_in_ledger(3).await;
    site.publish(&message).await;
    let worker = site.worker();
    until_async("the second message is skipped", LIMIT, async || {
        worker.metric("gridwatch_redelivered_batches_total") == 1.0
    })
    .await;
    assert_eq!(site.query_int("SELECT count(*) FROM reading").await, 3);
    assert_eq!(worker.metric("gridwatch_readings_persisted_total"), 3.0);
    assert_eq!(worker.metric("gridwatch_readings_duplicate_total"), 0.0);

    // Negative control: without its row in the ledger, the same message has an effect, and the
    // counters show it.
    site.execute("DELETE FROM batch").await;
    site.publish(&message).await;
    until_async(
        "the readings are counted as duplicates",
        LIMIT,
        async || worker.metric("gridwatch_readings_duplicate_total") == 3.0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_redelivered_after_commit_is_not_stored_twice() {
    let mut site = Site::new().behind_proxy(Role::Worker).await;
    let proxy = site.proxy();
    site.start_ingest(&["--unknown-devices", "register"]);
    site.start_worker(&[]);

    // The worker has received the message and waits for the ledger. Then its connection to the
    // broker stalls, it commits, and it is killed before its acknowledgement can arrive.
    let holder = site.sql().await;
    holder
        .batch_execute("BEGIN; LOCK TABLE batch IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let readings: Vec<_> = (0..50).map(|at| reading("m", "p", at, at as f64)).collect();
    assert_eq!(site.post(json!(readings)).await.status, 202);
    site.wait_for_lock_on("batch").await;
    proxy.set(Condition::Stalled);
    holder.batch_execute("COMMIT").await.unwrap();
    site.wait_in_ledger(50).await;
    site.kill_worker();
    proxy.set(Condition::Disconnected);

    site.bypass_proxy();
    site.start_worker(&[]);
    let worker = site.worker();
    until_async(
        "the message is delivered again and skipped",
        LIMIT,
        async || worker.metric("gridwatch_redelivered_batches_total") == 1.0,
    )
    .await;
    assert_eq!(site.query_int("SELECT count(*) FROM reading").await, 50);
    assert_eq!(worker.metric("gridwatch_readings_persisted_total"), 0.0);
    site.assert_books().await;
    site.assert_all_acknowledged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_repeats_are_duplicates_and_other_values_are_stored_as_conflicts() {
    let site = Site::running();
    let send = async |values: [f64; 3]| {
        let readings: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(at, &v)| reading("m", "p", at as i64, v))
            .collect();
        assert_eq!(site.post(json!(readings)).await.status, 202);
    };
    send([1.0, 2.0, 3.0]).await;
    site.wait_in_ledger(3).await;
    send([1.0, 2.0, 30.0]).await;
    site.wait_in_ledger(6).await;
    // The same within one request and so within one transaction.
    let twice = json!([
        reading("m", "p", 9, 5.0),
        reading("m", "p", 9, 5.0),
        reading("m", "p", 9, 6.0)
    ]);
    assert_eq!(site.post(twice).await.status, 202);
    site.wait_in_ledger(9).await;

    let row = site
        .sql()
        .await
        .query_one(
            "SELECT sum(stored), sum(duplicates), sum(conflicts) FROM batch",
            &[],
        )
        .await
        .unwrap();
    let sums: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(sums, (4, 3, 2));
    let conflicts = site
        .sql()
        .await
        .query(
            "SELECT stored_value, offered_value FROM conflict ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let conflicts: Vec<(f64, f64)> = conflicts
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(conflicts, [(3.0, 30.0), (5.0, 6.0)]);
    let worker = site.worker();
    until_async("the counters are those of the ledger", LIMIT, async || {
        let [p, d, c] = ["persisted", "duplicate", "conflict"]
            .map(|which| worker.metric(&format!("gridwatch_readings_{which}_total")));
        (p, d, c) == (4.0, 3.0, 2.0)
    })
    .await;
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_messages_and_bad_rows_are_dead_lettered_and_block_no_other_reading() {
    let mut site = Site::new();
    site.execute("ALTER TABLE reading ADD CONSTRAINT plausible CHECK (value < 1000)")
        .await;
    site.start_worker(&[]);
    let mut unknown_version = batch(1, &[1.0]).encode();
    unknown_version[0] = 77;
    let values: Vec<f64> = (0..100)
        .map(|n| {
            if n == 13 || n == 77 {
                5_000.0
            } else {
                f64::from(n)
            }
        })
        .collect();
    let mut not_finite = batch(2, &[7.0, f64::NAN]);
    not_finite.measured_at[0] = i64::MAX;
    for message in [
        b"not a batch".to_vec(),
        unknown_version.clone(),
        unknown_version,
        batch(1, &values).encode(),
        not_finite.encode(),
        batch(3, &[1.0]).encode(),
    ] {
        site.publish(&message).await;
    }
    site.wait_in_ledger(103).await;
    assert_eq!(site.query_int("SELECT count(*) FROM reading").await, 99);
    let letters = site
        .sql()
        .await
        .query(
            "SELECT code, count(*), count(DISTINCT detail) FROM dead_letter
             GROUP BY code ORDER BY code",
            &[],
        )
        .await
        .unwrap();
    let letters: Vec<(String, i64)> = letters.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [
        ("bad_timestamp", 1),
        ("sqlstate_23514", 2),
        ("unknown_version", 2),
        ("value_not_finite", 1),
    ];
    assert_eq!(
        letters,
        expected.map(|(code, count)| (code.to_owned(), count))
    );
    // The dead-letter queue holds every poison message, also the repeated one.
    until_async(
        "three messages are in the dead-letter queue",
        LIMIT,
        async || site.queue_length("gridwatch.dead-letters").await == 3,
    )
    .await;
    assert_eq!(site.worker().metric("gridwatch_poison_messages_total"), 3.0);
    assert_eq!(
        site.worker()
            .metric("gridwatch_readings_dead_lettered_total"),
        4.0
    );
    let partitions = "SELECT count(*) FROM pg_inherits
                      WHERE inhparent = 'reading'::regclass
                      AND inhrelid::regclass::text !~ '^reading_(before_2000|20\\d{6})$'";
    assert_eq!(
        site.query_int(partitions).await,
        0,
        "a partition was created for a time that no reading has"
    );
    site.assert_all_acknowledged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_waits_for_no_other_day_and_a_detached_day_blocks_no_reading() {
    let mut site = Site::running();
    site.books_cannot_balance("a detached partition takes its rows out of the table");
    const DAY: i64 = 86_400;
    let days: Vec<_> = (0..3)
        .map(|day| reading("m", "p", day * DAY, 1.0))
        .collect();
    assert_eq!(site.post(days.into()).await.status, 202);
    site.wait_in_ledger(3).await;
    // A plan that reads every partition would wait for this one.
    let holder = site.sql().await;
    holder
        .batch_execute("BEGIN; LOCK TABLE reading_20261103 IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    assert_eq!(
        site.post(json!([
            reading("m", "p", 0, 1.0),
            reading("m", "p", 1, 1.0)
        ]))
        .await
        .status,
        202
    );
    site.wait_in_ledger(5).await;
    holder.batch_execute("COMMIT").await.unwrap();
    // Retention may detach a day instead of dropping it. A late reading of that day is
    // dead-lettered.
    site.execute("ALTER TABLE reading DETACH PARTITION reading_20261102")
        .await;
    assert_eq!(
        site.post(json!([
            reading("m", "p", DAY + 1, 1.0),
            reading("m", "p", 2, 1.0)
        ]))
        .await
        .status,
        202
    );
    site.wait_in_ledger(7).await;
    let row = site
        .sql()
        .await
        .query_one("SELECT code, measured_at_us FROM dead_letter", &[])
        .await
        .unwrap();
    assert_eq!(
        (row.get(0), row.get(1)),
        ("sqlstate_23514", BEGIN + (DAY + 1) * 1_000_000)
    );
    assert_eq!(
        site.query_int("SELECT sum(stored) - sum(duplicates) FROM batch")
            .await,
        4
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_assertions_of_these_tests_detect_lost_and_changed_readings() {
    let mut site = Site::running();
    let load = LoadClients::start(&site, 2, 10);
    load.wait_accepted(40).await;
    let sent = load.stop().await;
    assert_stored(&site, &sent).await;
    site.assert_books().await;
    site.books_cannot_balance("the test damages the tables");
    let sql = site.sql().await;
    for (damage, expected) in [
        (
            "DELETE FROM reading WHERE value = 3",
            "accepted and not stored",
        ),
        (
            "UPDATE reading SET value = 0.5 WHERE value = 4",
            "is stored as 0.5",
        ),
    ] {
        sql.batch_execute(&format!(
            "BEGIN; CREATE TEMP TABLE backup AS TABLE reading; COMMIT; {damage}"
        ))
        .await
        .unwrap();
        let error = check_stored(&site.sql().await, &sent).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        sql.batch_execute("TRUNCATE reading; INSERT INTO reading TABLE backup; DROP TABLE backup")
            .await
            .unwrap();
    }
    check_stored(&site.sql().await, &sent).await.unwrap();
    sql.batch_execute("DELETE FROM reading WHERE value = 3")
        .await
        .unwrap();
    let error = site.check_books().await.unwrap_err();
    assert!(error.to_string().contains("rows in reading"), "{error}");
    sql.batch_execute("DELETE FROM batch WHERE id = (SELECT id FROM batch LIMIT 1)")
        .await
        .unwrap();
    let error = site.check_books().await.unwrap_err();
    assert!(error.to_string().contains("but the ledger has"), "{error}");
}

//! The data flow of one reading, and the metrics that show it.

use serde_json::json;
use testbed::wait::until_async;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_sent_over_http_is_stored_once_and_every_stage_is_timed() {
    let site = Site::running();
    let response = site
        .post(
            json!({"device": "meter-1", "metric": "active_power", "value": 1.5,
                   "measured_at": "2026-11-20T10:00:00Z"}),
        )
        .await;
    assert_eq!(
        (response.status.as_u16(), response.json()),
        (202, json!({"accepted": 1, "rejected": 0, "errors": []}))
    );
    site.wait_in_ledger(1).await;
    let row = site
        .sql()
        .await
        .query_one(
            "SELECT external_id, metric, value, measured_at = '2026-11-20T10:00:00Z',
                    count(*) OVER ()
             FROM reading
             JOIN series ON series.id = series_id
             JOIN device ON device.id = device_id",
            &[],
        )
        .await
        .unwrap();
    let row: (String, String, f64, bool, i64) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    assert_eq!(row, ("meter-1".into(), "active_power".into(), 1.5, true, 1));

    let in_order = "SELECT count(*) FROM batch
                    WHERE first_measured <= first_received AND first_received <= enqueued_at
                    AND enqueued_at <= dequeued_at AND dequeued_at <= persisted_at";
    assert_eq!(site.query_int(in_order).await, 1);
    for (process, stages) in [
        (
            site.ingest(),
            &["measured_to_received", "received_to_enqueued"][..],
        ),
        (
            site.worker(),
            &[
                "enqueued_to_dequeued",
                "dequeued_to_persisted",
                "received_to_persisted",
                "measured_to_persisted",
            ],
        ),
    ] {
        for stage in stages {
            let count = format!("gridwatch_stage_seconds_count{{stage=\"{stage}\"}}");
            until_async(&format!("{stage} counts one reading"), LIMIT, async || {
                process.metric(&count) == 1.0
            })
            .await;
        }
    }
    assert_eq!(
        site.worker().metric("gridwatch_readings_persisted_total"),
        1.0
    );
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_reports_liveness_readiness_and_metrics_with_their_help() {
    let mut site = Site::new();
    site.start_ingest(&[]);
    let ingest = site.ingest();
    assert!(
        ingest
            .admin("/healthz")
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    let ready = ingest.admin("/readyz").unwrap();
    assert!(
        ready.contains(r#""broker":"ready""#) && ready.contains(r#""database":"ready""#),
        "{ready}"
    );
    let metrics = ingest.admin("/metrics").unwrap();
    for expected in [
        "# HELP gridwatch_stage_seconds ",
        "# TYPE gridwatch_stage_seconds histogram",
        "gridwatch_stage_seconds_bucket{stage=\"measured_to_received\",le=\"0.0001\"} 0",
        "gridwatch_stage_seconds_bucket{stage=\"measured_to_persisted\",le=\"300\"} 0",
        "gridwatch_ready 1",
        "process_resident_memory_bytes",
    ] {
        assert!(
            metrics.contains(expected),
            "expected {expected:?} in\n{metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_clients_share_messages_and_nothing_is_lost() {
    let site = Site::running();
    let load = LoadClients::start(&site, 200, 1);
    load.wait_accepted(5_000).await;
    let sent = load.stop().await;
    assert!(
        sent.iter().all(|sent| sent.accepted),
        "a request was not accepted"
    );
    assert_stored(&site, &sent).await;
    site.assert_books().await;
    let (batches, readings) = (
        site.query_int("SELECT count(*) FROM batch").await,
        sent.len() as i64,
    );
    assert!(
        batches * 2 < readings,
        "expected far fewer batches than readings, got {batches} for {readings}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_days_get_partitions_on_demand_and_days_before_2000_share_one() {
    let mut site = Site::running();
    let at_noon = |day: &str| {
        let measured_at = format!("{day}T12:00:00Z");
        json!({"device": "m", "metric": "p", "value": 1, "measured_at": measured_at})
    };
    let readings = [
        "1970-01-01",
        "1999-12-31",
        "2000-01-01",
        "2019-01-01",
        "2019-01-02",
        "2026-11-01",
    ]
    .map(at_noon);
    assert_eq!(site.post(json!(readings)).await.json()["accepted"], 6);
    site.wait_in_ledger(6).await;
    let own = "SELECT count(*) FROM gridwatch_reading_days()
               WHERE day IN ('2000-01-01', '2019-01-01', '2019-01-02')";
    assert_eq!(site.query_int(own).await, 3);
    assert_eq!(
        site.query_int("SELECT count(*) FROM reading_before_2000")
            .await,
        2
    );
    assert!(
        site.query_int("SELECT count(*) FROM gridwatch_reading_days() WHERE day > current_date")
            .await
            >= 1
    );

    // The worker creates a partition again that was dropped while it was running.
    site.books_cannot_balance("the test deletes stored readings and the ledger");
    site.execute("DROP TABLE reading_20190102; DELETE FROM batch")
        .await;
    let again =
        json!({"device": "m", "metric": "p", "value": 2, "measured_at": "2019-01-02T13:00:00Z"});
    assert_eq!(site.post(again).await.status, 202);
    site.wait_in_ledger(1).await;
    assert_eq!(
        site.query_int("SELECT count(*) FROM reading_20190102")
            .await,
        1
    );
}

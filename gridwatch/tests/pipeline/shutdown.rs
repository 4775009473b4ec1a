//! Shutdown: SIGTERM and SIGKILL of the real binaries under load.

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_and_requeues_what_was_not_stored() {
    let mut site = Site::running();
    let load = LoadClients::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    // The worker first: another worker receives what it returned to the queue.
    let status = site.worker.take().unwrap().terminate().unwrap();
    assert!(status.success(), "{status}");
    load.wait_accepted(1_000).await;
    site.start_worker(&[]);
    load.wait_accepted(1_000).await;
    let counters = |site: &Site| site.ingest().metric("gridwatch_readings_accepted_total");
    let before = counters(&site);
    let status = site.ingest.take().unwrap().terminate().unwrap();
    assert!(status.success(), "{status}");
    let sent = load.stop().await;
    let accepted: i64 = sent
        .iter()
        .filter(|sent| sent.accepted)
        .map(|sent| sent.count)
        .sum();
    assert!(accepted as f64 >= before);
    assert_stored(&site, &sent).await;
    // Readings that are stored but not accepted belong to requests whose response was lost with
    // the connection: at most one per client.
    let stored = site.query_int("SELECT count(*) FROM reading").await;
    assert!(
        (accepted..=accepted + 8 * 20).contains(&stored),
        "accepted {accepted}, stored {stored}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_under_load_loses_nothing_and_stores_nothing_twice() {
    let mut site = Site::running();
    let load = LoadClients::start(&site, 8, 20);
    for _ in 0..3 {
        load.wait_accepted(1_000).await;
        site.kill_worker();
        site.start_worker(&[]);
    }
    load.wait_accepted(1_000).await;
    let sent = load.stop().await;
    assert_stored(&site, &sent).await;
    site.assert_books().await;
    site.assert_all_acknowledged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_while_the_database_is_locked_requeues_the_readings() {
    let mut site = Site::new();
    site.start_ingest(&["--unknown-devices", "register"]);
    site.start_worker(&["--grace", "1s"]);
    let holder = site.sql().await;
    holder
        .batch_execute("BEGIN; LOCK TABLE batch IN EXCLUSIVE MODE")
        .await
        .unwrap();
    assert_eq!(site.post(reading("m", "p", 1, 1.0)).await.status, 202);
    site.wait_for_lock_on("batch").await;
    // The worker waits only for its grace period and returns the message to the queue.
    let status = site.worker.take().unwrap().terminate().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(site.query_int("SELECT count(*) FROM reading").await, 0);
    holder.batch_execute("COMMIT").await.unwrap();
    site.start_worker(&[]);
    site.wait_in_ledger(1).await;
    site.assert_books().await;
}

//! The way down: SIGTERM and SIGKILL of the real binaries under load.

use testbed::wait::until_async;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_and_gives_back_what_was_not_stored() {
    let mut site = Site::running();
    let load = Load::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    // The worker first: another one takes over what it gave back.
    let status = site.worker.take().unwrap().terminate().unwrap();
    assert!(status.success(), "{status}");
    load.wait_accepted(1_000).await;
    site.start_worker(&[]);
    load.wait_accepted(1_000).await;
    let counters = |site: &Site| site.ingest().metric("gridwatch_readings_accepted_total");
    let before = counters(&site);
    let status = site.ingest.take().unwrap().terminate().unwrap();
    assert!(status.success(), "{status}");
    let sent = load.finish().await;
    let accepted: i64 = sent
        .iter()
        .filter(|sent| sent.accepted)
        .map(|sent| sent.count)
        .sum();
    assert!(accepted as f64 >= before);
    assert_stored(&site, &sent).await;
    // Nobody was cut off in the middle: what is stored was accepted, but for requests whose answer was lost with their
    // connection, of which there is at most one a client.
    let stored = site.number("SELECT count(*) FROM reading").await;
    assert!(
        (accepted..=accepted + 8 * 20).contains(&stored),
        "accepted {accepted}, stored {stored}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_under_load_loses_nothing_and_stores_nothing_twice() {
    let mut site = Site::running();
    let load = Load::start(&site, 8, 20);
    for _ in 0..3 {
        load.wait_accepted(1_000).await;
        site.worker().signal("KILL").unwrap();
        site.worker.take().unwrap().wait_end().unwrap();
        site.start_worker(&[]);
    }
    load.wait_accepted(1_000).await;
    let sent = load.finish().await;
    assert_stored(&site, &sent).await;
    site.assert_books().await;
    site.assert_all_acknowledged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_while_the_database_is_locked_gives_the_readings_back() {
    let mut site = Site::new();
    site.start_ingest(&["--unknown-devices", "register"]);
    site.start_worker(&["--grace", "1s"]);
    let holder = site.sql().await;
    holder
        .batch_execute("BEGIN; LOCK TABLE batch IN EXCLUSIVE MODE")
        .await
        .unwrap();
    assert_eq!(site.post(reading("m", "p", 1, 1.0)).await.status, 202);
    until_async("the worker waits for the ledger", LIMIT, async || {
        site.number(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'batch'::regclass",
        )
        .await
            == 1
    })
    .await;
    // It does not wait for ever, and leaves the message to the next one.
    let status = site.worker.take().unwrap().terminate().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(site.number("SELECT count(*) FROM reading").await, 0);
    holder.batch_execute("COMMIT").await.unwrap();
    site.start_worker(&[]);
    site.wait_settled(1).await;
    site.assert_books().await;
}

//! The other shapes of Gridwatch: a front end with a spool, one without a queue, and all in one process.

use std::path::Path;
use std::time::Duration;

use pglite_oxide::PgliteServer;
use serde_json::json;
use testbed::link::{Condition, Link};
use testbed::process::Process;
use testbed::wait::until_async;

use crate::support::*;

/// A site whose front end reaches the broker over a link, with a spool, and whose worker reaches it directly.
async fn behind_a_link(more: &[&str]) -> (Site, Link) {
    put_behind_a_link(Site::new(), more).await
}

async fn put_behind_a_link(mut site: Site, more: &[&str]) -> (Site, Link) {
    site.start_worker(&[]);
    let link = Link::to(SHARED.rabbitmq.address()).await.unwrap();
    start_spooled(&mut site, &link, more);
    (site, link)
}

fn start_spooled(site: &mut Site, link: &Link, more: &[&str]) {
    let direct = site.amqp_url.clone();
    site.amqp_url = direct.replace(&SHARED.rabbitmq.address(), &link.address().to_string());
    let spool = site.folder.path().join("spool");
    let spooled = [
        "--unknown-devices",
        "register",
        "--spool-after",
        "300ms",
        "--spool",
        spool.to_str().unwrap(),
    ];
    site.start_ingest(&[&spooled[..], more].concat());
    site.amqp_url = direct;
}

async fn wait_state(process: &Process, state: &str) {
    let expected = format!("\"state\":\"{state}\"");
    until_async(&format!("it is {state}"), LIMIT, async || {
        process
            .admin("/readyz")
            .is_ok_and(|answer| answer.contains(&expected))
    })
    .await;
}

async fn wait_drained(process: &Process) {
    until_async("the spool is empty", LIMIT, async || {
        process.metric("gridwatch_spool_readings") == 0.0
    })
    .await;
    wait_state(process, "ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_end_with_a_spool_outlives_its_broker_and_its_own_death() {
    let (mut site, link) = behind_a_link(&[]).await;
    let load = Load::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    link.set(Condition::Cut);
    wait_state(site.ingest(), "degraded").await;
    load.wait_accepted(2_000).await;
    let mut sent = load.finish().await;
    assert!(
        sent.iter().all(|sent| sent.accepted),
        "a request was refused although there is a spool"
    );
    let spooled = async |site: &Site| {
        until_async(
            "readings wait in the spool, and the oldest has an age",
            LIMIT,
            async || {
                site.ingest().metric("gridwatch_spool_readings") >= 2_000.0
                    && site.ingest().metric("gridwatch_spool_oldest_age_seconds") > 0.0
            },
        )
        .await;
    };
    spooled(&site).await;
    // Killed with readings on its disk; the next process on the same folder delivers them, while new ones arrive.
    site.ingest().signal("KILL").unwrap();
    site.ingest.take().unwrap().wait_end().unwrap();
    start_spooled(&mut site, &link, &[]);
    spooled(&site).await;
    let load = Load::on(&site.listen, "later", 4, 20);
    load.wait_accepted(1_000).await;
    link.set(Condition::Delayed(Duration::ZERO));
    wait_drained(site.ingest()).await;
    load.wait_accepted(1_000).await;
    sent.extend(load.finish().await);
    assert_stored(&site, &sent).await;
    site.assert_all_acknowledged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_falls_silent_or_blocks_costs_no_request_where_there_is_a_spool() {
    let servers = FRAGILE.lock().await;
    let mut site = Site::on(&servers);
    site.start_worker(&[]);
    let link = Link::to(servers.rabbitmq.address()).await.unwrap();
    let direct = site.amqp_url.clone();
    site.amqp_url = direct.replace(&servers.rabbitmq.address(), &link.address().to_string());
    let spool = site.folder.path().join("spool");
    let spooled = [
        "--unknown-devices",
        "register",
        "--spool-after",
        "300ms",
        "--spool",
        spool.to_str().unwrap(),
    ];
    site.start_ingest(&spooled);
    site.amqp_url = direct;
    let load = Load::start(&site, 8, 20);
    load.wait_accepted(500).await;
    link.set(Condition::Silent);
    load.wait_accepted(2_000).await;
    link.set(Condition::Delayed(Duration::ZERO));
    wait_drained(site.ingest()).await;
    servers
        .rabbitmq
        .control(&["set_vm_memory_high_watermark", "0.00001"])
        .unwrap();
    wait_state(site.ingest(), "degraded").await;
    load.wait_accepted(2_000).await;
    servers
        .rabbitmq
        .control(&["set_vm_memory_high_watermark", "0.4"])
        .unwrap();
    wait_drained(site.ingest()).await;
    let sent = load.finish().await;
    assert!(
        sent.iter().all(|sent| sent.accepted),
        "a request was refused although there is a spool"
    );
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_refuses_says_so_and_recovers() {
    let (site, link) = behind_a_link(&["--spool-max-bytes", "1048576"]).await;
    assert_eq!(site.post(reading("m", "p", 0, 0.0)).await.status, 202);
    link.set(Condition::Cut);
    let load = Load::start(&site, 8, 1_000);
    until_async("it is full", LIMIT, async || {
        site.ingest()
            .admin("/readyz")
            .is_ok_and(|answer| answer.contains("\"spool\":\"full\""))
    })
    .await;
    assert!(!site.ingest().ready());
    let full = site
        .post(json!(
            (0..1_000)
                .map(|at| reading("m", "p", 1 + at, 1.0))
                .collect::<Vec<_>>()
        ))
        .await;
    assert_eq!(
        (
            full.status.as_u16(),
            full.headers.contains_key("retry-after")
        ),
        (503, true),
        "{}",
        full.text()
    );
    link.set(Condition::Delayed(Duration::ZERO));
    wait_drained(site.ingest()).await;
    load.wait_accepted(5_000).await;
    let mut sent = load.finish().await;
    sent.push(Sent {
        device: "m".into(),
        first: 0,
        count: 1,
        accepted: true,
    });
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_broker_takes_after_a_full_spool_refused_it_is_counted_as_unconfirmed() {
    let (site, link) = behind_a_link(&["--spool-max-bytes", "1048576"]).await;
    let load = Load::start(&site, 8, 1_000);
    load.wait_accepted(10_000).await;
    link.set(Condition::Delayed(Duration::from_millis(800)));
    let unconfirmed = "gridwatch_readings_unavailable_total{reason=\"unconfirmed\"}";
    until_async("readings are unconfirmed", LIMIT, async || {
        site.ingest().metric(unconfirmed) >= 5_000.0
    })
    .await;
    link.set(Condition::Delayed(Duration::ZERO));
    wait_drained(site.ingest()).await;
    let sent = load.finish().await;
    assert!(
        sent.iter().any(|sent| !sent.accepted),
        "nothing was refused"
    );
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

/// A disk that takes no more, as the kernel says it to the process: files end at 2 MiB (4 where the shell counts in kibibytes).
fn on_a_small_disk(site: &mut Site) {
    let script = site.folder.path().join("on-a-small-disk");
    let program = program().display();
    let text = format!("#!/bin/sh\ntrap '' XFSZ\nulimit -f 4096\nexec '{program}' \"$@\"\n");
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    site.front_end = script;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_whose_disk_is_full_refuses_says_so_and_recovers() {
    let mut site = Site::new();
    on_a_small_disk(&mut site);
    let (site, link) = put_behind_a_link(site, &[]).await;
    let load = Load::start(&site, 8, 1_000);
    // Twice: what was in the way the first time has made room.
    for _ in 0..2 {
        let before = site.ingest().metric("gridwatch_spooled_readings_total");
        link.set(Condition::Cut);
        until_async("its disk is full", LIMIT, async || {
            site.ingest()
                .admin("/readyz")
                .is_ok_and(|answer| answer.contains("its disk cannot be written"))
        })
        .await;
        let spooled = site.ingest().metric("gridwatch_spooled_readings_total") - before;
        assert!(spooled > 10_000.0, "{spooled}");
        link.set(Condition::Delayed(Duration::ZERO));
        wait_drained(site.ingest()).await;
        load.wait_accepted(5_000).await;
    }
    let sent = load.finish().await;
    assert!(
        sent.iter().any(|sent| !sent.accepted),
        "nothing was refused"
    );
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_mode_answers_201_once_it_is_stored_and_survives_the_database() {
    let mut servers = FRAGILE.lock().await;
    let mut site = Site::on(&servers);
    site.start_ingest(&["--unknown-devices", "register", "--sink", "direct"]);
    let answer = site
        .post(json!([reading("m", "p", 0, 0.0), {"device": "m"}]))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["accepted"].as_u64()),
        (201, Some(1))
    );
    assert_eq!(site.number("SELECT count(*) FROM reading").await, 1);
    let load = Load::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    servers.postgres.crash().unwrap();
    until_async("it is not ready", LIMIT, async || !site.ingest().ready()).await;
    servers.postgres.resume().unwrap();
    load.wait_accepted(2_000).await;
    let accepted = load.accepted() as i64;
    assert!(
        site.number("SELECT count(*) FROM reading").await >= accepted,
        "201 before the commit"
    );
    let status = site.ingest.take().unwrap().terminate().unwrap();
    assert!(status.success(), "{status}");
    let mut sent = load.finish().await;
    sent.push(Sent {
        device: "m".into(),
        first: 0,
        count: 1,
        accepted: true,
    });
    assert_stored(&site, &sent).await;
}

/// A standalone process on a folder.
fn standalone(folder: &Path, more: &[&str]) -> (Process, String) {
    let [listen, admin] = [(); 2].map(|()| format!("127.0.0.1:{}", testbed::free_port().unwrap()));
    let data = folder.join("data");
    let arguments = [
        "standalone",
        "--data",
        data.to_str().unwrap(),
        "--listen",
        &listen,
        "--admin",
        &admin,
    ];
    let arguments = [&arguments[..], more].concat();
    let mut process = Process::start(program(), &arguments, &admin, folder).unwrap();
    process.wait_ready();
    (process, listen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_is_killed_and_ended_at_any_moment_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut sent = Vec::new();
    for (round, signal) in ["KILL", "TERM", "KILL", "TERM"].into_iter().enumerate() {
        let (mut process, listen) = standalone(folder.path(), &[]);
        let load = Load::on(&listen, &format!("round-{round}"), 4, 20);
        load.wait_accepted(500).await;
        process.signal(signal).unwrap();
        let status = process.wait_end().unwrap();
        assert_eq!(
            status.success(),
            signal == "TERM",
            "{status}\n{}",
            process.log()
        );
        sent.extend(load.finish().await);
    }
    // What is left in the queue is stored by the next process.
    let (mut process, _) = standalone(folder.path(), &[]);
    until_async("the queue is empty", LIMIT, async || {
        process.metric("gridwatch_spool_readings") == 0.0
    })
    .await;
    assert!(process.terminate().unwrap().success());
    let database = folder.path().join("data/postgres");
    let server = tokio::task::spawn_blocking(|| {
        PgliteServer::builder()
            .path(database)
            .database("postgres")
            .start()
    });
    let server = server.await.unwrap().unwrap();
    let client = connect(&server.database_url()).await;
    assert_eq!(check_stored(&client, &sent).await, Ok(()));
    drop(client);
    tokio::task::spawn_blocking(|| server.shutdown())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_standalone_on_the_same_folder_says_so_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let (_process, _) = standalone(folder.path(), &[]);
    let data = folder.path().join("data");
    let second = gridwatch(&[
        "standalone",
        "--data",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_takes_the_real_servers_where_they_are_given() {
    let mut site = Site::new();
    site.database_url = SHARED.empty_database();
    let real = [
        "--amqp-url",
        &site.amqp_url,
        "--database-url",
        &site.database_url,
    ];
    let (mut process, listen) = standalone(site.folder.path(), &real);
    site.listen = listen;
    let load = Load::start(&site, 4, 20);
    load.wait_accepted(1_000).await;
    let sent = load.finish().await;
    assert_stored(&site, &sent).await;
    assert!(process.terminate().unwrap().success());
    assert_eq!(site.queue_length("gridwatch.readings").await, 0);
}

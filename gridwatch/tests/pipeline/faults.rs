//! Servers that crash, refuse, block and fall silent, under load.

use std::time::Duration;

use serde_json::json;
use testbed::link::{Condition, Link};
use testbed::wait::until_async;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_restarts_and_crashes_under_load_and_everything_accepted_is_persisted() {
    let mut servers = FRAGILE.lock().await;
    let mut site = Site::on(&servers);
    site.start_ingest(&["--unknown-devices", "register"]);
    site.start_worker(&[]);
    let load = Load::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    // In order first: after that the queue itself is sure to survive a crash.
    servers.rabbitmq.stop().unwrap();
    until_async("the front end is not ready", LIMIT, async || {
        !site.ingest().ready()
    })
    .await;
    servers.rabbitmq.resume().unwrap();
    load.wait_accepted(2_000).await;
    servers.rabbitmq.crash().unwrap();
    until_async("the front end is not ready", LIMIT, async || {
        !site.ingest().ready()
    })
    .await;
    servers.rabbitmq.resume().unwrap();
    load.wait_accepted(2_000).await;
    let sent = load.finish().await;
    assert_stored(&site, &sent).await;
    site.assert_books().await;
    until_async("both are ready again", LIMIT, async || {
        site.ingest().ready() && site.worker().ready()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_crashes_under_load_and_everything_accepted_is_persisted() {
    let mut servers = FRAGILE.lock().await;
    let mut site = Site::on(&servers);
    site.start_ingest(&["--unknown-devices", "register"]);
    site.start_worker(&[]);
    let load = Load::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    servers.postgres.crash().unwrap();
    // Known devices are taken while it is away, and devices that nobody knows are to come again.
    load.wait_accepted(2_000).await;
    let unknown = site.post(reading("stranger", "p", 1, 1.0)).await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.json()["code"].as_str()),
        (503, Some("registry_unavailable"))
    );
    assert!(unknown.headers.contains_key("retry-after"));
    let mixed = site
        .post(json!([
            reading("load-0", "power", -5, -5.0),
            reading("stranger", "p", 1, 1.0)
        ]))
        .await;
    assert_eq!(
        (mixed.status.as_u16(), mixed.json()["accepted"].as_u64()),
        (503, Some(1))
    );
    until_async("neither is ready", LIMIT, async || {
        !site.ingest().ready() && !site.worker().ready()
    })
    .await;
    servers.postgres.resume().unwrap();
    load.wait_accepted(2_000).await;
    let mut sent = load.finish().await;
    sent.push(Sent {
        device: "load-0".into(),
        first: -5,
        count: 1,
        accepted: true,
    });
    assert_stored(&site, &sent).await;
    site.assert_books().await;
    assert!(site.worker().metric("gridwatch_transaction_retries_total") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_out_of_memory_blocks_and_every_request_gets_a_true_answer() {
    let servers = FRAGILE.lock().await;
    let mut site = Site::on(&servers);
    site.start_ingest(&[
        "--unknown-devices",
        "register",
        "--deliver-timeout",
        "2s",
        "--max-pending",
        "50",
    ]);
    site.start_worker(&[]);
    assert_eq!(site.post(reading("m", "p", 0, 0.0)).await.status, 202);
    servers
        .rabbitmq
        .control(&["set_vm_memory_high_watermark", "0.00001"])
        .unwrap();
    let load = Load::start(&site, 8, 20);
    until_async("the front end says that it is blocked", LIMIT, async || {
        site.ingest()
            .admin("/readyz")
            .is_ok_and(|answer| answer.contains("out of memory or disk"))
    })
    .await;
    let overloaded = async || {
        let answer = site.post(json!(vec![reading("m", "p", 1, 1.0); 51])).await;
        (
            answer.status.as_u16(),
            answer.json()["code"] == "overloaded",
            answer.headers.contains_key("retry-after"),
        )
    };
    assert_eq!(overloaded().await, (503, true, true));
    servers
        .rabbitmq
        .control(&["set_vm_memory_high_watermark", "0.4"])
        .unwrap();
    load.wait_accepted(500).await;
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
async fn a_full_queue_and_a_missing_queue_are_told_from_success() {
    let mut site = Site::new();
    site.start_ingest(&["--unknown-devices", "register"]);
    let vhost = site.amqp_url.rsplit('/').next().unwrap().to_owned();
    let control = |arguments: &[&str]| SHARED.rabbitmq.control(arguments).unwrap();
    assert_eq!(site.post(reading("m", "p", 0, 0.0)).await.status, 202);
    // A queue of one message is full with one: the broker answers with nack.
    control(&[
        "set_policy",
        "-p",
        &vhost,
        "full",
        "readings",
        r#"{"max-length": 1}"#,
        "--apply-to",
        "queues",
    ]);
    let mut at = 0;
    until_async("the broker refuses", LIMIT, async || {
        at += 1;
        let answer = site.post(reading("m", "p", at, 0.0)).await;
        answer.status == 503 && answer.json()["code"] == "queue_unavailable"
    })
    .await;
    control(&["clear_policy", "-p", &vhost, "full"]);
    until_async("the broker takes again", LIMIT, async || {
        at += 1;
        site.post(reading("m", "p", at, 0.0)).await.status == 202
    })
    .await;
    // A message that no queue takes is acknowledged, and returned: that is no success. The queue is declared anew.
    let accepted = site.ingest().metric("gridwatch_readings_accepted_total");
    let connection = site.amqp().await;
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_delete("gridwatch.readings".into(), Default::default())
        .await
        .unwrap();
    let answer = site.post(reading("m", "p", -1, 0.0)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["code"].as_str()),
        (503, Some("queue_unavailable"))
    );
    assert_eq!(
        site.ingest().metric("gridwatch_readings_accepted_total"),
        accepted
    );
    until_async("the queue is there again", LIMIT, async || {
        site.post(reading("m", "p", -2, 0.0)).await.status == 202
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_falls_silent_is_noticed_and_nothing_is_lost() {
    let mut site = Site::new();
    site.start_worker(&[]);
    let direct = site.amqp_url.clone();
    let link = Link::to(SHARED.rabbitmq.address()).await.unwrap();
    link.set(Condition::Delayed(Duration::from_millis(2)));
    site.amqp_url = direct.replace(&SHARED.rabbitmq.address(), &link.address().to_string());
    site.start_ingest(&["--unknown-devices", "register", "--deliver-timeout", "1s"]);
    site.amqp_url = direct;
    let load = Load::start(&site, 4, 10);
    load.wait_accepted(200).await;
    link.set(Condition::Silent);
    let answer = site.post(reading("m", "p", 0, 0.0)).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    until_async("the heartbeat finds it out", LIMIT, async || {
        !site.ingest().ready()
    })
    .await;
    link.set(Condition::Delayed(Duration::ZERO));
    load.wait_accepted(200).await;
    let mut sent = load.finish().await;
    sent.push(Sent {
        device: "m".into(),
        first: 0,
        count: 1,
        accepted: false,
    });
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

//! Servers that crash, refuse, block and stop responding, under load.

use std::time::Duration;

use serde_json::json;
use testbed::faulty_proxy::Condition;
use testbed::wait::until_async;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_and_a_crash_of_the_broker_every_accepted_reading_is_stored() {
    let mut servers = FRAGILE.lock().await;
    let mut site = Site::on_servers(&servers);
    site.start_ingest(&["--unknown-devices", "register"]);
    site.start_worker(&[]);
    let load = LoadClients::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    // An orderly restart first: after it, the queue is certain to survive a crash.
    servers.rabbitmq.stop().unwrap();
    until_async("the front end is not ready", LIMIT, async || {
        !site.ingest().ready()
    })
    .await;
    servers.rabbitmq.restart().unwrap();
    load.wait_accepted(2_000).await;
    servers.rabbitmq.crash().unwrap();
    until_async("the front end is not ready", LIMIT, async || {
        !site.ingest().ready()
    })
    .await;
    servers.rabbitmq.restart().unwrap();
    load.wait_accepted(2_000).await;
    let sent = load.stop().await;
    assert_stored(&site, &sent).await;
    site.assert_books().await;
    until_async("front end and worker are ready", LIMIT, async || {
        site.ingest().ready() && site.worker().ready()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_of_the_database_every_accepted_reading_is_stored() {
    let mut servers = FRAGILE.lock().await;
    let mut site = Site::on_servers(&servers);
    site.start_ingest(&["--unknown-devices", "register"]);
    site.start_worker(&[]);
    let load = LoadClients::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    servers.postgres.crash().unwrap();
    // While the database is down, readings of known devices are accepted. Those of unknown
    // devices are refused with a status that allows a retry.
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
    until_async("neither front end nor worker is ready", LIMIT, async || {
        !site.ingest().ready() && !site.worker().ready()
    })
    .await;
    servers.postgres.restart().unwrap();
    load.wait_accepted(2_000).await;
    let mut sent = load.stop().await;
    sent.push(SentRequest::of_one("load-0", -5, true));
    assert_stored(&site, &sent).await;
    site.assert_books().await;
    assert!(site.worker().metric("gridwatch_transaction_retries_total") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_out_of_memory_no_request_gets_a_wrong_response() {
    let servers = FRAGILE.lock().await;
    let mut site = Site::on_servers(&servers);
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
    let load = LoadClients::start(&site, 8, 20);
    until_async(
        "the front end reports that the broker blocks it",
        LIMIT,
        async || {
            site.ingest()
                .admin("/readyz")
                .is_ok_and(|response| response.contains("out of memory or disk"))
        },
    )
    .await;
    let overload_response = async || {
        let response = site.post(json!(vec![reading("m", "p", 1, 1.0); 51])).await;
        (
            response.status.as_u16(),
            response.json()["code"] == "overloaded",
            response.headers.contains_key("retry-after"),
        )
    };
    assert_eq!(overload_response().await, (503, true, true));
    servers
        .rabbitmq
        .control(&["set_vm_memory_high_watermark", "0.4"])
        .unwrap();
    load.wait_accepted(500).await;
    let mut sent = load.stop().await;
    sent.push(SentRequest::of_one("m", 0, true));
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_and_a_missing_queue_are_not_reported_as_success() {
    let mut site = Site::new();
    site.start_ingest(&["--unknown-devices", "register"]);
    let vhost = site.amqp_url.rsplit('/').next().unwrap().to_owned();
    let control = |arguments: &[&str]| SHARED.rabbitmq.control(arguments).unwrap();
    assert_eq!(site.post(reading("m", "p", 0, 0.0)).await.status, 202);
    // A queue that may hold one message is full: the broker rejects the next with a nack.
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
        let response = site.post(reading("m", "p", at, 0.0)).await;
        response.status == 503 && response.json()["code"] == "queue_unavailable"
    })
    .await;
    control(&["clear_policy", "-p", &vhost, "full"]);
    until_async("the broker accepts messages again", LIMIT, async || {
        at += 1;
        site.post(reading("m", "p", at, 0.0)).await.status == 202
    })
    .await;
    // The broker acknowledges a message that it cannot route, and returns it. That is not a
    // success. The front end then declares the queue again.
    let accepted = site.ingest().metric("gridwatch_readings_accepted_total");
    let connection = site.amqp().await;
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_delete("gridwatch.readings".into(), Default::default())
        .await
        .unwrap();
    let response = site.post(reading("m", "p", -1, 0.0)).await;
    assert_eq!(
        (response.status.as_u16(), response.json()["code"].as_str()),
        (503, Some("queue_unavailable"))
    );
    assert_eq!(
        site.ingest().metric("gridwatch_readings_accepted_total"),
        accepted
    );
    until_async("the queue exists again", LIMIT, async || {
        site.post(reading("m", "p", -2, 0.0)).await.status == 202
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_connection_to_the_broker_is_detected_and_nothing_is_lost() {
    let mut site = Site::new().behind_proxy(Role::FrontEnd).await;
    site.start_worker(&[]);
    let proxy = site.proxy();
    proxy.set(Condition::Delayed(Duration::from_millis(2)));
    site.start_ingest(&["--unknown-devices", "register", "--deliver-timeout", "1s"]);
    let load = LoadClients::start(&site, 4, 10);
    load.wait_accepted(200).await;
    proxy.set(Condition::Stalled);
    let response = site.post(reading("m", "p", 0, 0.0)).await;
    assert_eq!(response.status, 503, "{}", response.text());
    until_async(
        "the heartbeat detects the stalled connection",
        LIMIT,
        async || !site.ingest().ready(),
    )
    .await;
    proxy.set(Condition::HEALTHY);
    load.wait_accepted(200).await;
    let mut sent = load.stop().await;
    sent.push(SentRequest::of_one("m", 0, false));
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

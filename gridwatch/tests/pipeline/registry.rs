//! The registry: known, new and refused names.

use serde_json::json;
use testbed::wait::until_async;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_added_by_the_operator_is_taken_within_moments() {
    let mut site = Site::new();
    site.start_ingest(&[]);
    let refused = site.post(reading("meter-1", "p", 1, 1.0)).await;
    assert_eq!(
        (
            refused.status.as_u16(),
            refused.json()["errors"][0]["code"].as_str()
        ),
        (422, Some("unknown_device"))
    );
    let url = site.database_url.clone();
    let added = gridwatch(&[
        "devices",
        "add",
        "meter-1",
        "meter-2",
        "--metric",
        "p:W",
        "--metric",
        "u",
        "--database-url",
        &url,
    ]);
    assert_eq!(
        String::from_utf8_lossy(&added.stdout),
        "2 devices with 4 series are registered\n"
    );
    until_async("the device is known", LIMIT, async || {
        site.post(reading("meter-1", "p", 1, 1.0)).await.status == 202
    })
    .await;
    let listed = gridwatch(&["devices", "list", "--database-url", &url]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with("meter-2") && line.ends_with("yes      p [W], u")),
        "{listed}"
    );

    let sql = site.sql().await;
    sql.batch_execute("UPDATE device SET active = false WHERE external_id = 'meter-1'")
        .await
        .unwrap();
    until_async("it is switched off", LIMIT, async || {
        site.post(reading("meter-1", "p", 2, 1.0)).await.json()["errors"][0]["code"]
            == "inactive_device"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_front_ends_that_register_the_same_names_agree_on_their_series() {
    let mut first = Site::new();
    let mut second = Site::new();
    (second.database_url, second.amqp_url) = (first.database_url.clone(), first.amqp_url.clone());
    first.start_ingest(&["--unknown-devices", "register"]);
    second.start_ingest(&["--unknown-devices", "register"]);
    first.start_worker(&[]);
    let names = |at| {
        json!(
            (0..500)
                .map(|n| reading(&format!("d{n}"), "p", at, f64::from(n)))
                .collect::<Vec<_>>()
        )
    };
    let (a, b) = tokio::join!(first.post(names(1)), second.post(names(2)));
    assert_eq!(
        (a.status.as_u16(), b.status.as_u16()),
        (202, 202),
        "{} {}",
        a.text(),
        b.text()
    );
    first.wait_settled(1_000).await;
    assert_eq!(first.number("SELECT count(*) FROM series").await, 500);
    let agree = "SELECT count(*) FROM (SELECT series_id FROM reading GROUP BY 1 HAVING count(*) = 2 AND min(value) = max(value)) x";
    assert_eq!(first.number(agree).await, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registering_stops_at_its_bound() {
    let mut site = Site::new();
    site.start_ingest(&["--unknown-devices", "register", "--max-series", "3"]);
    assert_eq!(
        site.post(json!(
            (0..3)
                .map(|n| reading(&format!("d{n}"), "p", 1, 1.0))
                .collect::<Vec<_>>()
        ))
        .await
        .status,
        202
    );
    let answer = site
        .post(json!([
            reading("d0", "p", 2, 1.0),
            reading("d3", "p", 2, 1.0)
        ]))
        .await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.json()["errors"][0]["code"].as_str()
        ),
        (202, Some("registry_full"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_names_of_many_requests_are_registered_by_few_statements() {
    let site = Site::running();
    let sql = site.sql().await;
    let before = site.ingest().metric("process_open_fds");
    // While a registration waits for this lock, the others gather.
    sql.batch_execute("BEGIN; LOCK TABLE device IN SHARE MODE")
        .await
        .unwrap();
    let requests: Vec<_> = (0..60)
        .map(|n| {
            let (client, listen) = (site.client.clone(), site.listen.clone());
            tokio::spawn(async move {
                let uri = format!("http://{listen}/v1/readings").parse().unwrap();
                let body = reading(&format!("new-{n}"), "p", 1, 1.0).to_string();
                client
                    .post(uri, &[("content-type", "application/json")], body.into())
                    .await
                    .unwrap()
                    .status
            })
        })
        .collect();
    until_async("a registration waits", LIMIT, async || {
        site.number(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'device'::regclass",
        )
        .await
            == 1
    })
    .await;
    // The client sends on a connection as soon as it stands; one more is that of the scrape itself.
    until_async("every request is in", LIMIT, async || {
        site.ingest().metric("process_open_fds") > before + 59.0
    })
    .await;
    sql.batch_execute("COMMIT").await.unwrap();
    for request in requests {
        assert_eq!(request.await.unwrap(), 202);
    }
    let statements = site
        .number("SELECT count(DISTINCT changed_in) FROM device")
        .await;
    assert!(
        statements < 30,
        "60 new devices took {statements} statements"
    );
}

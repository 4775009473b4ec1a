//! The registry: known, new and rejected names.

use serde_json::json;
use testbed::wait::until_async;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_of_a_device_are_accepted_after_an_operator_added_it() {
    let mut site = Site::new();
    site.start_ingest(&[]);
    let rejected = site.post(reading("meter-1", "p", 1, 1.0)).await;
    assert_eq!(
        (
            rejected.status.as_u16(),
            rejected.json()["errors"][0]["code"].as_str()
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
        "devices: 2 new, 0 already registered\nseries: 4 new, 0 already registered\n"
    );
    until_async("the front end knows the device", LIMIT, async || {
        site.post(reading("meter-1", "p", 1, 1.0)).await.status == 202
    })
    .await;
    let sql = site.sql().await;
    let series = "SELECT s.metric, s.unit FROM series s JOIN device d ON d.id = s.device_id
                  WHERE d.external_id = 'meter-2' ORDER BY s.metric";
    let series = sql.query(series, &[]).await.unwrap();
    let series: Vec<(String, Option<String>)> =
        series.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(series, [("p".into(), Some("W".into())), ("u".into(), None)]);

    sql.batch_execute("UPDATE device SET active = false WHERE external_id = 'meter-1'")
        .await
        .unwrap();
    until_async("the device is inactive", LIMIT, async || {
        site.post(reading("meter-1", "p", 2, 1.0)).await.json()["errors"][0]["code"]
            == "inactive_device"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_front_ends_that_register_the_same_names_agree_on_their_series() {
    let mut site = Site::running();
    let second = site.start_another_ingest(&["--unknown-devices", "register"]);
    let names = |at| {
        json!(
            (0..500)
                .map(|n| reading(&format!("d{n}"), "p", at, f64::from(n)))
                .collect::<Vec<_>>()
        )
    };
    let body = names(2).to_string();
    let (a, b) = tokio::join!(
        site.post(names(1)),
        post_readings(&site.client, &second, "", &[JSON], body)
    );
    let b = b.unwrap();
    assert_eq!(
        (a.status.as_u16(), b.status.as_u16()),
        (202, 202),
        "{} {}",
        a.text(),
        b.text()
    );
    site.wait_in_ledger(1_000).await;
    assert_eq!(site.query_int("SELECT count(*) FROM series").await, 500);
    let agree = "SELECT count(*) FROM (
                     SELECT series_id FROM reading GROUP BY 1
                     HAVING count(*) = 2 AND min(value) = max(value)) x";
    assert_eq!(site.query_int(agree).await, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_device_is_registered_beyond_the_limit() {
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
    let response = site
        .post(json!([
            reading("d0", "p", 2, 1.0),
            reading("d3", "p", 2, 1.0)
        ]))
        .await;
    assert_eq!(
        (
            response.status.as_u16(),
            response.json()["errors"][0]["code"].as_str()
        ),
        (202, Some("registry_full"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_names_of_many_requests_are_registered_by_few_statements() {
    let site = Site::running();
    let sql = site.sql().await;
    let before = site.ingest().metric("process_open_fds");
    // While a registration waits for this lock, the others are collected.
    sql.batch_execute("BEGIN; LOCK TABLE device IN SHARE MODE")
        .await
        .unwrap();
    let requests: Vec<_> = (0..60)
        .map(|n| {
            let (client, listen) = (site.client.clone(), site.listen.clone());
            tokio::spawn(async move {
                let body = reading(&format!("new-{n}"), "p", 1, 1.0).to_string();
                let response = post_readings(&client, &listen, "", &[JSON], body).await;
                response.unwrap().status
            })
        })
        .collect();
    site.wait_for_lock_on("device").await;
    // The client sends on a connection as soon as it is established. The scrape itself opens one
    // more connection.
    until_async(
        "the front end has received every request",
        LIMIT,
        async || site.ingest().metric("process_open_fds") > before + 59.0,
    )
    .await;
    sql.batch_execute("COMMIT").await.unwrap();
    for request in requests {
        assert_eq!(request.await.unwrap(), 202);
    }
    let statements = site
        .query_int("SELECT count(DISTINCT changed_in) FROM device")
        .await;
    assert!(
        statements < 30,
        "60 new devices needed {statements} statements"
    );
}

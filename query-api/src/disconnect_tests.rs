//! Clients that disconnect, on a real server.

use std::time::Duration;

use service::http;
use store::{Client, testing};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::routes;

const COMPONENT: &str = "00000000-0000-0000-0000-000000000001";

/// How many statements of other connections wait for a lock.
async fn waiting(client: &Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Waits until this many statements wait for a lock.
async fn wait_for(client: &Client, count: i64) {
    let reached = async { while waiting(client).await != count {} };
    let reached = tokio::time::timeout(testing::LIMIT, reached).await;
    reached.unwrap_or_else(|_| panic!("{count} statements should wait for a lock"));
}

#[tokio::test]
async fn a_client_that_disconnects_ends_its_query_in_the_database() {
    let url = testing::create_database().await;
    let mut locking = testing::connect(&url).await;
    locking
        .batch_execute(&format!(
            "INSERT INTO component (id, kind, name) VALUES ('{COMPONENT}', 'station', 's');
             INSERT INTO device (external_id, component) VALUES ('m', '{COMPONENT}');
             INSERT INTO series (device_id, metric) SELECT id, 'p' FROM device"
        ))
        .await
        .unwrap();
    let observer = testing::connect(&url).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = http::Config {
        name: "test",
        max_connections: 10,
        grace: Duration::ZERO,
    };
    let (stop, pool) = (CancellationToken::new(), testing::pool(&url, 1));
    let server = tokio::spawn(http::serve(config, listener, routes(pool), stop.clone()));

    // Every query of these tables waits for this lock as if it took so long.
    let lock = locking.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE reading, batch, dead_letter")
        .await
        .unwrap();
    let range = "from=2026-11-20&to=2026-11-21";
    for path in [
        format!("/v1/readings?device=m&{range}"),
        format!("/v1/readings?device=m&{range}&resolution=1h&aggregates=twa"),
        format!("/v1/daily?device=m&{range}"),
        format!("/v1/readings?component={COMPONENT}&metric=p&{range}&resolution=1h&combine=sum"),
        format!("/v1/components/{COMPONENT}/performance?metric=p&{range}&resolution=1h"),
        "/v1/latest".to_owned(),
        format!("/v1/latency?{range}"),
        "/v1/dead-letters".to_owned(),
        "/v1/readings/history?device=m&metric=p&time=2026-11-20T00:00:00Z".to_owned(),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        wait_for(&observer, 1).await;
        drop(stream);
        wait_for(&observer, 0).await;
    }
    stop.cancel();
    server.await.unwrap();
}

//! What comes after the body of a response, on a real server.

use std::time::Duration;

use service::http;
use store::testing;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::routes;

#[tokio::test]
async fn a_response_that_was_cut_off_says_so_in_every_format() {
    let url = testing::create_database().await;
    let client = testing::connect(&url).await;
    let sql = "INSERT INTO device (external_id) VALUES ('m');
               INSERT INTO series (device_id, metric) SELECT id, 'p' FROM device;
               SELECT gridwatch_create_reading_day('2026-11-20');
               INSERT INTO reading
               SELECT id, '2026-11-20T00:00:00Z'::timestamptz + n * interval '1 second', n
               FROM series, generate_series(0, 9) n";
    client.batch_execute(sql).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = http::Config {
        name: "test",
        max_connections: 10,
        grace: Duration::ZERO,
    };
    let (stop, pool) = (CancellationToken::new(), testing::pool(&url, 1));
    let server = tokio::spawn(http::serve(config, listener, routes(pool), stop.clone()));

    let path = "/v1/readings?device=m&from=2026-11-20&to=2026-11-21&limit=6";
    for format in ["json", "ndjson", "csv", "arrow"] {
        let trailers = trailers(address, &format!("{path}&format={format}")).await;
        let next = trailers.strip_prefix("gridwatch-rows: 6\r\ngridwatch-next: ");
        let next = next.unwrap_or_else(|| panic!("{format}: {trailers}"));
        let path = format!("{path}&format={format}&next={next}");
        let trailers = self::trailers(address, &path).await;
        assert_eq!(trailers, "gridwatch-rows: 4", "{format}");
    }
    stop.cancel();
    server.await.unwrap();
}

/// The trailers of a response in HTTP/1.1.
async fn trailers(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let text = String::from_utf8_lossy(&response);
    let (_, trailers) = text.rsplit_once("\r\n0\r\n").expect("the body is complete");
    trailers.trim_end().to_owned()
}

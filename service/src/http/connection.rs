//! One connection: its requests, and the error response to a head that is not a request.
//!
//! In: a socket. Out: the responses of the service. hyper refuses a head that it cannot parse with
//! a response without a body, and closes the connection without a response when a part of a head
//! does not become a whole one in time. Here such a head gets problem details, like every other
//! error. The rest of what the client sends is received for a while and discarded: a connection
//! that is closed with unread bytes is reset, and the client would not see the response.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::ResponseCounters;
use crate::ApiError;

/// Upper bound on the bytes of a request's head, and of the trailers after its body.
const MAX_HEAD_BYTES: usize = 400_000;
/// The beginning of a TLS connection: a handshake record of TLS 1.0 to 1.3.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];
/// How long the rest of a refused request is received.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the requests of a connection until it ends, or until `stop` and the end of the request in
/// flight. A head may take `head_timeout` to arrive; so long may the connection be idle.
pub(super) async fn serve<S>(
    stream: TcpStream,
    service: S,
    head_timeout: Duration,
    stop: CancellationToken,
    counters: &ResponseCounters,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .max_header_size(MAX_HEAD_BYTES)
        .header_read_timeout(head_timeout);
    let stream = TokioIo::new(RefusalFilter {
        stream,
        refused: None,
    });
    let mut connection = server.serve_connection(stream, service);
    let ended = match stop.run_until_cancelled(&mut connection).await {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else {
        return;
    };
    tracing::debug!(%error, "connection ended early");
    let parts = connection.into_parts();
    let RefusalFilter { stream, refused } = parts.io.into_inner();
    let error = match refused {
        Some(StatusCode::URI_TOO_LONG) => ApiError::UriTooLong,
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => ApiError::HeadTooLarge,
        Some(_) if parts.read_buf.starts_with(&TLS_HANDSHAKE) => {
            ApiError::BadRequestHead("this port speaks HTTP, not TLS; use http://".into())
        }
        Some(_) => ApiError::BadRequestHead(error.to_string()),
        None if error.is_parse_version_h2() => {
            ApiError::BadRequestHead("HTTP/2 is not supported".into())
        }
        // An idle connection is closed without a response, which would look like the response to
        // the client's next request.
        None if error.is_timeout() && !parts.read_buf.is_empty() => {
            ApiError::HeadTimeout(head_timeout.as_secs())
        }
        None => return,
    };
    refuse(stream, error, counters, &stop).await;
}

/// Responds with an error, discards what the client still sends, and closes the connection.
async fn refuse(
    mut stream: TcpStream,
    error: ApiError,
    counters: &ResponseCounters,
    stop: &CancellationToken,
) {
    let respond = service_fn(|_| {
        let response = error.clone().into_response();
        counters.count_response(&response);
        std::future::ready(Ok::<Response, Infallible>(response))
    });
    // hyper writes a response only to a request.
    let request = &b"GET / HTTP/1.1\r\nhost: none\r\n\r\n"[..];
    let one_request = TokioIo::new(tokio::io::join(request, &mut stream));
    let mut server = http1::Builder::new();
    let server = server
        .keep_alive(false)
        .half_close(true)
        .timer(TokioTimer::new());
    if server.serve_connection(one_request, respond).await.is_err() {
        return;
    }
    let discard = tokio::time::timeout(DISCARD_TIMEOUT, discard(stream));
    let _cut_short = stop.run_until_cancelled(discard).await;
}

/// Receives until the client closes the connection.
async fn discard(mut stream: TcpStream) {
    let mut buffer = [0; 4_096];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// A socket that does not send hyper's own refusals, so that the caller can.
struct RefusalFilter {
    stream: TcpStream,
    /// The status of the refusal.
    refused: Option<StatusCode>,
}

/// The status of a refusal by hyper, which has no header but `content-length` and `date`. The error
/// responses of the service have a `content-type`.
fn refusal(response: &[u8]) -> Option<StatusCode> {
    let status = response.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    if !matches!(status, b"400" | b"414" | b"431") {
        return None;
    }
    let has_type = response.windows(12).any(|name| name == b"content-type");
    StatusCode::from_bytes(status).ok().filter(|_| !has_type)
}

impl AsyncRead for RefusalFilter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

/// Vectored writes are not supported, so that hyper writes the head of a response in one piece.
impl AsyncWrite for RefusalFilter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(status) = refusal(bytes) {
            self.refused = Some(status);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refused.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::Value;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// What the server sends to a client that sends this in one piece and then waits, and the
    /// metrics.
    async fn exchange(sent: &[u8], head_timeout: Duration) -> (String, String) {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let _local = metrics::set_default_local_recorder(&recorder);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (mut reader, mut writer) = client.unwrap().into_split();
        let counters = ResponseCounters::new("test");
        let service = service_fn(|_| std::future::ready(Ok(Response::default())));
        let stop = CancellationToken::new();
        let serving = serve(accepted.unwrap().0, service, head_timeout, stop, &counters);
        let talking = async {
            let mut received = String::new();
            let sending = writer.write_all(sent);
            let (sent, read) = tokio::join!(sending, reader.read_to_string(&mut received));
            sent.unwrap();
            read.unwrap();
            drop(writer);
            received
        };
        // In this order, so that the client has sent the beginning when the time limit begins.
        let both = async { tokio::join!(talking, serving) };
        let both = tokio::time::timeout(Duration::from_secs(60), both).await;
        (
            both.expect("the server closes the connection").0,
            handle.render(),
        )
    }

    #[tokio::test]
    async fn a_head_may_have_400_000_bytes() {
        for (length, status) in [(400_000, "200"), (400_001, "431")] {
            let (begin, end) = ("GET / HTTP/1.1\r\nconnection: close\r\nx: ", "\r\n\r\n");
            let value = "x".repeat(length - begin.len() - end.len());
            let (received, _) = exchange(format!("{begin}{value}{end}").as_bytes(), LONG).await;
            assert!(
                received.starts_with(&format!("HTTP/1.1 {status} ")),
                "{received}"
            );
        }
    }

    #[tokio::test]
    async fn a_client_that_speaks_tls_is_told_that_this_port_speaks_http() {
        let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x0a\x0d\x0a\x0d\x0a";
        let (received, _) = exchange(client_hello, LONG).await;
        let expected = "this port speaks HTTP, not TLS; use http://";
        assert!(received.contains(expected), "{received}");
    }

    const LONG: Duration = Duration::from_secs(60);
    const GOOD: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

    #[tokio::test]
    async fn a_head_that_is_not_a_request_gets_problem_details_and_is_counted() {
        let header = format!("x: {}\r\n", "x".repeat(40_000));
        let h2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned();
        for (head, timeout, status, code) in [
            (
                "this is not HTTP\r\n\r\n".to_owned(),
                LONG,
                400,
                "bad_request_head",
            ),
            (
                "GET / HTTP/3.9\r\n\r\n".to_owned(),
                LONG,
                400,
                "bad_request_head",
            ),
            (
                "GET / HTTP/1.1\r\na b: c\r\n\r\n".to_owned(),
                LONG,
                400,
                "bad_request_head",
            ),
            (h2, LONG, 400, "bad_request_head"),
            (
                "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n".to_owned(),
                LONG,
                400,
                "bad_request_head",
            ),
            (
                format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(65_534)),
                LONG,
                414,
                "uri_too_long",
            ),
            (
                format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101)),
                LONG,
                431,
                "head_too_large",
            ),
            (
                format!("GET / HTTP/1.1\r\n{}\r\n", header.repeat(30)),
                LONG,
                431,
                "head_too_large",
            ),
            (
                "POST /v1/readings HTTP/1.1\r\nhost".to_owned(),
                Duration::from_millis(50),
                408,
                "head_timeout",
            ),
        ] {
            // On a new connection, and after a request on the same one.
            for before in ["", GOOD] {
                let sent = format!("{before}{head}");
                let (received, metrics) = exchange(sent.as_bytes(), timeout).await;
                let what = format!("{}: {received}", &head[..head.len().min(60)]);
                let refusal = received.rfind("HTTP/1.1 ").expect(&what);
                let (good, refusal) = received.split_at(refusal);
                assert_eq!(good.is_empty(), before.is_empty(), "{what}");
                assert!(
                    refusal.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{what}"
                );
                let (head, body) = refusal.split_once("\r\n\r\n").expect(&what);
                for header in [
                    "content-type: application/problem+json",
                    "connection: close",
                    "date: ",
                ] {
                    assert!(head.contains(header), "{what}");
                }
                let body: Value = serde_json::from_str(body).expect(&what);
                assert_eq!(
                    (&body["status"], &body["code"]),
                    (&status.into(), &code.into())
                );
                for counted in [
                    format!("http_requests_total{{listener=\"test\",status=\"{status}\"}} 1\n"),
                    format!("http_errors_total{{listener=\"test\",code=\"{code}\"}} 1\n"),
                ] {
                    assert!(
                        metrics.contains(&counted),
                        "{counted} is not in:\n{metrics}"
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_without_a_response() {
        let timeout = Duration::from_millis(50);
        assert_eq!(exchange(b"", timeout).await.0, "");
        let (received, _) = exchange(GOOD.as_bytes(), timeout).await;
        assert_eq!(received.matches("HTTP/1.1 ").count(), 1, "{received}");
    }

    #[tokio::test]
    async fn a_client_that_sends_much_more_than_a_head_receives_the_refusal() {
        let sent = "x".repeat(10_000_000);
        let (received, _) = exchange(sent.as_bytes(), LONG).await;
        assert!(
            received.contains("\"code\":\"head_too_large\""),
            "{received}"
        );
    }
}

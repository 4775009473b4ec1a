//! HTTP out: a small client for the operator's commands, tests and benchmarks.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server cannot be reached, or the connection broke.
    #[error("{0}")]
    Connection(String),
    /// No answer within the time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client that keeps connections open. Clones share them.
#[derive(Debug, Clone)]
pub struct Client {
    pooled: Pooled<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

impl Client {
    /// A client that waits at most `timeout` for an answer.
    pub fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            pooled: Pooled::builder(TokioExecutor::new()).build(connector),
            timeout,
        }
    }

    /// `GET`.
    ///
    /// # Errors
    /// [`ClientError`]. An answer with an error status is an answer.
    pub async fn get(&self, uri: Uri) -> Result<Answer, ClientError> {
        self.send(Method::GET, uri, &[], Bytes::new()).await
    }

    /// `POST`, with these headers.
    ///
    /// # Errors
    /// [`ClientError`]. An answer with an error status is an answer.
    pub async fn post(
        &self,
        uri: Uri,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        self.send(Method::POST, uri, headers, body).await
    }

    async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            ClientError::Connection(crate::postgres::words(error))
        };
        let mut request = Request::builder().method(method).uri(uri);
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let (head, body) = self
                .pooled
                .request(request)
                .await
                .map_err(|error| failed(&error))?
                .into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| failed(error.as_ref()))?.to_bytes();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or(Err(ClientError::TimedOut(self.timeout)))
    }
}

//! An HTTP client for the commands of the operator, tests and benchmarks.
//!
//! In: a request. Out: the response, read to its end. A connection that fails and a response that
//! does not arrive in time are errors; the client does not retry.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub use hyper::{Method, StatusCode, Uri};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Upper bound on the body of a response. A page of a list may be longer than 16 MiB by its last
/// document and the health of its devices.
const MAX_RESPONSE_BYTES: usize = 32 * 1024 * 1024;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server cannot be reached, or the connection broke. Holds the cause.
    #[error("{0}")]
    Connection(String),
    /// No response within the timeout.
    #[error("no response within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// A response, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// The body as JSON, or null if it is not valid JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text; invalid UTF-8 is replaced.
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
    /// A client that waits at most `timeout` for a response.
    pub fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self {
            pooled: Pooled::builder(TokioExecutor::new()).build(connector),
            timeout,
        }
    }

    /// Sends a `GET` request.
    ///
    /// # Errors
    /// [`ClientError`]. A response with an error status is not an error.
    pub async fn get(&self, uri: Uri) -> Result<Response, ClientError> {
        self.send(Method::GET, uri, &[], Bytes::new()).await
    }

    /// Sends a `POST` request with these headers.
    ///
    /// # Errors
    /// [`ClientError`]. A response with an error status is not an error.
    pub async fn post(
        &self,
        uri: Uri,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response, ClientError> {
        self.send(Method::POST, uri, headers, body).await
    }

    /// Sends a request with these headers.
    ///
    /// # Errors
    /// [`ClientError`]. A response with an error status is not an error.
    pub async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response, ClientError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            ClientError::Connection(crate::root_cause(error))
        };
        let mut request = Request::builder().method(method).uri(uri);
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| failed(&error))?;
        let response = async {
            let (head, body) = self
                .pooled
                .request(request)
                .await
                .map_err(|error| failed(&error))?
                .into_parts();
            let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await;
            let body = body.map_err(|error| failed(error.as_ref()))?.to_bytes();
            Ok(Response {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(self.timeout, response)
            .await
            .unwrap_or(Err(ClientError::TimedOut(self.timeout)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_error_is_the_cause_without_the_layers_of_the_client() {
        let client = Client::new(CONNECT_TIMEOUT);
        let uri = Uri::from_static("http://127.0.0.1:1/");
        let error = client.get(uri).await.unwrap_err();
        assert_eq!(error.to_string(), "Connection refused");
    }
}

//! Requests of commands to a query API.
//!
//! In: a path and its parameters, or a document. Out: the response of a request that succeeded, or
//! a sentence with what to do. Nothing is retried: reading has no effect, and a command that writes
//! can be repeated.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use service::client::{Client, Method, Response, StatusCode, Uri};
use service::quote::quote;

use crate::UsageError;

/// How long a response may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A query API.
pub(crate) struct QueryApi {
    client: Client,
    url: String,
    /// The flag with the address.
    flag: &'static str,
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// The query API refused the request.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The code of the error.
        code: String,
        /// What is wrong.
        detail: String,
    },
    /// There is no response of a query API.
    #[error("{0}")]
    NoResponse(String),
}

impl QueryError {
    /// Whether the request was refused with this code.
    pub(crate) fn has_code(&self, expected: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == expected)
    }

    /// The error of the command: a request that is wrong is a wrong flag.
    pub(crate) fn of_command(self) -> anyhow::Error {
        match self {
            Self::Refused { status, detail, .. }
                if [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY]
                    .contains(&status) =>
            {
                UsageError(detail).into()
            }
            other => other.into(),
        }
    }
}

impl QueryApi {
    /// The query API at a URL, which is the value of `flag`.
    ///
    /// # Errors
    /// The URL is wrong.
    pub(crate) fn new(flag: &'static str, url: &str) -> Result<Self, UsageError> {
        let url = url.trim_end_matches('/');
        let parsed: Option<Uri> = url.parse().ok();
        let is_http = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some();
        if !parsed.as_ref().is_some_and(is_http) {
            return Err(UsageError(format!(
                "{flag} {}: expected http://HOST:PORT, the address of a query API",
                quote(url)
            )));
        }
        Ok(Self {
            client: Client::new(TIMEOUT),
            url: url.to_owned(),
            flag,
        })
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends `GET` for a path below `/v1`, with parameters.
    ///
    /// # Errors
    /// [`QueryError`].
    pub(crate) async fn get(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Response, QueryError> {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        self.send(Method::GET, &format!("{path}?{query}"), &[], Bytes::new())
            .await
    }

    /// Sends a document with a method and headers.
    ///
    /// # Errors
    /// [`QueryError`].
    pub(crate) async fn write(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Response, QueryError> {
        let headers = [&[("content-type", "application/json")], headers].concat();
        let body = Bytes::from(body.to_string());
        self.send(method, path, &headers, body).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response, QueryError> {
        let (url, flag) = (&self.url, self.flag);
        let uri: Uri = format!("{url}/v1{path}")
            .parse()
            .map_err(|_| QueryError::NoResponse(format!("the path {} is too long", quote(path))))?;
        let response = self.client.send(method, uri, headers, body).await;
        let response = response.map_err(|error| {
            let cause = error.to_string();
            QueryError::NoResponse(if cause.contains("length limit") {
                let advice = match path.starts_with("/readings") {
                    true => "choose a shorter range or a coarser resolution",
                    false => "choose filters that leave out the largest documents",
                };
                format!("the response of {url} is too large; {advice}")
            } else {
                format!(
                    "cannot reach the query API at {url}: {cause}; start 'gridwatch query-api' \
                     or 'gridwatch standalone', or give its address with {flag}"
                )
            })
        })?;
        if response.status.is_success() {
            return Ok(response);
        }
        let problem = response.json();
        let status = response.status;
        match (problem["code"].as_str(), problem["detail"].as_str()) {
            (Some(code), Some(detail)) if !is_other_server(status, code) => {
                Err(QueryError::Refused {
                    status,
                    code: code.to_owned(),
                    detail: detail.to_owned(),
                })
            }
            _ => Err(QueryError::NoResponse(format!(
                "{url} responded with {status}; {flag} must be the address of a query API"
            ))),
        }
    }
}

/// Whether the path is not known to a server that has these paths if it is a query API.
fn is_other_server(status: StatusCode, code: &str) -> bool {
    status == StatusCode::METHOD_NOT_ALLOWED || code == "not_found"
}

/// A text as a segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
pub(crate) mod tests {
    use axum::Router;
    use axum::routing::get;

    use super::*;

    /// A query API that responds as a router does.
    pub(crate) async fn serve(router: Router) -> QueryApi {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        QueryApi::new("--url", &url).unwrap()
    }

    #[tokio::test]
    async fn a_page_up_to_the_limit_of_the_server_is_accepted_and_more_is_explained() {
        // A page ends after 16 MiB; its last document has about 1 MiB at most.
        let page = || async { vec![b' '; 18 << 20] };
        let large = || async { vec![b' '; 40 << 20] };
        let router = Router::new()
            .route("/v1/devices", get(page))
            .route("/v1/types", get(large))
            .route("/v1/readings", get(large));
        let api = serve(router).await;
        let response = api.get("/devices", &[]).await.unwrap();
        assert_eq!(response.body.len(), 18 << 20);
        for (path, expected) in [("/types", "choose filters"), ("/readings", "shorter range")] {
            let error = api.get(path, &[]).await.unwrap_err().to_string();
            assert!(
                error.contains("too large") && error.contains(expected),
                "{error}"
            );
        }
    }
}

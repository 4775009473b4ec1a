//! Requests to the front end.
//!
//! In: the JSON of readings. Out: the JSON of the response. While the front end is unavailable, the
//! request is retried; the caller is notified of each retry.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use service::client::{Client, Response, StatusCode, Uri};
use service::quote::quote;
use tokio::time::Instant;

use crate::UsageError;

/// How long a response may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long to retry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    /// Pause before a retry.
    pub pause: Duration,
    /// How long without a response: there is no front end.
    pub unreachable: Duration,
    /// How long with 408, 500 or 503: above all, the queue or the database is unavailable.
    pub unavailable: Duration,
}

const RETRIES: Retries = Retries {
    pause: Duration::from_secs(1),
    unreachable: Duration::from_secs(10),
    unavailable: Duration::from_secs(60),
};

/// A front end.
pub(super) struct FrontEnd {
    client: Client,
    url: String,
    readings: Uri,
    pub(super) retries: Retries,
}

impl FrontEnd {
    /// The front end of `--url`, which reads numeric times in `--precision`.
    ///
    /// # Errors
    /// The URL is wrong.
    pub(super) fn new(url: &str, precision: &str) -> Result<Self, UsageError> {
        let url = url.trim_end_matches('/');
        let readings: Option<Uri> = format!("{url}/v1/readings?precision={precision}")
            .parse()
            .ok();
        let readings = readings
            .filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some())
            .ok_or_else(|| {
                let url = quote(url);
                UsageError(format!(
                    "--url {url}: expected http://HOST:PORT, the address on which the front end \
                     accepts readings"
                ))
            })?;
        Ok(Self {
            client: Client::new(TIMEOUT),
            url: url.to_owned(),
            readings,
            retries: RETRIES,
        })
    }

    /// Sends readings and returns the JSON of the response: numbers of accepted and rejected
    /// readings, and errors. A retry stores nothing twice, because the readings have times.
    ///
    /// # Errors
    /// The front end stays unavailable, or its response is not one to readings.
    pub(super) async fn post(&self, body: Bytes, notify: impl Fn(&str)) -> anyhow::Result<Value> {
        let url = &self.url;
        let headers = [("content-type", "application/json")];
        // Whether the last request failed without a response, and since when requests fail so.
        let mut failing: Option<(bool, Instant)> = None;
        loop {
            let result = self
                .client
                .post(self.readings.clone(), &headers, body.clone());
            let result = result.await;
            let is_unreachable = result.is_err();
            let (problem, limit, advice) = match result {
                Ok(response) if is_temporary(response.status) => (
                    format!(
                        "{url} responded with {}: {}",
                        response.status.as_u16(),
                        detail(&response)
                    ),
                    self.retries.unavailable,
                    "import the file again when the front end is ready",
                ),
                Ok(response) => return self.outcome(&response),
                Err(error) => (
                    format!("cannot reach the front end at {url}: {error}"),
                    self.retries.unreachable,
                    "start it, or give its address with --url, and import the file again",
                ),
            };
            // Each kind of failure has its own limit, which counts from its first failure.
            let same_kind = failing.filter(|(unreachable, _)| *unreachable == is_unreachable);
            let since = same_kind.map_or_else(Instant::now, |(_, since)| since);
            failing = Some((is_unreachable, since));
            let elapsed = since.elapsed();
            if elapsed >= limit {
                anyhow::bail!("{problem}; {advice}: what is stored already is not stored twice");
            }
            let rest = (limit - elapsed).as_secs_f64().ceil();
            notify(&format!("{problem}; retrying for another {rest} s"));
            tokio::time::sleep(self.retries.pause).await;
        }
    }

    fn outcome(&self, response: &Response) -> anyhow::Result<Value> {
        let json = response.json();
        let is_outcome =
            response.status.is_success() || response.status == StatusCode::UNPROCESSABLE_ENTITY;
        if is_outcome && json["accepted"].is_u64() {
            return Ok(json);
        }
        let (url, status) = (&self.url, response.status);
        let advice = match status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::OK => {
                "; --url must be the address on which the front end accepts readings"
            }
            StatusCode::PAYLOAD_TOO_LARGE => "; choose a smaller --batch",
            _ => "",
        };
        anyhow::bail!(
            "{url} responded with {status}: {}{advice}",
            detail(response)
        )
    }
}

/// Whether a request with this response is to be retried as it is.
fn is_temporary(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// The explanation in a response.
fn detail(response: &Response) -> String {
    match response.json()["detail"].as_str() {
        Some(detail) => detail.to_owned(),
        None => quote(response.text().trim()),
    }
}

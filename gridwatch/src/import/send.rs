//! Requests to the front end.
//!
//! In: the JSON of readings. Out: the JSON of the response. While the front end is unavailable, the
//! request is retried; the caller is notified of each retry.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use service::client::{Client, Response, StatusCode, Uri};
use tokio::time::Instant;

use crate::UsageError;
use crate::quote::quote;

/// How long a response may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long to retry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    /// Pause before a retry.
    pub pause: Duration,
    /// How long without a response: there is no front end.
    pub unreachable: Duration,
    /// How long with 503: the queue or the database is unavailable.
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
        let mut first_failure = None;
        loop {
            let result = self
                .client
                .post(self.readings.clone(), &headers, body.clone());
            let (problem, limit, advice) = match result.await {
                Ok(response) if response.status == StatusCode::SERVICE_UNAVAILABLE => (
                    format!("{url} responded with 503: {}", detail(&response)),
                    self.retries.unavailable,
                    "import the file again when the front end is ready",
                ),
                Ok(response) => return self.outcome(&response),
                Err(error) => {
                    let error = error.to_string();
                    // The last part is the cause, the others name layers of the client.
                    let cause = error.rsplit(": ").next().unwrap_or_default();
                    (
                        format!("cannot reach the front end at {url}: {cause}"),
                        self.retries.unreachable,
                        "start it, or give its address with --url, and import the file again",
                    )
                }
            };
            let failing = first_failure.get_or_insert_with(Instant::now).elapsed();
            if failing >= limit {
                anyhow::bail!("{problem}; {advice}: what is stored already is not stored twice");
            }
            let rest = (limit - failing).as_secs_f64().ceil();
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

/// The explanation in a response.
fn detail(response: &Response) -> String {
    match response.json()["detail"].as_str() {
        Some(detail) => detail.to_owned(),
        None => quote(response.text().trim()),
    }
}

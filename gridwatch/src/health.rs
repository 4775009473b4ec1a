//! `gridwatch health`: whether a process is ready, for the health check of a container.
//!
//! In: the admin address of a process. Out: a line with its state, and exit code 0 if it does its
//! work (ready or degraded), otherwise 1 with the reasons.

use std::time::Duration;

use serde_json::Value;
use service::client::{Client, Uri};
use service::quote::quote;

use crate::UsageError;
use crate::config::Health;
use crate::output;

/// How long the response may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the command.
pub(crate) async fn run(arguments: Health) -> anyhow::Result<()> {
    let url = arguments.url.trim_end_matches('/');
    let uri: Option<Uri> = format!("{url}/readyz").parse().ok();
    let is_http = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some();
    let Some(uri) = uri.filter(is_http) else {
        let sentence = "expected http://HOST:PORT, the admin address of a process";
        return Err(UsageError(format!("{}: {sentence}", quote(url))).into());
    };
    let response = Client::new(TIMEOUT).get(uri).await.map_err(|error| {
        anyhow::anyhow!("{url}: {error}; the process is not running, or --admin is another address")
    })?;
    let document = response.json();
    let Some(state) = document["state"].as_str() else {
        let status = response.status;
        anyhow::bail!("{url} responded with {status}; it must be the address of --admin");
    };
    let line = describe(state, &document["parts"]);
    anyhow::ensure!(response.status.is_success(), "{url}: {line}");
    output::summary(format_args!("{url}: {line}"))?;
    Ok(())
}

/// The state, and why parts are not ready.
fn describe(state: &str, parts: &Value) -> String {
    let parts = parts.as_object().into_iter().flatten();
    let reasons = parts.filter_map(|(name, reason)| {
        let reason = reason.as_str().filter(|reason| *reason != "ready")?;
        Some(format!("{name}: {reason}"))
    });
    let mut line = vec![state.to_owned()];
    line.extend(reasons);
    line.join("; ")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::http::StatusCode;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    async fn check(url: &str) -> Result<(), String> {
        let url = url.to_owned();
        run(Health { url }).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_process_is_healthy_when_it_is_ready_or_degraded_and_otherwise_says_why_not() {
        let ready = Arc::new(Mutex::new((StatusCode::OK, String::new())));
        let shared = ready.clone();
        let route = axum::routing::get(|| async move { shared.lock().unwrap().clone() });
        let router = axum::Router::new().route("/readyz", route);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async { axum::serve(listener, router).await });

        for (status, state, broker, expected) in [
            (200, "ready", "ready", None),
            (200, "degraded", "no route", None),
            (
                503,
                "unready",
                "no route",
                Some("unready; broker: no route"),
            ),
            (
                503,
                "unready",
                "starting",
                Some("unready; broker: starting"),
            ),
        ] {
            let parts = json!({ "broker": broker, "database": "ready" });
            let body = json!({ "state": state, "parts": parts }).to_string();
            *ready.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), body);
            let expected = expected.map(|reason| format!("{url}: {reason}"));
            assert_eq!(check(&format!("{url}/")).await.err(), expected);
        }
        let other = check(&format!("{url}/v1")).await.unwrap_err();
        assert!(
            other.contains("responded with 404 Not Found; it must be"),
            "{other}"
        );

        serving.abort();
        let _ = serving.await;
        let error = check(&url).await.unwrap_err();
        assert!(error.contains("the process is not running"), "{error}");
    }

    #[tokio::test]
    async fn an_address_that_is_not_one_of_http_is_a_wrong_flag() {
        for url in ["127.0.0.1:8081", "https://127.0.0.1:8081", "", "http://"] {
            let error = run(Health { url: url.into() }).await.unwrap_err();
            assert!(error.is::<UsageError>(), "{url}: {error}");
        }
    }

    #[test]
    fn only_the_parts_that_are_not_ready_are_listed() {
        let parts = serde_json::json!({ "broker": "no route", "database": "ready" });
        assert_eq!(describe("degraded", &parts), "degraded; broker: no route");
        assert_eq!(describe("ready", &Value::Null), "ready");
    }
}

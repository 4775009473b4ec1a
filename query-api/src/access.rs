//! Who may send queries while there is no authentication.
//!
//! In: requests. Out: those that do not come from the page of another site. Such a page can send
//! requests from the browser of somebody who can reach this port, and after DNS rebinding read the
//! responses too. A browser cannot be made to lie in `Host` and `Origin`, and cannot send the
//! accepted media types to another site without asking first.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::Body as _;
use service::ApiError;

use crate::resources::media_type;

/// Which requests are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Those to a name of this machine's loopback, from pages of such a name, and with a body of a
    /// type that no HTML form can send. The listener is on loopback.
    Loopback,
    /// Those that come from no other site. The operator takes care of who can reach the port.
    Open,
}

/// Media types of bodies.
const MEDIA_TYPES: [&str; 5] = [
    "application/json",
    "application/merge-patch+json",
    "application/x-ndjson",
    "application/ndjson",
    "text/csv",
];

/// Refuses requests that this kind of access excludes.
pub(crate) async fn check(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = request.headers();
    let mut hosts: Vec<String> = headers.get_all(header::HOST).iter().map(text).collect();
    hosts.extend(request.uri().authority().map(ToString::to_string));
    let origins: Vec<String> = headers.get_all(header::ORIGIN).iter().map(text).collect();
    if access == Access::Loopback {
        let foreign = |host: &&String| !is_loopback(host);
        if hosts.is_empty() {
            return Err(ApiError::ForbiddenHost(String::new()));
        }
        if let Some(host) = hosts.iter().find(foreign) {
            return Err(ApiError::ForbiddenHost(host.clone()));
        }
    }
    let is_own = |origin: &&String| {
        let site = origin.split_once("://").map_or("", |(_, site)| site);
        match access {
            Access::Loopback => is_loopback(site),
            Access::Open => hosts.iter().any(|host| host.eq_ignore_ascii_case(site)),
        }
    };
    if let Some(origin) = origins.iter().find(|origin| !is_own(origin)) {
        return Err(ApiError::ForbiddenOrigin(origin.clone()));
    }
    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(request.method())
        && !request.body().is_end_stream();
    if access == Access::Loopback && has_body {
        let is_named = headers.contains_key(header::CONTENT_TYPE);
        let own = media_type(headers);
        if !is_named || !MEDIA_TYPES.contains(&own.as_str()) {
            let own = if is_named { &own } else { "" };
            let accepted = MEDIA_TYPES.join(", ");
            return Err(ApiError::UnsupportedMediaType(format!(
                "content-type is '{own}'; use one of {accepted}, as the path requires"
            )));
        }
    }
    Ok(next.run(request).await)
}

/// Whether a host, with or without a port, is a name of loopback.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_loopback_are_known_with_every_port() {
        for host in [
            "localhost",
            "LOCALHOST:8090",
            "127.0.0.1",
            "127.9.8.7:1",
            "[::1]",
            "[::1]:8090",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "192.168.0.1",
            "[::2]",
            "0.0.0.0",
            "null",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}

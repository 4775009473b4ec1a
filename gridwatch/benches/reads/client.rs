//! Clients: one that reads responses of Gridwatch and discards them, and `psql`.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection to a port of Gridwatch.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: String,
}

impl Client {
    /// Opens a connection.
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // The sender reports the errors of its connection.
        tokio::spawn(connection);
        let address = address.to_owned();
        Ok(Self { sender, address })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::bail!("{path}: {status} {}", String::from_utf8_lossy(&body))
    }

    /// The body of a response.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }

    /// Posts JSON.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let response = self.send(Method::POST, path, body).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }

    /// Reads a response and discards it. Returns the milliseconds until its end, and its bytes.
    pub(crate) async fn time(&mut self, path: &str) -> anyhow::Result<(f64, usize)> {
        let started = Instant::now();
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let (mut body, mut length) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok((milliseconds(started.elapsed()), length))
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Milliseconds that `psql` takes for a statement, whose output it discards: as `psql` measures
/// them, without its start and its connection. The first of two executions is not counted.
pub(crate) fn psql(url: &str, statement: &str) -> anyhow::Result<f64> {
    let program = testbed::find("psql", &[])?;
    let mut command = Command::new(program);
    command.args(["-X", "-q", "-A", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1"]);
    command.args(["-c", "\\timing on", "-c", statement, "-c", statement, url]);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "psql: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut times = text.lines().filter_map(|line| line.strip_prefix("Time: "));
    let last = times.next_back().context("psql printed no time")?;
    let number = last.split_whitespace().next().unwrap_or_default();
    Ok(number.parse()?)
}

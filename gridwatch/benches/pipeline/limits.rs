//! The limits of the machine: one `COPY`, and an HTTP handler that responds at once.

use std::time::{Duration, Instant};

use anyhow::ensure;
use axum::http::StatusCode;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::SinkExt as _;
use loadtest::traffic::Traffic;
use schema::clock::POSTGRES_EPOCH;
use serde::Deserialize;
use testbed::process::Process;

use crate::BATCH;
use crate::common::free_address;
use crate::measurements::send_single_readings;
use crate::servers::Servers;

/// Size of the chunks that the rows of `COPY` are sent in.
const COPY_CHUNK: usize = 128 * 1024;

impl Servers {
    /// Rows per second of one `COPY` of the readings in order of arrival. The rows are encoded in
    /// advance, so that this is the limit of PostgreSQL.
    pub(crate) async fn measure_copy(
        &self,
        round: usize,
        traffic: &Traffic,
    ) -> anyhow::Result<f64> {
        let name = format!("copy{round}");
        let database = self.create_database(&name).await?;
        let readings = traffic.requests() * BATCH as u64;
        let chunks = encode_rows(traffic, readings);
        let started = Instant::now();
        let statement = "COPY reading (series_id, measured_at, value) FROM STDIN (FORMAT binary)";
        let mut sink = std::pin::pin!(database.copy_in::<_, Bytes>(statement).await?);
        for chunk in chunks {
            sink.feed(chunk).await?;
        }
        let rows = sink.finish().await?;
        let seconds = started.elapsed().as_secs_f64();
        ensure!(
            rows == readings,
            "COPY stored {rows} rows of {readings} readings"
        );
        self.drop_database(&name).await?;
        Ok(rows as f64 / seconds)
    }

    /// Requests per second of the handler that responds at once, which runs in its own process.
    pub(crate) async fn measure_bare(
        &self,
        connections: usize,
        duration: Duration,
    ) -> anyhow::Result<f64> {
        let address = free_address()?;
        let program = std::env::current_exe()?;
        let mut server = Process::start(&program, &["--bare", &address], &address, self.logs())?;
        server.wait_ready();
        let sent = send_single_readings(&address, connections, duration).await?;
        Ok(sent.accepted_per_second())
    }
}

/// The first readings in PostgreSQL's binary format of `COPY`.
fn encode_rows(traffic: &Traffic, readings: u64) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut buffer = BytesMut::new();
    buffer.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for number in 0..readings {
        let reading = traffic.reading(number);
        buffer.put_i16(3);
        buffer.put_i32(4);
        // Series were inserted in the order of their numbers, and their ids begin with 1.
        buffer.put_i32(reading.series as i32 + 1);
        buffer.put_i32(8);
        buffer.put_i64(reading.measured_at - POSTGRES_EPOCH);
        buffer.put_i32(8);
        buffer.put_f64(reading.value());
        if buffer.len() > COPY_CHUNK {
            chunks.push(buffer.split().freeze());
        }
    }
    buffer.put_i16(-1);
    chunks.push(buffer.freeze());
    chunks
}

/// Serves the limit of single readings: axum, the same JSON, and 202 at once.
pub(crate) async fn serve_bare(address: &str) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "the limit parses the readings and discards them")]
    struct Reading {
        device: String,
        metric: String,
        measured_at: i64,
        value: f64,
    }
    let accept = async |body: Bytes| match serde_json::from_slice::<Vec<Reading>>(&body) {
        Ok(_) => (
            StatusCode::ACCEPTED,
            r#"{"accepted":1,"rejected":0,"errors":[]}"#,
        ),
        Err(_) => (StatusCode::BAD_REQUEST, ""),
    };
    let router = axum::Router::new()
        .route("/v1/readings", axum::routing::post(accept))
        .route("/readyz", axum::routing::get(async || ""));
    let listener = tokio::net::TcpListener::bind(address).await?;
    let without_delay =
        axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(without_delay, router).await?)
}

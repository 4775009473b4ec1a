//! A load generator that costs little: requests are rendered beforehand, or patched in place, and answers are only looked
//! at as far as their status and length.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Devices and metrics of the fleet: 10,000 series.
pub const DEVICES: usize = 5_000;
pub const METRICS: [&str; 2] = ["current", "voltage"];
pub const SERIES: usize = DEVICES * METRICS.len();

/// 2026-11-01T00:00:00Z, in seconds; the readings of a benchmark are of this day.
pub const DAY: u64 = 1_793_491_200;

/// The reading with this number in order of arrival: series after series, then the next tenth of a second.
pub fn reading(number: usize) -> (usize, usize, u64, f64) {
    let (series, tick) = (number % SERIES, number / SERIES);
    let millis = (tick as u64 * 100) % 86_400_000;
    let value = 230.0 + ((number * 7_919) % 1_000) as f64 / 100.0;
    (
        series / METRICS.len(),
        series % METRICS.len(),
        DAY * 1_000 + millis,
        value,
    )
}

/// The request with readings `first..first + count`, head and body.
pub fn request(first: usize, count: usize) -> Vec<u8> {
    let mut body = String::with_capacity(count * 80 + 2);
    body.push('[');
    for number in first..first + count {
        let (device, metric, millis, value) = reading(number);
        if number > first {
            body.push(',');
        }
        body += &format!(
            r#"{{"device":"device-{device:05}","metric":"{}","value":{value},"measured_at":{millis}}}"#,
            METRICS[metric]
        );
    }
    body.push(']');
    let head = format!(
        "POST /v1/readings?precision=ms HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 16 * 1024],
        })
    }

    /// Sends a request and returns the status of its answer.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server closed the connection");
            filled += read;
            if let Some((status, length)) = answer(&self.buffer[..filled])? {
                if filled >= length {
                    return Ok(status);
                }
                ensure!(length <= self.buffer.len(), "an answer of {length} bytes");
            }
        }
    }
}

/// Status and whole length of an answer, once its head is there.
fn answer(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..head])?;
    let status = text.get(9..12).context("no status")?.parse()?;
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())?;
    Ok(Some((status, head + 4 + length)))
}

/// Sends these requests, each once, over so many connections. Returns when the last is answered with 202.
pub async fn send_all(
    address: &str,
    requests: Arc<Vec<Vec<u8>>>,
    connections: usize,
) -> anyhow::Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (requests, next, address) = (requests.clone(), next.clone(), address.to_owned());
        clients.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let status = connection.exchange(request).await?;
                ensure!(status == 202, "answered with {status}");
            }
            Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}

/// What a closed loop of single readings came to.
pub struct Singles {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Sends requests of one reading over so many connections, as fast as they are answered, for so long.
pub async fn singles(
    address: &str,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Singles> {
    static ROUND: AtomicUsize = AtomicUsize::new(0);
    let round = ROUND.fetch_add(1, Ordering::Relaxed);
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..connections {
        let address = address.to_owned();
        clients.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let mut latencies = Histogram::<u64>::new_with_max(60_000_000, 3)?;
            // Each client has devices of its own, and each of its requests another time: no reading is sent twice.
            let mut tick = (round * 1_000_000) as u64;
            while begun.elapsed() < duration {
                tick += 1;
                let device = client * (DEVICES / connections) + (tick as usize % (DEVICES / connections));
                let millis = DAY * 1_000 + tick % 86_400_000;
                let body = format!(
                    r#"{{"device":"device-{device:05}","metric":"current","value":1.5,"measured_at":{millis}}}"#
                );
                let request = format!(
                    "POST /v1/readings?precision=ms HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let sent = Instant::now();
                let status = connection.exchange(request.as_bytes()).await?;
                ensure!(status == 202, "answered with {status}");
                latencies.saturating_record(sent.elapsed().as_micros() as u64);
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Histogram::<u64>::new_with_max(60_000_000, 3)?;
    while let Some(client) = clients.join_next().await {
        all.add(client??)?;
    }
    let millis = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Singles {
        per_second: all.len() as f64 / begun.elapsed().as_secs_f64(),
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
    })
}

/// What was offered and what was taken.
#[derive(Default)]
pub struct Offered {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub late: AtomicU64,
    /// Microseconds from when a request was due to its answer.
    pub latencies: Mutex<Vec<u64>>,
}

/// Offers requests of `batch` readings at a fixed rate of readings a second, whatever the answers, for so long. The
/// schedule is fixed beforehand; a send that finds every connection busy a second after its time is counted as late.
pub async fn offer(
    address: &str,
    batch: usize,
    rate: f64,
    duration: Duration,
) -> anyhow::Result<Arc<Offered>> {
    const CONNECTIONS: usize = 64;
    let offered = Arc::new(Offered::default());
    let requests = (rate * duration.as_secs_f64() / batch as f64) as usize;
    let interval = Duration::from_secs_f64(batch as f64 / rate);
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (offered, next, address) = (offered.clone(), next.clone(), address.to_owned());
        clients.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return anyhow::Ok(());
                }
                let due = begun + interval * number as u32;
                tokio::time::sleep_until(due.into()).await;
                if begun.elapsed() > duration {
                    return Ok(());
                }
                if due.elapsed() > Duration::from_secs(1) {
                    offered.late.fetch_add(1, Ordering::Relaxed);
                }
                let status = connection.exchange(&request(number * batch, batch)).await?;
                let micros = due.elapsed().as_micros() as u64;
                offered
                    .latencies
                    .lock()
                    .expect("nobody panics with it")
                    .push(micros);
                match status {
                    202 => offered.accepted.fetch_add(batch as u64, Ordering::Relaxed),
                    503 => offered.refused.fetch_add(batch as u64, Ordering::Relaxed),
                    status => bail!("answered with {status}"),
                };
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(offered)
}

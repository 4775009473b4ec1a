//! Sending: threads that keep connections open and send each request at its scheduled time.
//!
//! In: the traffic, and the time of the start. Out: measurements, and a ledger with the outcome of
//! every request. A target that fails is a result, not an error.
//!
//! The schedule is fixed before the start. A request that is due while every connection waits for a
//! response is sent late, and its latency is measured from the scheduled time. A request that is
//! ten seconds late is dropped and counted.

mod connection;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderValue};
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use self::queue::RequestQueue;
use crate::http;
use crate::ledger::Ledger;
use crate::recorder::Recorder;
use crate::scenario::{Format, Mode};
use crate::timer::Timer;
use crate::traffic::Traffic;

/// Time limit for connecting to the target in [`Target::probe`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The path that accepts readings, with times in microseconds.
const PATH: &str = "/v1/readings?precision=us";

/// Where requests are sent, and how responses are checked.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http://HOST:PORT/v1/readings`.
    pub(crate) uri: Uri,
    /// Whether a 2xx response has to state the expected numbers of accepted and rejected readings.
    /// The idle server's response does not.
    pub is_checked: bool,
}

impl Target {
    /// The target of a URL such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// The URL is not valid, or has a user or a path.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let uri: Option<Uri> = format!("{}/v1/readings", url.trim_end_matches('/'))
            .parse()
            .ok();
        // Another path or a user would have no effect, and a password would appear in the report.
        let is_plain = |uri: &Uri| {
            uri.scheme_str() == Some("http")
                && uri
                    .path_and_query()
                    .is_some_and(|path| path == "/v1/readings")
                && uri
                    .authority()
                    .is_some_and(|authority| !authority.as_str().contains('@'))
        };
        let uri = uri
            .filter(is_plain)
            .context("expected http://HOST:PORT and nothing else, such as http://127.0.0.1:8080")?;
        Ok(Self {
            uri,
            is_checked: true,
        })
    }

    /// Host and port.
    pub(crate) fn address(&self) -> (&str, u16) {
        let host = self.uri.host().unwrap_or_default();
        (
            host.trim_start_matches('[').trim_end_matches(']'),
            self.uri.port_u16().unwrap_or(80),
        )
    }

    /// Checks that the target accepts connections.
    ///
    /// # Errors
    /// It accepts none within ten seconds.
    pub async fn probe(&self) -> anyhow::Result<()> {
        let connect = http::open(self.address());
        tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .with_context(|| format!("no connection within {CONNECT_TIMEOUT:?}"))??;
        Ok(())
    }
}

/// The requests that one of n threads sends: every n-th one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Partition {
    /// The number of the thread, which is the number of its first request.
    pub(crate) thread: u64,
    /// Number of threads.
    pub(crate) threads: u64,
}

/// A thread that sends its partition of the requests.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) target: Target,
    /// When the schedule starts.
    pub(crate) begin: Instant,
    /// Whether requests wait for their scheduled time.
    pub(crate) is_paced: bool,
    pub(crate) partition: Partition,
    /// Connections of this thread.
    pub(crate) connections: u64,
    pub(crate) recorder: Recorder,
    /// Ends the run early.
    pub(crate) stop: CancellationToken,
}

/// What a thread returns: the ledger of its requests, and when the last response was received.
pub(crate) type SenderResult = anyhow::Result<(Ledger, Instant)>;

impl Sender {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn spawn(self) -> std::io::Result<JoinHandle<SenderResult>> {
        std::thread::Builder::new()
            .name("sender".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(self.run())
            })
    }

    async fn run(self) -> SenderResult {
        let timer = Timer::new()?;
        let state = Arc::new(SenderState {
            timer: timer.clone(),
            queue: Mutex::new(RequestQueue::new(&self.traffic, self.partition)),
            ledger: Mutex::default(),
            sender: self,
        });
        let path = Uri::from_static(PATH);
        let headers = state.sender.headers();
        let mut connections: FuturesUnordered<_> = (0..state.sender.connections)
            .map(|_| {
                let connection = Connection::new(state.clone(), path.clone(), headers.clone());
                tokio::spawn(connection.run())
            })
            .collect();
        let all = async {
            while let Some(ended) = connections.next().await {
                ended?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            ended = all => ended?,
            failed = timer.run() => failed?,
        }
        let ended = Instant::now();
        let ledger = std::mem::take(&mut *lock(&state.ledger));
        Ok((ledger, ended))
    }

    fn mode(&self) -> Mode {
        self.traffic.scenario().mode
    }

    /// The headers of every request.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
        let authority = self
            .target
            .uri
            .authority()
            .map_or("", |authority| authority.as_str());
        if let Ok(host) = HeaderValue::from_str(authority) {
            headers.insert(header::HOST, host);
        }
        let media_type = match self.traffic.scenario().body.format {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        // Inserted now, because inserting it into a clone of the map would reallocate the clone.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        headers
    }
}

/// What the connections of a thread share.
struct SenderState {
    sender: Sender,
    timer: Timer,
    queue: Mutex<RequestQueue>,
    ledger: Mutex<Ledger>,
}

/// Locks a mutex that only this thread uses. The runtime requires `Sync` although it has one
/// thread.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

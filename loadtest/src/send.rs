//! Sending: threads that keep connections open and send each request at its time.
//!
//! In: the traffic, the moment of its begin. Out: measurements, and a ledger of what became of every request. The schedule is
//! fixed before: a request whose time comes while every connection waits for an answer is sent late, and its latency counts
//! from when it was due. One that is ten seconds late is dropped, and counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Fate, Ledger};
use crate::meter::{Meter, record};
use crate::pace::Pace;
use crate::scenario::{Format, Mode};
use crate::traffic::{Hostile, Request as Made, Traffic};

/// Where readings are taken, with times in microseconds.
const PATH: &str = "/v1/readings?precision=us";
/// How late a request may be and is sent all the same.
const GIVE_UP: Duration = Duration::from_secs(10);
/// From how much on a send counts as late.
const LATE: Duration = Duration::from_millis(1);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// Longest pause that an answer can ask for.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Where requests go, and what is expected of the answers.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http://HOST:PORT`, and the path where readings are taken.
    pub uri: Uri,
    /// Whether answers have to say how many readings were accepted. A server that does nothing cannot.
    pub is_checked: bool,
}

impl Target {
    /// The target of a URL such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// It is none.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let uri: Option<Uri> = format!("{}/v1/readings", url.trim_end_matches('/'))
            .parse()
            .ok();
        // Neither a path of one's own nor a user would be used, and a password would stand in the report.
        let is_plain = |uri: &Uri| {
            uri.scheme_str() == Some("http")
                && uri
                    .path_and_query()
                    .is_some_and(|path| path == "/v1/readings")
                && uri
                    .authority()
                    .is_some_and(|authority| !authority.as_str().contains('@'))
        };
        let uri = uri.filter(is_plain);
        let uri = uri
            .context("expected http://HOST:PORT and nothing else, such as http://127.0.0.1:8080")?;
        Ok(Self {
            uri,
            is_checked: true,
        })
    }

    /// Host and port.
    pub fn address(&self) -> (&str, u16) {
        let host = self.uri.host().unwrap_or_default();
        (
            host.trim_start_matches('[').trim_end_matches(']'),
            self.uri.port_u16().unwrap_or(80),
        )
    }
}

/// What one thread of several sends: every n-th request.
#[derive(Debug, Clone)]
pub struct Share {
    /// What is sent.
    pub traffic: Arc<Traffic>,
    /// Where to.
    pub target: Target,
    /// When the schedule begins.
    pub begin: Instant,
    /// Which of the threads this is, and how many there are.
    pub turn: (u64, u64),
    /// Connections of this thread.
    pub connections: u64,
    /// Where measurements go.
    pub meter: Meter,
    /// Ends the run before its time.
    pub stop: CancellationToken,
}

impl Share {
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
        let media = match self.traffic.scenario().body.format {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        // Takes its place now: a copy of the map has no room for another one.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        headers
    }

    /// Sends everything on a thread of its own, and returns the ledger, by turns of this thread, and when the last answer
    /// was there.
    ///
    /// # Errors
    /// The thread cannot be set up. That the target is not there is no error; it is what is measured.
    pub fn start(
        self,
    ) -> std::io::Result<std::thread::JoinHandle<anyhow::Result<(Ledger, Instant)>>> {
        std::thread::Builder::new()
            .name("sender".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(self.run())
            })
    }

    async fn run(self) -> anyhow::Result<(Ledger, Instant)> {
        let pace = Pace::new()?;
        let next = Next::new(&self.traffic, self.turn);
        let sender = Arc::new(Sender {
            pace: pace.clone(),
            next: Mutex::new(next),
            ledger: Mutex::default(),
            share: self,
        });
        let headers = sender.share.headers();
        let connection = || Connection {
            sender: sender.clone(),
            link: None,
            path: Uri::from_static(PATH),
            headers: headers.clone(),
        };
        let mut connections: FuturesUnordered<_> = (0..sender.share.connections)
            .map(|_| tokio::spawn(connection().run()))
            .collect();
        let all = async {
            while let Some(ended) = connections.next().await {
                ended?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            ended = all => ended?,
            failed = pace.run() => failed?,
        }
        let ended = Instant::now();
        let ledger = std::mem::take(&mut *lock(&sender.ledger));
        Ok((ledger, ended))
    }
}

/// The requests of a thread in the order of their times: those on schedule, and those of devices that were away.
struct Next {
    turn: (u64, u64),
    on_time: u64,
    kept: u64,
    kept_end: u64,
}

impl Next {
    fn new(traffic: &Traffic, turn: (u64, u64)) -> Self {
        let (kept, kept_end) = traffic.outage_requests();
        // The first of this thread's.
        let kept = kept + (turn.0 + turn.1 - kept % turn.1) % turn.1;
        Self {
            turn,
            on_time: turn.0,
            kept,
            kept_end,
        }
    }

    /// The next request and when it is due; none where all were handed out.
    fn take(&mut self, traffic: &Traffic) -> Option<(u64, Duration)> {
        let is_open = traffic.scenario().mode == Mode::Open;
        if !is_open {
            let request = self.on_time;
            self.on_time += self.turn.1;
            return Some((request, Duration::ZERO));
        }
        while self.on_time < traffic.requests() && traffic.is_away(self.on_time) {
            self.on_time += self.turn.1;
        }
        while self.kept < self.kept_end && !traffic.is_away(self.kept) {
            self.kept += self.turn.1;
        }
        let on_time = (self.on_time < traffic.requests()).then(|| traffic.due(self.on_time));
        let kept = (self.kept < self.kept_end).then(|| traffic.due(self.kept));
        let (cursor, due) = match (on_time, kept) {
            (Some(on_time), Some(kept)) if kept < on_time => (&mut self.kept, kept),
            (Some(on_time), _) => (&mut self.on_time, on_time),
            (None, Some(kept)) => (&mut self.kept, kept),
            (None, None) => return None,
        };
        let request = *cursor;
        *cursor += self.turn.1;
        Some((request, Duration::from_secs_f64(due)))
    }
}

struct Sender {
    share: Share,
    pace: Pace,
    next: Mutex<Next>,
    ledger: Mutex<Ledger>,
}

/// One connection, and the requests that go over it one after the other.
struct Connection {
    sender: Arc<Sender>,
    link: Option<SendRequest<Full<Bytes>>>,
    /// Path and headers of every request.
    path: Uri,
    headers: HeaderMap,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Answer {
        status: u16,
        retry_after: Option<Duration>,
        body: Bytes,
    },
    /// No connection, a broken one, or no answer in time.
    Nothing(String),
}

impl Outcome {
    /// Whether sending it again would change nothing.
    fn is_final(&self) -> bool {
        matches!(self, Self::Answer { status, .. } if *status < 500)
    }
}

#[derive(Debug, Deserialize)]
struct Books {
    accepted: u64,
    rejected: u64,
}

impl Made {
    /// Whether an answer with 2xx says of its readings what has to be said.
    fn is_answered_by(&self, body: &[u8]) -> bool {
        let books: Option<Books> = serde_json::from_slice(body).ok();
        self.good > 0
            && books.is_some_and(|books| (books.accepted, books.rejected) == (self.good, self.bad))
    }
}

/// The begin of an answer, for people.
fn words(status: u16, body: &[u8]) -> String {
    format!(
        "{status} {}",
        String::from_utf8_lossy(&body[..body.len().min(300)])
    )
}

impl Connection {
    async fn run(mut self) {
        let sender = self.sender.clone();
        let share = &sender.share;
        let end = share.begin + share.traffic.scenario().duration;
        let is_open = share.traffic.scenario().mode == Mode::Open;
        loop {
            let Some((number, due)) = lock(&sender.next).take(&share.traffic) else {
                return;
            };
            let due = share.begin + due;
            if is_open && due + GIVE_UP < Instant::now() {
                share.meter.lock().counts.dropped += 1;
                // There may be very many of them: the others of this thread go on meanwhile.
                tokio::task::yield_now().await;
                if share.stop.is_cancelled() {
                    return;
                }
                continue;
            }
            // Made before its time, so that making it does not delay it.
            let request = share.traffic.request(number);
            if Instant::now() < due
                && share
                    .stop
                    .run_until_cancelled(sender.pace.until(due))
                    .await
                    .is_none()
            {
                return;
            }
            let begun = Instant::now();
            if share.stop.is_cancelled() || (!is_open && begun >= end) {
                return;
            }
            let due = if is_open { due } else { begun };
            self.exchange(number, &request, due, begun).await;
        }
    }

    /// Sends a request until it has a final answer or was sent as often as may be, and writes down what became of it.
    async fn exchange(&mut self, number: u64, request: &Made, due: Instant, begun: Instant) {
        let sender = self.sender.clone();
        let share = &sender.share;
        let retry = share.traffic.scenario().retry;
        let own = number / share.turn.1;
        // Until there is an answer nobody knows.
        lock(&sender.ledger).set(own, Fate::Unknown);
        let warm = due >= share.begin + share.traffic.scenario().warm_up;
        let breaks_off = request.hostile == Some(Hostile::BreaksOff);
        let mut attempt = 0;
        let outcome = loop {
            let outcome = self.send(request).await;
            let pause = match &outcome {
                Outcome::Answer { retry_after, .. } => retry_after.unwrap_or(retry.after),
                Outcome::Nothing(_) => retry.after,
            };
            if outcome.is_final() || breaks_off || attempt == retry.attempts {
                break outcome;
            }
            attempt += 1;
            share.meter.lock().counts.retried += 1;
            if share
                .stop
                .run_until_cancelled(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                break outcome;
            }
        };
        self.measure(due, begun, warm && !breaks_off, outcome.is_final());
        let fate = self.judge(request, number, &outcome);
        lock(&sender.ledger).set(own, fate);
        if fate == Fate::Accepted && share.traffic.is_repeated(number) {
            share.meter.lock().counts.repeated += 1;
            // The readings were accepted before: a refusal for want of room changes nothing, any other does.
            let outcome = self.send(request).await;
            if outcome.is_final() {
                self.judge_repeated(request, number, &outcome);
            }
        }
    }

    /// Notes a request that is through. Who has no final answer has waited for one all the same: a target that refuses fast
    /// is not fast.
    fn measure(&self, due: Instant, begun: Instant, is_timed: bool, is_final: bool) {
        let (share, ended) = (&self.sender.share, Instant::now());
        let mut measured = share.meter.lock();
        measured.counts.sent += 1;
        measured.counts.late += u64::from(begun > due + LATE);
        if is_timed {
            let least = if is_final {
                Duration::ZERO
            } else {
                share.traffic.scenario().timeout
            };
            record(&mut measured.intended, (ended - due).max(least));
            record(&mut measured.sent, (ended - begun).max(least));
            record(&mut measured.lateness, begun - due);
        }
    }

    fn judge_repeated(&self, request: &Made, number: u64, outcome: &Outcome) {
        let Outcome::Answer { status, body, .. } = outcome else {
            return;
        };
        let fits = !self.sender.share.target.is_checked || request.is_answered_by(body);
        if *status >= 300 || !fits {
            let words = || format!("request {number}, sent again: {}", words(*status, body));
            self.sender.share.meter.lock().note_unlike(words);
        }
    }

    /// What an outcome means for the readings of a request, and whether it fits them.
    fn judge(&self, request: &Made, number: u64, outcome: &Outcome) -> Fate {
        let mut measured = self.sender.share.meter.lock();
        let readings = request.good + request.bad;
        let (status, body) = match outcome {
            Outcome::Answer { status, body, .. } => (*status, body),
            Outcome::Nothing(reason) => {
                *measured.counts.statuses.entry(0).or_default() += 1;
                if request.hostile == Some(Hostile::BreaksOff) {
                    measured.counts.rejected += readings;
                    return Fate::Rejected;
                }
                measured.counts.errors += 1;
                measured.counts.unknown += readings;
                if measured.unlike.is_empty() {
                    measured.unlike.push(format!("request {number}: {reason}"));
                }
                return Fate::Unknown;
            }
        };
        *measured.counts.statuses.entry(status).or_default() += 1;
        let words = || format!("request {number}: {}", words(status, body));
        match status {
            200..=299 if !self.sender.share.target.is_checked => {
                measured.counts.accepted += request.good;
                Fate::Accepted
            }
            200..=299 => {
                if !request.is_answered_by(body) {
                    measured
                        .note_unlike(|| format!("{}; expected {} accepted", words(), request.good));
                    measured.counts.unknown += readings;
                    return Fate::Unknown;
                }
                measured.counts.accepted += request.good;
                measured.counts.rejected += request.bad;
                Fate::Accepted
            }
            400..=499 => {
                measured.counts.rejected += readings;
                if request.good > 0 {
                    measured
                        .note_unlike(|| format!("{}; expected {} accepted", words(), request.good));
                }
                Fate::Rejected
            }
            _ => {
                measured.counts.errors += 1;
                measured.counts.unknown += readings;
                if measured.unlike.is_empty() {
                    let words = words();
                    measured.unlike.push(words);
                }
                Fate::Unknown
            }
        }
    }

    async fn send(&mut self, request: &Made) -> Outcome {
        let timeout = self.sender.share.traffic.scenario().timeout;
        let sent = match request.hostile {
            Some(Hostile::BreaksOff) => {
                tokio::time::timeout(timeout, self.break_off(request)).await
            }
            _ => tokio::time::timeout(timeout, self.try_send(request)).await,
        };
        match sent {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                self.link = None;
                Outcome::Nothing(format!("{error:#}"))
            }
            Err(_) => {
                // An answer that comes later must not be taken for the next one's.
                self.link = None;
                Outcome::Nothing("no answer in time".into())
            }
        }
    }

    async fn try_send(&mut self, request: &Made) -> anyhow::Result<Outcome> {
        let mut message = Request::new(Full::new(request.body.clone()));
        *message.method_mut() = hyper::Method::POST;
        *message.uri_mut() = self.path.clone();
        *message.headers_mut() = self.headers.clone();
        message.headers_mut().insert(
            header::CONTENT_LENGTH,
            HeaderValue::from(request.body.len()),
        );
        if let Some(encoding) = request.encoding {
            message
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        // One that the server has closed meanwhile is made anew.
        let is_open = match &mut self.link {
            Some(link) => link.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            self.link = Some(self.connect().await?);
        }
        let link = self.link.as_mut().context("no connection")?;
        let mut answer = link.send_request(message).await?;
        let status = answer.status().as_u16();
        let seconds = answer
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_PAUSE));
        let mut body = Bytes::new();
        while let Some(frame) = answer.body_mut().frame().await {
            // Nearly every answer is one frame, which is not copied.
            match frame?.into_data() {
                Ok(data) if body.is_empty() => body = data,
                Ok(data) => body = [body, data].concat().into(),
                Err(_) => {}
            }
            ensure!(
                body.len() <= MAX_ANSWER,
                "an answer of more than {MAX_ANSWER} bytes"
            );
        }
        Ok(Outcome::Answer {
            status,
            retry_after,
            body,
        })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.sender.share.target.address()).await?;
        stream.set_nodelay(true)?;
        let (link, connection) = http1::Builder::new()
            .writev(false)
            .handshake(TokioIo::new(stream))
            .await?;
        // Its errors come out at the request that they concern.
        tokio::spawn(connection);
        Ok(link)
    }

    /// Announces a body and ends the connection in the middle of it.
    async fn break_off(&self, request: &Made) -> anyhow::Result<Outcome> {
        let mut stream = TcpStream::connect(self.sender.share.target.address()).await?;
        let (length, half) = (request.body.len(), &request.body[..request.body.len() / 2]);
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: loadtest\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n",
            self.path
        );
        stream.write_all(&[head.as_bytes(), half].concat()).await?;
        Ok(Outcome::Nothing("broken off, as it was meant to be".into()))
    }
}

/// Locks what only this thread uses: the runtime wants it to be safe for several.
fn lock<T>(own: &Mutex<T>) -> MutexGuard<'_, T> {
    own.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Bodies: the bytes of a request, read and decompressed within bounds.
//!
//! In: a body of unknown length and honesty. Out: its text, and a share of the process's budget for bodies that is given
//! back when it is dropped. Too long, too slow, too many at once, broken or not UTF-8: a problem, and nothing is kept. What
//! is refused before its end is read on for a while and thrown away: a connection that is closed over unread bytes is
//! reset, and the client would not see the answer.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use service::problem::Problem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::format::MAX_READINGS;

/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);
/// Budget taken for each byte of a body: the text itself, its readings taken apart, and the columns made of them.
const SHARE_PER_BYTE: usize = 3;
/// Budget taken for each entry that a body may have: what reading it makes.
const ENTRY: usize = 80;
/// Largest window of a zstd body, as a power of two: what a decoder must hold besides the output.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Compressed bodies above this many bytes are opened while another thread takes over whoever else waits for this one.
const LARGE: usize = 16 * 1024;
/// How long the rest of a refused body is read before the answer goes out.
const LINGER: Duration = Duration::from_secs(5);
/// How much is decompressed between two looks at the budget, in bytes.
const CHUNK: usize = 64 * 1024;

/// Bounds on bodies, and the budget that all of them share.
#[derive(Debug, Clone)]
pub struct Bodies {
    max_bytes: usize,
    budget: Arc<Semaphore>,
}

/// The text of a request and its share of the budget.
#[derive(Debug)]
pub struct Text {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl Text {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn as_str(&self) -> Result<&str, Problem> {
        std::str::from_utf8(&self.bytes).map_err(|error| {
            let detail = format!("the body is not UTF-8 from byte {}", error.valid_up_to());
            Problem::new(StatusCode::BAD_REQUEST, "not_utf8", detail)
        })
    }
}

/// What the head of a request says of its body.
#[derive(Debug, Clone, Copy)]
pub struct Announced {
    /// None: one that we cannot read.
    encoding: Option<Encoding>,
    /// In bytes; 0 where it says nothing.
    length: usize,
    asks_first: bool,
}

impl Announced {
    /// Reads the headers of a request.
    pub fn new(headers: &HeaderMap) -> Self {
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            encoding: headers
                .get(header::CONTENT_ENCODING)
                .map_or(Some(Encoding::Identity), Encoding::new),
            length: length.unwrap_or(0),
            asks_first: headers.contains_key(header::EXPECT),
        }
    }
}

impl Bodies {
    /// `max_bytes` bounds one body, before and after decompression; `budget_bytes` all of them together.
    pub fn new(max_bytes: usize, budget_bytes: usize) -> Self {
        let budget = budget_bytes
            .max(max_bytes * SHARE_PER_BYTE + MAX_READINGS * ENTRY)
            .min(Semaphore::MAX_PERMITS);
        Self {
            max_bytes,
            budget: Arc::new(Semaphore::new(budget)),
        }
    }

    /// Reads a body to its end and decompresses it.
    ///
    /// # Errors
    /// 400, 408, 413, 415 or 503, as problem.
    pub async fn read(&self, announced: Announced, mut body: Body) -> Result<Text, Problem> {
        let text = self.text(announced, &mut body).await;
        // Who asks first whether to send the body has sent none of it.
        if text.is_err() && !announced.asks_first {
            let _too_slow = tokio::time::timeout(LINGER, self.discard(body)).await;
        }
        text
    }

    /// Throws away what is left of a body, as far as one of the largest size goes.
    async fn discard(&self, mut body: Body) {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > self.max_bytes {
                return;
            }
        }
    }

    async fn text(&self, announced: Announced, body: &mut Body) -> Result<Text, Problem> {
        let encoding = announced.encoding.ok_or_else(|| {
            let detail = "content-encoding is gzip, zstd or identity";
            Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                detail,
            )
        })?;
        if announced.length > self.max_bytes {
            return Err(self.too_large());
        }
        let reading = self.collect(body, announced.length);
        let (bytes, mut share) = tokio::time::timeout(ARRIVAL, reading).await.map_err(|_| {
            let detail = format!("the body did not arrive within {} s", ARRIVAL.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
        })??;
        let bytes = match encoding {
            Encoding::Identity => bytes,
            _ if bytes.len() > LARGE => {
                tokio::task::block_in_place(|| self.decompress(encoding, bytes, &mut share))?
            }
            _ => self.decompress(encoding, bytes, &mut share)?,
        };
        // What comes out of it may be larger than the text: an entry for every "0," of an array.
        let entries = bytes
            .iter()
            .filter(|&&byte| byte == b',' || byte == b'\n')
            .count()
            .min(MAX_READINGS);
        share.merge(self.acquire(entries * ENTRY)?);
        Ok(Text {
            bytes,
            _share: share,
        })
    }

    async fn collect(
        &self,
        body: &mut Body,
        announced: usize,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
        let mut share = self.share(0)?;
        let mut whole = BytesMut::with_capacity(announced.min(CHUNK));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let detail = format!("the body broke off: {error}");
                Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", detail)
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if whole.len() + data.len() > self.max_bytes {
                return Err(self.too_large());
            }
            share.merge(self.share(data.len())?);
            whole.extend_from_slice(&data);
        }
        Ok((whole.freeze(), share))
    }

    fn decompress(
        &self,
        encoding: Encoding,
        bytes: Bytes,
        share: &mut OwnedSemaphorePermit,
    ) -> Result<Bytes, Problem> {
        match encoding {
            Encoding::Identity => Ok(bytes),
            Encoding::Gzip => self.inflate(flate2::read::MultiGzDecoder::new(&bytes[..]), share),
            Encoding::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&bytes[..]).map_err(|e| broken(&e))?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG)
                    .map_err(|e| broken(&e))?;
                self.inflate(decoder, share)
            }
        }
    }

    fn inflate(
        &self,
        mut decoder: impl Read,
        share: &mut OwnedSemaphorePermit,
    ) -> Result<Bytes, Problem> {
        let mut whole = Vec::new();
        loop {
            let before = whole.len();
            let read = decoder
                .by_ref()
                .take(CHUNK as u64)
                .read_to_end(&mut whole)
                .map_err(|error| broken(&error))?;
            if read == 0 {
                return Ok(whole.into());
            }
            if whole.len() > self.max_bytes {
                return Err(self.too_large());
            }
            share.merge(self.share(whole.len() - before)?);
        }
    }

    fn share(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        self.acquire(bytes * SHARE_PER_BYTE)
    }

    fn acquire(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let permits = u32::try_from(bytes).map_err(|_| self.too_large())?;
        self.budget
            .clone()
            .try_acquire_many_owned(permits)
            .map_err(|_| {
                let detail = "the front end holds as many bodies as it may; retry";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
            })
    }

    fn too_large(&self) -> Problem {
        let detail = format!(
            "a body has at most {} bytes, before and after decompression",
            self.max_bytes
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }
}

fn broken(error: &std::io::Error) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad_compression",
        format!("the body cannot be decompressed: {error}"),
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    fn new(name: &HeaderValue) -> Option<Self> {
        match name.as_bytes().to_ascii_lowercase().as_slice() {
            b"identity" => Some(Self::Identity),
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

//! Bodies: the bytes of a request, received and decompressed within limits.
//!
//! In: a body of unknown length from an untrusted client. Out: its bytes, and a permit of the
//! process's memory budget for bodies, which is returned when they are dropped. A body that is too
//! long, too slow or broken, or exceeds the budget, is an error, and nothing of it is kept. The
//! rest of a refused body is received for a while and discarded: a connection that is closed with
//! unread bytes is reset, and the client would not see the response.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use service::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::format::{Format, MAX_READINGS};

/// How long a body may take to arrive.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Budget for each byte of a body: the bytes themselves, the readings parsed from them, and the
/// columns built from those.
const BUDGET_PER_BYTE: usize = 3;
/// Budget for each entry that a body may have: the parsed entry.
const BUDGET_PER_ENTRY: usize = 80;
/// Upper bound on the window of a zstd body, as a power of two: memory of the decoder besides its
/// output.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Compressed bodies above this many bytes are decompressed in `block_in_place`, so that other
/// tasks of this thread move to another one.
const LARGE: usize = 16 * 1024;
/// How long the rest of a refused body is received before the response is sent.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are decompressed between two checks of the budget.
const CHUNK: usize = 64 * 1024;

/// Limits on bodies, and the budget that they share.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    max_bytes: usize,
    budget: Arc<Semaphore>,
}

/// The decompressed bytes of a body, and its permit of the budget.
#[derive(Debug)]
pub(crate) struct BodyBytes {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl std::ops::Deref for BodyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What the headers of a request state about its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyHeaders {
    /// `None` if it is not supported.
    encoding: Option<Encoding>,
    /// In bytes; 0 if it is not stated.
    length: usize,
    /// The client sends the body only after a `100 Continue`.
    expects_continue: bool,
}

impl BodyHeaders {
    /// Reads the headers of a request.
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            encoding: headers
                .get(header::CONTENT_ENCODING)
                .map_or(Some(Encoding::Identity), Encoding::new),
            length: length.unwrap_or(0),
            expects_continue: headers.contains_key(header::EXPECT),
        }
    }
}

impl Bodies {
    /// `max_bytes` is the limit on one body, before and after decompression, and `budget_bytes` the
    /// limit on all of them together.
    pub(crate) fn new(max_bytes: usize, budget_bytes: usize) -> Self {
        let budget = budget_bytes
            .max(max_bytes * BUDGET_PER_BYTE + MAX_READINGS * BUDGET_PER_ENTRY)
            .min(Semaphore::MAX_PERMITS);
        Self {
            max_bytes,
            budget: Arc::new(Semaphore::new(budget)),
        }
    }

    /// Receives a body and decompresses it.
    ///
    /// # Errors
    /// 400, 408, 413, 415 or 503.
    pub(crate) async fn read(
        &self,
        headers: BodyHeaders,
        format: &Format,
        mut body: Body,
    ) -> Result<BodyBytes, ApiError> {
        let bytes = self.receive(headers, format, &mut body).await;
        // A client that waits for `100 Continue` has sent nothing yet.
        if bytes.is_err() && !headers.expects_continue {
            let _timed_out = tokio::time::timeout(DISCARD_TIMEOUT, self.discard(body)).await;
        }
        bytes
    }

    /// Discards the rest of a body, up to the limit on one body.
    async fn discard(&self, mut body: Body) {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > self.max_bytes {
                return;
            }
        }
    }

    async fn receive(
        &self,
        headers: BodyHeaders,
        format: &Format,
        body: &mut Body,
    ) -> Result<BodyBytes, ApiError> {
        let encoding = headers.encoding.ok_or(ApiError::UnsupportedEncoding)?;
        if headers.length > self.max_bytes {
            return Err(ApiError::BodyTooLarge(self.max_bytes));
        }
        let collecting = self.collect(body, headers.length);
        let (bytes, mut permit) = tokio::time::timeout(ARRIVAL_TIMEOUT, collecting)
            .await
            .map_err(|_| ApiError::BodyTimeout(ARRIVAL_TIMEOUT.as_secs()))??;
        let bytes = match encoding {
            Encoding::Identity => bytes,
            _ if bytes.len() > LARGE => {
                tokio::task::block_in_place(|| self.decompress(encoding, bytes, &mut permit))?
            }
            _ => self.decompress(encoding, bytes, &mut permit)?,
        };
        // The parsed entries may need more memory than the bytes: `0,` is an entry of an array.
        let entries = (format.max_entries)(&bytes).min(MAX_READINGS);
        permit.merge(self.acquire(entries * BUDGET_PER_ENTRY)?);
        Ok(BodyBytes {
            bytes,
            _permit: permit,
        })
    }

    async fn collect(
        &self,
        body: &mut Body,
        expected_length: usize,
    ) -> Result<(Bytes, OwnedSemaphorePermit), ApiError> {
        let mut permit = self.acquire(0)?;
        let mut whole = BytesMut::with_capacity(expected_length.min(CHUNK));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::BodyIncomplete(error.to_string()))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if whole.len() + data.len() > self.max_bytes {
                return Err(ApiError::BodyTooLarge(self.max_bytes));
            }
            permit.merge(self.acquire(data.len() * BUDGET_PER_BYTE)?);
            whole.extend_from_slice(&data);
        }
        Ok((whole.freeze(), permit))
    }

    fn decompress(
        &self,
        encoding: Encoding,
        bytes: Bytes,
        permit: &mut OwnedSemaphorePermit,
    ) -> Result<Bytes, ApiError> {
        match encoding {
            Encoding::Identity => Ok(bytes),
            Encoding::Gzip => self.inflate(flate2::read::MultiGzDecoder::new(&bytes[..]), permit),
            Encoding::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&bytes[..]).map_err(|e| broken(&e))?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG)
                    .map_err(|e| broken(&e))?;
                self.inflate(decoder, permit)
            }
        }
    }

    fn inflate(
        &self,
        mut decoder: impl Read,
        permit: &mut OwnedSemaphorePermit,
    ) -> Result<Bytes, ApiError> {
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
                return Err(ApiError::BodyTooLarge(self.max_bytes));
            }
            permit.merge(self.acquire((whole.len() - before) * BUDGET_PER_BYTE)?);
        }
    }

    fn acquire(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let permits = u32::try_from(bytes).map_err(|_| ApiError::BodyTooLarge(self.max_bytes))?;
        self.budget
            .clone()
            .try_acquire_many_owned(permits)
            .map_err(|_| ApiError::TooManyBodies)
    }
}

fn broken(error: &std::io::Error) -> ApiError {
    ApiError::BadCompression(error.to_string())
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

//! Bodies: the bytes of a request, received and decompressed within limits.
//!
//! In: a body of unknown length from an untrusted client. Out: its bytes, and a permit of the
//! process's memory budget for bodies, which is returned when they are dropped. A body that is too
//! long, too slow or broken, or exceeds the budget, is an error, and nothing of it is kept. The
//! rest of a refused body is received for a while and discarded: a connection that is closed with
//! unread bytes is reset, and the client would not see the response. Receiving and discarding
//! together have one time limit.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use service::ApiError;
use service::quote::quote;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

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
    arrival_timeout: Duration,
    discard_timeout: Duration,
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
#[derive(Debug, Clone)]
pub(crate) struct BodyHeaders {
    /// The value of the header if it is not supported.
    encoding: Result<Encoding, String>,
    /// In bytes; 0 if it is not stated.
    length: usize,
    /// The text is UTF-16 or UTF-32.
    is_wide: bool,
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
            encoding: Encoding::of(headers),
            length: length.unwrap_or(0),
            is_wide: headers
                .get(header::CONTENT_TYPE)
                .is_some_and(has_wide_charset),
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
            arrival_timeout: ARRIVAL_TIMEOUT,
            discard_timeout: DISCARD_TIMEOUT,
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
        let deadline = Instant::now() + self.arrival_timeout;
        let expects_continue = headers.expects_continue;
        let bytes = self.receive(headers, format, &mut body, deadline).await;
        // A client that waits for `100 Continue` has sent nothing yet.
        if bytes.is_err() && !expects_continue {
            let deadline = deadline.min(Instant::now() + self.discard_timeout);
            let _timed_out = tokio::time::timeout_at(deadline, self.discard(body)).await;
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
        deadline: Instant,
    ) -> Result<BodyBytes, ApiError> {
        let encoding = headers.encoding.map_err(ApiError::UnsupportedEncoding)?;
        if headers.is_wide {
            return Err(ApiError::WideText);
        }
        if headers.length > self.max_bytes {
            return Err(ApiError::BodyTooLarge(self.max_bytes));
        }
        let collecting = self.collect(body, headers.length);
        let (bytes, mut permit) = tokio::time::timeout_at(deadline, collecting)
            .await
            .map_err(|_| ApiError::BodyTimeout(self.arrival_timeout.as_secs()))??;
        let bytes = match encoding {
            Encoding::Identity => bytes,
            _ if bytes.len() > LARGE => {
                tokio::task::block_in_place(|| self.decompress(encoding, bytes, &mut permit))?
            }
            _ => self.decompress(encoding, bytes, &mut permit)?,
        };
        if is_wide(&bytes) {
            return Err(ApiError::WideText);
        }
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
    /// The encoding of a body. Several in a row are not supported.
    fn of(headers: &HeaderMap) -> Result<Self, String> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(first) = values.next() else {
            return Ok(Self::Identity);
        };
        let encoding = match first.as_bytes().to_ascii_lowercase().as_slice() {
            b"identity" => Some(Self::Identity),
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        };
        let others: Vec<_> = values.collect();
        encoding.filter(|_| others.is_empty()).ok_or_else(|| {
            let values = [first].into_iter().chain(others);
            let values: Vec<_> = values
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            quote(&values.join(", "))
        })
    }
}

/// Whether a `Content-Type` states UTF-16 or UTF-32.
fn has_wide_charset(content_type: &HeaderValue) -> bool {
    let content_type = content_type.as_bytes();
    let Some(at) = content_type.iter().position(|&byte| byte == b';') else {
        return false;
    };
    let parameters = &content_type[at..];
    ["utf-16", "utf16", "utf-32", "utf32", "ucs-2"]
        .iter()
        .any(|charset| {
            parameters
                .windows(charset.len())
                .any(|part| part.eq_ignore_ascii_case(charset.as_bytes()))
        })
}

/// Whether a body is UTF-16 or UTF-32: it begins with a byte order mark, or one of its first two
/// bytes is zero, which no text in UTF-8 has.
fn is_wide(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..]
    )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use transport::testing::within_limit;

    use super::*;

    /// A limit beyond that of the test.
    const NEVER: Duration = Duration::from_secs(86_400);

    /// The error of a body that begins and never ends.
    async fn read_endless(bodies: &Bodies, headers: &[(&'static str, &'static str)]) -> ApiError {
        let headers = headers.iter().map(|(name, value)| {
            (
                header::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let headers = BodyHeaders::new(&headers.collect());
        let format = Format::from_content_type(None).unwrap();
        let begin = Ok::<_, Infallible>(Bytes::from_static(b"[{\"device\":"));
        let chunks = futures_util::stream::iter([begin]);
        let endless = futures_util::StreamExt::chain(chunks, futures_util::stream::pending());
        let read = bodies.read(headers, format, Body::from_stream(endless));
        within_limit("the body has an outcome", read)
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_in_time_is_refused_without_waiting_for_its_rest() {
        let bodies = Bodies {
            arrival_timeout: Duration::from_millis(10),
            discard_timeout: NEVER,
            ..Bodies::new(1_000, 0)
        };
        assert_eq!(read_endless(&bodies, &[]).await, ApiError::BodyTimeout(0));
        // The rest of a body that is refused for another reason has no more time either.
        let headers = [("content-length", "1001")];
        let error = read_endless(&bodies, &headers).await;
        assert_eq!(error, ApiError::BodyTooLarge(1_000));
    }

    #[tokio::test]
    async fn the_rest_of_a_refused_body_is_discarded_for_a_limited_time() {
        let bodies = Bodies {
            arrival_timeout: NEVER,
            discard_timeout: Duration::from_millis(10),
            ..Bodies::new(1_000, 0)
        };
        let headers = [("content-length", "1001")];
        let error = read_endless(&bodies, &headers).await;
        assert_eq!(error, ApiError::BodyTooLarge(1_000));
    }
}

//! A response that is produced while it is sent.
//!
//! In: chunks from a task. Out: the body of a response, with a trailer at its end. The channel
//! holds a few chunks, so that memory does not depend on the size of the response. When the client
//! disconnects, the channel closes and the task ends, also in the middle of a slice. When the task
//! fails, the body breaks off, which HTTP shows to the client.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::Frame;
use service::ApiError;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use crate::error::QueryError;

/// Chunks that are ready and not sent.
const CHUNKS: usize = 4;
/// The size at which a chunk is sent.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// The number of rows, after the body.
const ROWS: HeaderName = HeaderName::from_static("gridwatch-rows");
/// Where the next page starts, after the body of a response that `limit` has cut off.
const NEXT: HeaderName = HeaderName::from_static("gridwatch-next");
/// The trailers that a response may have.
const TRAILERS: HeaderValue = HeaderValue::from_static("gridwatch-rows, gridwatch-next");

/// The end of a task that produces a response.
pub(crate) struct Output {
    sender: mpsc::Sender<Result<Frame<Bytes>, QueryError>>,
    buffer: Vec<u8>,
}

/// The client has disconnected.
#[derive(Debug)]
pub(crate) struct Disconnected;

impl Output {
    /// What is to be sent next.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Sends the buffer if it is large enough for a chunk.
    pub(crate) async fn send_if_full(&mut self) -> Result<(), Disconnected> {
        if self.buffer.len() >= CHUNK_BYTES {
            self.send().await?;
        }
        Ok(())
    }

    /// Waits until the client disconnects.
    pub(crate) async fn closed(&self) -> Disconnected {
        self.sender.closed().await;
        Disconnected
    }

    /// Waits for a result, unless the client disconnects before.
    pub(crate) async fn unless_closed<T>(
        &self,
        result: impl Future<Output = T>,
    ) -> Result<T, Disconnected> {
        tokio::select! {
            result = result => Ok(result),
            disconnected = self.closed() => Err(disconnected),
        }
    }

    /// Sends the buffer.
    pub(crate) async fn send(&mut self) -> Result<(), Disconnected> {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        let sent = self.sender.send(Ok(Frame::data(chunk))).await;
        sent.map_err(|_| Disconnected)
    }

    /// Sends the rest, and as trailers the number of rows and where the next page starts.
    pub(crate) async fn finish(
        mut self,
        rows: u64,
        next: Option<&str>,
    ) -> Result<(), Disconnected> {
        self.send().await?;
        let mut trailers = HeaderMap::new();
        trailers.insert(ROWS, HeaderValue::from(rows));
        if let Some(next) = next.and_then(|next| HeaderValue::from_str(next).ok()) {
            trailers.insert(NEXT, next);
        }
        let sent = self.sender.send(Ok(Frame::trailers(trailers))).await;
        sent.map_err(|_| Disconnected)
    }

    /// Sends the rest and breaks off.
    pub(crate) async fn fail(mut self, error: QueryError) -> Result<(), Disconnected> {
        tracing::warn!(%error, "a response broke off");
        if !self.buffer.is_empty() {
            self.send().await?;
        }
        self.sender.send(Err(error)).await.map_err(|_| Disconnected)
    }
}

/// The response of a task that writes to an [`Output`]. An error before the first chunk is the
/// response.
///
/// # Errors
/// The error that the task began with.
pub(crate) async fn respond<F>(
    media_type: &'static str,
    produce: impl FnOnce(Output) -> F,
) -> Result<Response, ApiError>
where
    F: Future<Output = Result<(), Disconnected>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(CHUNKS);
    let output = Output {
        sender,
        buffer: Vec::new(),
    };
    // What the task logs belongs to the request.
    tokio::spawn(produce(output).in_current_span());
    let first = match receiver.recv().await {
        None => return Err(ApiError::Internal),
        Some(Err(error)) => return Err(ApiError::from(&error)),
        Some(Ok(frame)) => Some(frame),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::TRAILER, TRAILERS),
    ];
    let body = Body::new(ChannelBody { first, receiver });
    Ok((headers, body).into_response())
}

struct ChannelBody {
    first: Option<Frame<Bytes>>,
    receiver: mpsc::Receiver<Result<Frame<Bytes>, QueryError>>,
}

impl hyper::body::Body for ChannelBody {
    type Data = Bytes;
    type Error = QueryError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, QueryError>>> {
        match self.first.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.receiver.poll_recv(context),
        }
    }
}

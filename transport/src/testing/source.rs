//! A source that delivers what the test gives it, and reports what is called on it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::Batch;
use tokio::sync::mpsc;

use super::{CAPACITY, within_limit};
use crate::{Delivery, DeliveryTag, Payload, Source};

/// The source.
#[derive(Debug)]
pub struct ScriptedSource {
    deliveries: mpsc::Receiver<Delivery>,
    calls: mpsc::Sender<SourceCall>,
}

/// A call of a method that has an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceCall {
    /// [`Source::acknowledge_through`].
    AcknowledgeThrough(DeliveryTag),
    /// [`Source::reject`].
    Reject(DeliveryTag),
    /// [`Source::close`].
    Close,
}

/// The other end of a [`ScriptedSource`].
#[derive(Debug)]
pub struct SourceControl {
    deliveries: mpsc::Sender<Delivery>,
    calls: mpsc::Receiver<SourceCall>,
    last: DeliveryTag,
}

impl ScriptedSource {
    /// A source and its control.
    pub fn new() -> (Self, SourceControl) {
        let (deliveries, receiver) = mpsc::channel(CAPACITY);
        let (calls, called) = mpsc::channel(CAPACITY);
        let source = Self {
            deliveries: receiver,
            calls,
        };
        let control = SourceControl {
            deliveries,
            calls: called,
            last: DeliveryTag {
                generation: 1,
                tag: 0,
            },
        };
        (source, control)
    }

    fn report(&self, call: SourceCall) {
        // The intake may close the source after the test has ended.
        if self.calls.capacity() > 0 {
            let _ = self.calls.try_send(call);
        } else {
            panic!("the test does not receive the calls of its source");
        }
    }
}

impl Source for ScriptedSource {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        async {
            match self.deliveries.recv().await {
                Some(delivery) => delivery,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn try_next(&mut self) -> Option<Delivery> {
        self.deliveries.try_recv().ok()
    }

    fn acknowledge_through(&mut self, tag: DeliveryTag) -> BoxFuture<'_, ()> {
        self.report(SourceCall::AcknowledgeThrough(tag));
        std::future::ready(()).boxed()
    }

    fn reject(&mut self, tag: DeliveryTag) -> BoxFuture<'_, bool> {
        self.report(SourceCall::Reject(tag));
        std::future::ready(true).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.report(SourceCall::Close);
        std::future::ready(()).boxed()
    }
}

impl SourceControl {
    /// Delivers a batch.
    pub fn deliver(&mut self, batch: Batch) -> DeliveryTag {
        self.send(Payload::Batch(Arc::new(batch)))
    }

    /// Delivers the bytes of a message.
    pub fn deliver_message(&mut self, message: impl Into<Bytes>) -> DeliveryTag {
        self.send(Payload::Message(message.into()))
    }

    fn send(&mut self, payload: Payload) -> DeliveryTag {
        self.last.tag += 1;
        let tag = self.last;
        self.deliveries.try_send(Delivery { tag, payload }).unwrap();
        tag
    }

    /// The source connects again: later deliveries have a new generation.
    pub fn reconnect(&mut self) {
        self.last = DeliveryTag {
            generation: self.last.generation + 1,
            tag: 0,
        };
    }

    /// The next call.
    ///
    /// # Panics
    /// There is none within the limit.
    pub async fn next_call(&mut self) -> SourceCall {
        let call = within_limit("the source is called", self.calls.recv()).await;
        call.expect("the source exists")
    }

    /// The next call, if it was made already.
    pub fn try_next_call(&mut self) -> Option<SourceCall> {
        self.calls.try_recv().ok()
    }
}

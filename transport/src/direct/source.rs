//! The source of direct mode.

use std::collections::VecDeque;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::PendingBatch;
use crate::{Delivery, DeliveryTag, Payload, Source};

/// There is one connection, which never breaks.
const GENERATION: u64 = 1;

/// Receives batches from the front end of this process.
#[derive(Debug)]
pub struct DirectSource {
    batches: mpsc::Receiver<PendingBatch>,
    /// The unacknowledged deliveries, by their tags.
    pending: VecDeque<(u64, oneshot::Sender<()>)>,
    last_tag: u64,
}

impl DirectSource {
    pub(super) fn new(batches: mpsc::Receiver<PendingBatch>) -> Self {
        Self {
            batches,
            pending: VecDeque::new(),
            last_tag: 0,
        }
    }

    fn deliver(&mut self, (batch, reply): PendingBatch) -> Delivery {
        self.last_tag += 1;
        self.pending.push_back((self.last_tag, reply));
        Delivery {
            tag: DeliveryTag {
                generation: GENERATION,
                tag: self.last_tag,
            },
            payload: Payload::Batch(batch),
        }
    }
}

impl Source for DirectSource {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        async {
            match self.batches.recv().await {
                Some(pending) => self.deliver(pending),
                // The front end has ended: there will be no more batches.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn try_next(&mut self) -> Option<Delivery> {
        let pending = self.batches.try_recv().ok()?;
        Some(self.deliver(pending))
    }

    fn acknowledge_through(&mut self, tag: DeliveryTag) -> BoxFuture<'_, ()> {
        while self.pending.front().is_some_and(|(own, _)| *own <= tag.tag) {
            if let Some((_, reply)) = self.pending.pop_front() {
                // An error means that the front end no longer waits for this batch.
                let _ = reply.send(());
            }
        }
        std::future::ready(()).boxed()
    }

    fn reject(&mut self, _: DeliveryTag) -> BoxFuture<'_, bool> {
        // Never called: a batch that was not encoded cannot fail to decode.
        std::future::ready(false).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.batches.close();
        // Dropping the replies notifies the front end that these batches are unconfirmed.
        self.pending.clear();
        std::future::ready(()).boxed()
    }
}

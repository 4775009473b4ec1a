//! Direct mode: a sink and a source back to back, without a queue between them.
//!
//! In: batches of the front end. Out: the same batches to the intake of a worker in the same process, which stores them as it
//! stores those of a queue. A batch is delivered when the worker acknowledges it, which is after its commit.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::Batch;
use service::sink::{Sink, SinkError};
use service::source::{Delivery, Payload, Source, Token};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

type Handed = (Arc<Batch>, oneshot::Sender<()>);

/// The side of the front end.
#[derive(Debug)]
pub struct DirectSink(mpsc::Sender<Handed>);

/// The side of the worker.
#[derive(Debug)]
pub struct DirectSource {
    batches: mpsc::Receiver<Handed>,
    /// Who waits for each delivery that is not acknowledged, by its tag.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    last: u64,
}

/// Both sides; as many batches wait between them as may be.
pub fn pair(capacity: usize) -> (DirectSink, DirectSource) {
    let (sender, batches) = mpsc::channel(capacity);
    (
        DirectSink(sender),
        DirectSource {
            batches,
            waiting: VecDeque::new(),
            last: 0,
        },
    )
}

impl Sink for DirectSink {
    fn deliver(
        &self,
        batch: Arc<Batch>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), SinkError>> {
        async move {
            let (reply, stored) = oneshot::channel();
            match tokio::time::timeout_at(deadline, self.0.send((batch, reply))).await {
                Err(_) => return Err(SinkError::Refused("PostgreSQL takes nothing".into())),
                Ok(Err(_)) => return Err(SinkError::Refused("the process is stopping".into())),
                Ok(Ok(())) => {}
            }
            stored
                .await
                .map_err(|_| SinkError::Unconfirmed("the process is stopping".into()))
        }
        .boxed()
    }
}

impl DirectSource {
    fn hand_out(&mut self, (batch, reply): Handed) -> Delivery {
        self.last += 1;
        self.waiting.push_back((self.last, reply));
        Delivery {
            token: Token {
                generation: 1,
                tag: self.last,
            },
            payload: Payload::Batch(batch),
        }
    }
}

impl Source for DirectSource {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        async {
            match self.batches.recv().await {
                Some(handed) => self.hand_out(handed),
                // The front end has ended: there will be no more.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn ready(&mut self) -> Option<Delivery> {
        let handed = self.batches.try_recv().ok()?;
        Some(self.hand_out(handed))
    }

    fn acknowledge_through(&mut self, token: Token) -> BoxFuture<'_, ()> {
        while self
            .waiting
            .front()
            .is_some_and(|(tag, _)| *tag <= token.tag)
        {
            if let Some((_, reply)) = self.waiting.pop_front() {
                // Whoever has gone does not hear it.
                let _ = reply.send(());
            }
        }
        std::future::ready(()).boxed()
    }

    fn reject(&mut self, _: Token) -> BoxFuture<'_, bool> {
        // Never asked: a batch that was not encoded cannot fail to be decoded.
        std::future::ready(false).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.batches.close();
        // Whoever still waits learns that no word will come.
        self.waiting.clear();
        std::future::ready(()).boxed()
    }
}

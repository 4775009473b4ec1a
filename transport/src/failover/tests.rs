//! The failover with a primary that the test controls.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::Batch;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::FailoverSink;
use crate::spool::{self, Guard, Spool, SpoolSource};
use crate::{Sink, SinkError};

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Primary {
    Confirms,
    Refuses,
    Silent,
}

/// Behaves like the current value, and reports the batches that it has confirmed.
struct ControlledPrimary {
    behaviour: watch::Receiver<Primary>,
    confirmed: mpsc::UnboundedSender<Uuid>,
}

impl Sink for ControlledPrimary {
    fn deliver(&self, batch: Arc<Batch>, _: Instant) -> BoxFuture<'_, Result<(), SinkError>> {
        let mut behaviour = self.behaviour.clone();
        async move {
            let not_silent = behaviour.wait_for(|behaviour| *behaviour != Primary::Silent);
            if *not_silent.await.unwrap() == Primary::Refuses {
                return Err(SinkError::Refused("unavailable".into()));
            }
            self.confirmed.send(batch.id).unwrap();
            Ok(())
        }
        .boxed()
    }
}

fn primary(
    behaviour: Primary,
) -> (
    Arc<ControlledPrimary>,
    watch::Sender<Primary>,
    mpsc::UnboundedReceiver<Uuid>,
) {
    let (control, behaviour) = watch::channel(behaviour);
    let (confirmed, confirmations) = mpsc::unbounded_channel();
    let primary = ControlledPrimary {
        behaviour,
        confirmed,
    };
    (Arc::new(primary), control, confirmations)
}

fn open(directory: &tempfile::TempDir) -> (Spool, SpoolSource, Guard) {
    let config = spool::Config {
        directory: directory.path().to_owned(),
        max_bytes: 1024 * 1024,
        segment_bytes: 1024 * 1024,
    };
    spool::open(config, super::WINDOW).unwrap()
}

#[tokio::test]
async fn a_batch_that_the_primary_refuses_is_spooled_and_drained_later() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, source, _guard) = open(&directory);
    let (primary, control, mut confirmations) = primary(Primary::Refuses);
    let stop = CancellationToken::new();
    let (sink, task) = FailoverSink::start(primary, spool.clone(), source, DEADLINE, stop.clone());
    let batch = Arc::new(Batch::new());
    let delivered = sink.deliver(batch.clone(), Instant::now() + DEADLINE).await;
    assert_eq!(delivered, Ok(()));
    assert_eq!(spool.depth().records, 1);
    control.send_replace(Primary::Confirms);
    assert_eq!(confirmations.recv().await, Some(batch.id));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn stopping_waits_for_a_confirmation_that_is_pending() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, source, _guard) = open(&directory);
    let (primary, control, mut confirmations) = primary(Primary::Silent);
    let (stop, primary_timeout) = (CancellationToken::new(), Duration::ZERO);
    let (sink, task) = FailoverSink::start(
        primary,
        spool.clone(),
        source,
        primary_timeout,
        stop.clone(),
    );
    let batch = Arc::new(Batch::new());
    let delivered = sink.deliver(batch.clone(), Instant::now() + DEADLINE).await;
    assert_eq!(delivered, Ok(()));
    assert_eq!(spool.depth().records, 1);
    stop.cancel();
    // Enough for a task that does not wait for the attempt to end.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!task.is_finished(), "the confirmation was not awaited");
    control.send_replace(Primary::Confirms);
    task.await.unwrap();
    assert_eq!(confirmations.try_recv(), Ok(batch.id));
}

//! The failover with a primary that the test controls.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::Batch;
use testbed::wait::{until, until_async};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::FailoverSink;
use crate::spool::{self, Guard, Spool, SpoolSource};
use crate::testing::{LIMIT, RecordingSink, SentBatch, SentBatches, within_limit};
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
    confirmed: mpsc::Sender<Uuid>,
}

impl Sink for ControlledPrimary {
    fn deliver(&self, batch: Arc<Batch>, _: Instant) -> BoxFuture<'_, Result<(), SinkError>> {
        let mut behaviour = self.behaviour.clone();
        async move {
            let not_silent = behaviour.wait_for(|behaviour| *behaviour != Primary::Silent);
            if *not_silent.await.unwrap() == Primary::Refuses {
                return Err(SinkError::Refused("unavailable".into()));
            }
            self.confirmed.try_send(batch.id).unwrap();
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
    mpsc::Receiver<Uuid>,
) {
    let (control, behaviour) = watch::channel(behaviour);
    let (confirmed, confirmations) = mpsc::channel(8);
    let primary = ControlledPrimary {
        behaviour,
        confirmed,
    };
    (Arc::new(primary), control, confirmations)
}

fn open(directory: &tempfile::TempDir) -> (Spool, SpoolSource, Guard) {
    open_with_limit(directory, 1024 * 1024)
}

fn open_with_limit(directory: &tempfile::TempDir, max_bytes: u64) -> (Spool, SpoolSource, Guard) {
    let config = spool::Config {
        directory: directory.path().to_owned(),
        max_bytes,
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

/// Appends this many batches to the spool, and returns their ids.
async fn append_batches(spool: &Spool, count: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let batch = Arc::new(Batch::new());
        ids.push(batch.id);
        let appended = spool.deliver(batch, Instant::now() + DEADLINE).await;
        assert_eq!(appended, Ok(()));
    }
    ids
}

/// The next attempt of the drain: it sends its batches all at once, and then waits.
async fn next_attempt(sent: &mut SentBatches) -> Vec<SentBatch> {
    let mut attempt = vec![sent.next().await];
    attempt.extend(std::iter::from_fn(|| sent.try_next()));
    attempt
}

fn ids(attempt: &[SentBatch]) -> Vec<Uuid> {
    attempt.iter().map(|sent| sent.batch.id).collect()
}

async fn wait_until_empty(spool: &Spool) {
    let is_empty = async || spool.depth().records == 0;
    until_async("the spool is empty", LIMIT, is_empty).await;
}

#[tokio::test]
async fn the_drain_keeps_what_the_primary_refuses_until_all_of_it_has_arrived_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, source, _guard) = open(&directory);
    let mut spooled = append_batches(&spool, 5).await;
    until("all batches are read", LIMIT, || source.read_ahead() == 5);
    let (primary, mut sent) = RecordingSink::new();
    let stop = CancellationToken::new();
    let (sink, task) = FailoverSink::start(primary, spool.clone(), source, DEADLINE, stop.clone());

    // An outage of several attempts: each has the same batches.
    for refuse in [SentBatch::refuse, SentBatch::leave_unconfirmed] {
        let attempt = next_attempt(&mut sent).await;
        assert_eq!(ids(&attempt), spooled);
        let has_time = |batch: &SentBatch| batch.deadline > Instant::now();
        assert!(attempt.iter().all(has_time), "the primary has no time");
        attempt.into_iter().for_each(refuse);
    }
    // The attempts have shown that the primary is down, so that it does not receive this batch. The
    // writer of the spool processes acknowledgements and appends in order: after this append it has
    // processed what the attempts acknowledged.
    let batch = Arc::new(Batch::new());
    spooled.push(batch.id);
    let delivered = sink.deliver(batch, Instant::now() + DEADLINE).await;
    assert_eq!(delivered, Ok(()));
    assert_eq!(
        spool.depth().records,
        6,
        "the drain acknowledged refused batches"
    );

    // A batch after a refused one is delivered again, although it was confirmed.
    let attempt = next_attempt(&mut sent).await;
    assert_eq!(ids(&attempt), spooled[..5]);
    for (index, batch) in attempt.into_iter().enumerate() {
        if index == 2 {
            batch.refuse();
        } else {
            batch.confirm();
        }
    }
    let attempt = next_attempt(&mut sent).await;
    assert_eq!(ids(&attempt), spooled[2..5]);
    attempt.into_iter().for_each(SentBatch::confirm);
    let attempt = next_attempt(&mut sent).await;
    assert_eq!(ids(&attempt), spooled[5..]);
    attempt.into_iter().for_each(SentBatch::confirm);
    wait_until_empty(&spool).await;
    stop.cancel();
    within_limit("the drain ends", task).await.unwrap();
}

#[tokio::test]
async fn what_the_primary_has_not_confirmed_is_drained_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, source, guard) = open(&directory);
    let spooled = append_batches(&spool, 4).await;
    until("all batches are read", LIMIT, || source.read_ahead() == 4);
    let (primary, mut sent) = RecordingSink::new();
    let stop = CancellationToken::new();
    let (_sink, task) = FailoverSink::start(primary, spool, source, DEADLINE, stop.clone());
    let mut attempt = next_attempt(&mut sent).await;
    attempt.remove(0).confirm();
    attempt.into_iter().for_each(SentBatch::refuse);
    // The next attempt begins after the acknowledgement of this one.
    let pending = next_attempt(&mut sent).await;
    assert_eq!(ids(&pending), spooled[1..]);
    stop.cancel();
    within_limit("the drain ends", task).await.unwrap();
    guard.close();

    let (spool, source, _guard) = open(&directory);
    until("all batches are read", LIMIT, || source.read_ahead() == 3);
    let (primary, mut sent) = RecordingSink::new();
    let stop = CancellationToken::new();
    let (_sink, _task) = FailoverSink::start(primary, spool.clone(), source, DEADLINE, stop);
    let attempt = next_attempt(&mut sent).await;
    assert_eq!(ids(&attempt), spooled[1..]);
    attempt.into_iter().for_each(SentBatch::confirm);
    wait_until_empty(&spool).await;
}

#[tokio::test]
async fn batches_go_to_the_spool_until_the_drain_shows_that_the_primary_is_available() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, source, _guard) = open(&directory);
    let (primary, mut sent) = RecordingSink::new();
    let stop = CancellationToken::new();
    let (sink, _task) = FailoverSink::start(primary, spool.clone(), source, DEADLINE, stop);
    let deliver = async || {
        let batch = Arc::new(Batch::new());
        let id = batch.id;
        assert_eq!(sink.deliver(batch, Instant::now() + DEADLINE).await, Ok(()));
        id
    };
    // A sink that panics may have stored the batch: it goes to the spool too.
    let (first, ()) = tokio::join!(deliver(), async { sent.next().await.panic() });
    let drained = sent.next().await;
    assert_eq!(drained.batch.id, first);
    // The primary receives this one only from the spool.
    let second = deliver().await;
    assert_eq!(spool.depth().records, 2);
    drained.confirm();
    let drained = sent.next().await;
    assert_eq!(drained.batch.id, second);
    drained.confirm();
    wait_until_empty(&spool).await;
    // The primary is available again.
    let (third, received) = tokio::join!(deliver(), async {
        let batch = sent.next().await;
        let id = batch.batch.id;
        batch.confirm();
        id
    });
    assert_eq!((third, spool.depth().records), (received, 0));
}

#[tokio::test]
async fn when_the_spool_is_full_the_outcome_is_that_of_the_primary() {
    for (respond, expected) in [
        (SentBatch::refuse as fn(SentBatch), false),
        (SentBatch::leave_unconfirmed, true),
        (SentBatch::panic, true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (spool, source, _guard) = open_with_limit(&directory, 1);
        let (primary, mut sent) = RecordingSink::new();
        let stop = CancellationToken::new();
        let (sink, _task) = FailoverSink::start(primary, spool, source, DEADLINE, stop);
        let delivering = sink.deliver(Arc::new(Batch::new()), Instant::now() + DEADLINE);
        let (outcome, ()) = tokio::join!(delivering, async { respond(sent.next().await) });
        let may_be_stored = matches!(outcome, Err(SinkError::Unconfirmed(_)));
        assert!(outcome.is_err());
        assert_eq!(may_be_stored, expected, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_record_that_is_not_a_batch_is_quarantined_and_blocks_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, source, _guard) = open(&directory);
    spool.append("not a batch".into(), 1).await.unwrap();
    let spooled = append_batches(&spool, 1).await;
    let (primary, mut sent) = RecordingSink::new();
    let stop = CancellationToken::new();
    let (_sink, _task) = FailoverSink::start(primary, spool.clone(), source, DEADLINE, stop);
    let batch = sent.next().await;
    assert_eq!(batch.batch.id, spooled[0]);
    batch.confirm();
    wait_until_empty(&spool).await;
    let rejected = directory.path().join("rejected").read_dir().unwrap();
    let contents = rejected.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    assert_eq!(contents.collect::<Vec<_>>(), [b"not a batch"]);
}

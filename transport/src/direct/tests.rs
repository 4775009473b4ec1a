//! Direct mode, with the test in place of the worker.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use schema::Batch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{DirectSink, pair};
use crate::testing::{run_other_tasks, within_limit};
use crate::{Payload, Sink as _, SinkError, Source as _};

/// Delivers batches in order, each in a task that returns its outcome.
async fn deliver(
    sink: &Arc<DirectSink>,
    batches: &[Arc<Batch>],
) -> Vec<JoinHandle<Result<(), SinkError>>> {
    let mut delivering = Vec::new();
    for batch in batches {
        let (sink, batch) = (sink.clone(), batch.clone());
        let deadline = Instant::now() + Duration::from_secs(60);
        delivering.push(tokio::spawn(
            async move { sink.deliver(batch, deadline).await },
        ));
        run_other_tasks().await;
    }
    delivering
}

fn batches(count: usize) -> Vec<Arc<Batch>> {
    std::iter::repeat_with(|| Arc::new(Batch::new()))
        .take(count)
        .collect()
}

#[tokio::test]
async fn an_acknowledgement_confirms_every_batch_up_to_its_delivery() {
    let (sink, mut source) = pair(8);
    let sent = batches(3);
    let delivering = deliver(&Arc::new(sink), &sent).await;
    let mut tags = vec![source.next().await];
    tags.extend(std::iter::from_fn(|| source.try_next()));
    for (delivery, batch) in tags.iter().zip(&sent) {
        assert!(matches!(&delivery.payload, Payload::Batch(own) if Arc::ptr_eq(own, batch)));
    }
    source.acknowledge_through(tags[1].tag).await;
    run_other_tasks().await;
    let finished: Vec<bool> = delivering.iter().map(JoinHandle::is_finished).collect();
    assert_eq!(finished, [true, true, false]);
    source.acknowledge_through(tags[2].tag).await;
    for delivery in delivering {
        let outcome = within_limit("the batch is confirmed", delivery).await;
        assert_eq!(outcome.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn closing_the_source_leaves_received_batches_unconfirmed_and_refuses_later_ones() {
    let (sink, mut source) = pair(8);
    let sink = Arc::new(sink);
    let mut delivering = deliver(&sink, &batches(1)).await;
    source.next().await;
    source.close().await;
    let outcome = within_limit("the batch has its outcome", delivering.remove(0)).await;
    assert!(matches!(outcome.unwrap(), Err(SinkError::Unconfirmed(_))));
    let refused = sink.deliver(Arc::new(Batch::new()), Instant::now()).await;
    assert!(matches!(refused, Err(SinkError::Refused(_))));
}

#[tokio::test]
async fn a_batch_is_refused_when_the_worker_receives_nothing_until_the_deadline() {
    let (sink, mut source) = pair(1);
    let sink = Arc::new(sink);
    let sent = batches(1);
    let _delivering = deliver(&sink, &sent).await;
    let refused = sink.deliver(Arc::new(Batch::new()), Instant::now()).await;
    assert!(matches!(refused, Err(SinkError::Refused(_))));
    // The refused batch is not delivered.
    assert!(source.try_next().is_some());
    assert!(source.next().now_or_never().is_none());
}

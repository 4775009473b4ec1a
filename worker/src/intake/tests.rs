//! Intake and acknowledgement, with a source and a writer that the test controls.

use std::time::Duration;

use schema::batch::Receipt;
use schema::partition::{DAY, MAX_DAYS};
use schema::{Batch, Reading};
use service::health::Health;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transport::testing::{
    Counters, ScriptedSource, SourceCall, SourceControl, run_other_tasks, within_limit,
};

use super::*;

const BEGIN: i64 = 1_790_000_000_000_000;

/// A transaction that the writer has received and that is open until it gets a result. If it is
/// dropped without a result, the writer panics.
#[derive(Debug)]
struct OpenTransaction {
    /// The series of each batch: the tests give each batch one of its own.
    batches: Vec<i32>,
    rows: usize,
    /// The code of each poison message.
    poison: Vec<&'static str>,
    generation: u64,
    result: oneshot::Sender<Result<(), WriteError>>,
}

impl OpenTransaction {
    fn commit(self) {
        self.result.send(Ok(())).unwrap();
    }

    fn stop(self) {
        self.result.send(Err(WriteError::Stopped)).unwrap();
    }

    fn fail(self) {
        let fatal = WriteError::Fatal("the table is missing".into());
        self.result.send(Err(fatal)).unwrap();
    }
}

/// Hands every transaction to the test.
struct ControlledWriter(mpsc::Sender<OpenTransaction>);

impl TransactionWriter for ControlledWriter {
    async fn write(&self, transaction: &PendingTransaction) -> Result<(), WriteError> {
        let (result, decided) = oneshot::channel();
        let series = |received: &store::transaction::ReceivedBatch| received.batch.series_id[0];
        let open = OpenTransaction {
            batches: transaction.batches.iter().map(series).collect(),
            rows: transaction.rows,
            poison: transaction
                .poison
                .iter()
                .map(|poison| poison.code)
                .collect(),
            generation: transaction.generation,
            result,
        };
        self.0.try_send(open).unwrap();
        decided
            .await
            .expect("the test decides on every transaction")
    }
}

struct Setup {
    source: SourceControl,
    transactions: mpsc::Receiver<OpenTransaction>,
    stop: CancellationToken,
    intake: JoinHandle<Result<(), WriteError>>,
    counters: Counters,
}

fn start(writers: usize, max_rows: usize) -> Setup {
    let config = Config {
        writers,
        max_rows,
        grace: Duration::from_secs(60),
    };
    start_with(config)
}

fn start_with(config: Config) -> Setup {
    let counters = Counters::record();
    let (source, control) = ScriptedSource::new();
    let (sender, transactions) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let context = Context {
        health: Health::new(&[]),
        histograms: Arc::default(),
        stop: stop.clone(),
    };
    let writer = Arc::new(ControlledWriter(sender));
    let intake = tokio::spawn(async move { run(&context, config, Box::new(source), writer).await });
    Setup {
        source: control,
        transactions,
        stop,
        intake,
        counters,
    }
}

impl Setup {
    /// Delivers a batch of this many readings.
    fn deliver(&mut self, series_id: i32, readings: u32) -> DeliveryTag {
        self.source.deliver(batch(series_id, readings, 1))
    }

    /// Delivers a batch of this many readings, which are enough for a transaction of their own, and
    /// returns that transaction.
    async fn open(&mut self, series_id: i32) -> (DeliveryTag, OpenTransaction) {
        let tag = self.deliver(series_id, CONCURRENT_ROWS as u32);
        let transaction = self.next_transaction().await;
        assert_eq!(transaction.batches, [series_id]);
        (tag, transaction)
    }

    async fn next_transaction(&mut self) -> OpenTransaction {
        let next = within_limit("a transaction starts", self.transactions.recv()).await;
        next.expect("the intake works")
    }

    async fn assert_no_transaction_starts(&mut self) {
        run_other_tasks().await;
        let next = self.transactions.try_recv();
        assert!(next.is_err(), "{next:?} has started");
    }

    async fn assert_no_call(&mut self) {
        run_other_tasks().await;
        assert_eq!(self.source.try_next_call(), None);
    }

    async fn assert_acknowledged(&mut self, through: DeliveryTag) {
        let call = self.source.next_call().await;
        assert_eq!(call, SourceCall::AcknowledgeThrough(through));
    }

    /// Asserts that the source is closed without a further call, and returns the result.
    async fn ended(mut self) -> Result<(), WriteError> {
        let result = within_limit("the intake ends", self.intake).await.unwrap();
        assert_eq!(self.source.try_next_call(), Some(SourceCall::Close));
        assert_eq!(self.source.try_next_call(), None);
        assert!(
            self.transactions.try_recv().is_err(),
            "a transaction has started"
        );
        result
    }

    /// Readings that are not acknowledged.
    fn unacknowledged(&self) -> u64 {
        self.counters.sum(metric::WORKER_UNSETTLED.name, &[])
    }
}

fn batch(series_id: i32, readings: u32, step: i64) -> Batch {
    let mut batch = Batch::new();
    batch.receipts.push(Receipt {
        received_at: BEGIN,
        count: readings,
    });
    for n in 0..i64::from(readings) {
        batch.push(Reading {
            series_id,
            measured_at: BEGIN + n * step,
            value: 1.0,
        });
    }
    batch
}

#[tokio::test]
async fn acknowledgements_are_cumulative_and_in_order_although_transactions_end_out_of_order() {
    let mut setup = start(4, 100_000);
    let (first, a) = setup.open(1).await;
    let (_, b) = setup.open(2).await;
    let (third, c) = setup.open(3).await;
    let (fourth, d) = setup.open(4).await;
    c.commit();
    setup.assert_no_call().await;
    a.commit();
    setup.assert_acknowledged(first).await;
    b.commit();
    setup.assert_acknowledged(third).await;
    d.commit();
    setup.assert_acknowledged(fourth).await;
    setup.stop.cancel();
    assert!(setup.ended().await.is_ok());
}

#[tokio::test]
async fn a_lone_delivery_is_stored_at_once_and_a_trickle_shares_the_next_transaction() {
    let mut setup = start(4, 100_000);
    let first = setup.deliver(1, 1);
    let lone = setup.next_transaction().await;
    assert_eq!((lone.batches.as_slice(), lone.rows), (&[1][..], 1));
    for series_id in 2..5 {
        setup.deliver(series_id, 10);
        setup.assert_no_transaction_starts().await;
    }
    assert_eq!(setup.unacknowledged(), 31);
    lone.commit();
    setup.assert_acknowledged(first).await;
    let shared = setup.next_transaction().await;
    assert_eq!(
        (shared.batches.as_slice(), shared.rows),
        (&[2, 3, 4][..], 30)
    );
    // From this many readings on, another transaction is worth its commit.
    setup.deliver(5, CONCURRENT_ROWS as u32 - 1);
    setup.assert_no_transaction_starts().await;
    setup.deliver(6, 1);
    assert_eq!(setup.next_transaction().await.batches, [5, 6]);
}

#[tokio::test]
async fn a_transaction_grows_while_all_writers_are_busy() {
    let mut setup = start(2, 100_000);
    let (_, first) = setup.open(1).await;
    let (_, _second) = setup.open(2).await;
    for series_id in 3..8 {
        setup.deliver(series_id, CONCURRENT_ROWS as u32);
        setup.assert_no_transaction_starts().await;
    }
    assert_eq!(setup.unacknowledged(), 7 * CONCURRENT_ROWS as u64);
    first.commit();
    let grown = setup.next_transaction().await;
    assert_eq!(setup.unacknowledged(), 6 * CONCURRENT_ROWS as u64);
    assert_eq!(
        (grown.batches, grown.rows),
        (vec![3, 4, 5, 6, 7], 5 * CONCURRENT_ROWS)
    );
}

#[tokio::test]
async fn a_transaction_is_full_at_its_limits_and_the_rest_stays_in_the_source() {
    for (step, readings, max_rows, batches) in [
        // Readings: the third batch reaches the limit.
        (1, 4, 10, 3),
        (1, 5, 10, 2),
        // One batch may exceed it.
        (1, 11, 10, 1),
        // Days: each batch has days of its own, and the second one reaches the limit.
        (DAY, MAX_DAYS as u32 / 2, 100_000, 2),
    ] {
        let mut setup = start(1, max_rows);
        setup.deliver(-1, 1);
        let mut open = setup.next_transaction().await;
        for series_id in 0..6 {
            let mut batch = batch(series_id, readings, step);
            for time in &mut batch.measured_at {
                *time += i64::from(series_id) * i64::from(readings) * step;
            }
            setup.source.deliver(batch);
        }
        for first in (0..6).step_by(batches) {
            setup.assert_no_transaction_starts().await;
            open.commit();
            open = setup.next_transaction().await;
            let expected: Vec<i32> = (first..6).take(batches).collect();
            assert_eq!(
                open.batches, expected,
                "{readings} readings, at most {max_rows}"
            );
        }
    }
}

#[tokio::test]
async fn at_the_stop_signal_open_transactions_end_and_the_rest_is_returned_to_the_queue() {
    let mut setup = start(2, 100_000);
    let (_, first) = setup.open(1).await;
    let (second_tag, second) = setup.open(2).await;
    setup.deliver(3, CONCURRENT_ROWS as u32);
    setup.assert_no_transaction_starts().await;
    setup.stop.cancel();
    second.commit();
    setup.assert_no_call().await;
    first.commit();
    setup.assert_acknowledged(second_tag).await;
    assert!(setup.ended().await.is_ok());
}

#[tokio::test]
async fn nothing_from_a_stopped_transaction_on_is_acknowledged() {
    let mut setup = start(3, 100_000);
    let (first_tag, first) = setup.open(1).await;
    let (_, second) = setup.open(2).await;
    let (_, third) = setup.open(3).await;
    setup.stop.cancel();
    second.stop();
    third.commit();
    setup.assert_no_call().await;
    first.commit();
    setup.assert_acknowledged(first_tag).await;
    assert!(setup.ended().await.is_ok());
}

#[tokio::test]
async fn a_transaction_that_is_open_at_the_end_of_the_grace_period_is_not_acknowledged() {
    let mut setup = start_with(Config {
        writers: 2,
        max_rows: 100_000,
        grace: Duration::ZERO,
    });
    let (_, _never_ends) = setup.open(1).await;
    setup.stop.cancel();
    assert!(setup.ended().await.is_ok());
}

#[tokio::test]
async fn a_fatal_error_ends_the_intake_and_returns_the_rest() {
    let mut setup = start(3, 100_000);
    let (first_tag, first) = setup.open(1).await;
    let (_, second) = setup.open(2).await;
    let (_, third) = setup.open(3).await;
    setup.deliver(4, 1);
    second.fail();
    run_other_tasks().await;
    // Nothing is received any more, and open transactions may end.
    setup.deliver(5, CONCURRENT_ROWS as u32);
    third.commit();
    setup.assert_no_call().await;
    first.commit();
    setup.assert_acknowledged(first_tag).await;
    let error = setup.ended().await.unwrap_err();
    assert_eq!(error.to_string(), "PostgreSQL: the table is missing");
}

#[tokio::test]
async fn a_writer_that_panics_and_an_error_during_shutdown_are_fatal_too() {
    let mut setup = start(1, 100_000);
    drop(setup.open(1).await);
    let error = setup.ended().await.unwrap_err();
    assert!(error.to_string().contains("a writer panicked"), "{error}");

    let mut setup = start(1, 100_000);
    let (_, transaction) = setup.open(1).await;
    setup.stop.cancel();
    run_other_tasks().await;
    transaction.fail();
    assert!(matches!(setup.ended().await, Err(WriteError::Fatal(_))));
}

#[tokio::test]
async fn poison_messages_are_rejected_one_by_one_after_the_commit() {
    let mut setup = start(1, 100_000);
    let (first_tag, open) = setup.open(1).await;
    let mut unknown_version = batch(2, 1, 1).encode();
    unknown_version[0] = 77;
    let empty = setup.source.deliver_message("");
    let valid = setup.source.deliver_message(batch(2, 1, 1).encode());
    let unknown = setup.source.deliver_message(unknown_version);
    setup.assert_no_transaction_starts().await;
    open.commit();
    setup.assert_acknowledged(first_tag).await;

    let transaction = setup.next_transaction().await;
    assert_eq!((&transaction.batches[..], transaction.rows), (&[2][..], 1));
    assert_eq!(transaction.poison, ["empty_message", "unknown_version"]);
    setup.assert_no_call().await;
    transaction.commit();
    for call in [
        SourceCall::Reject(empty),
        SourceCall::Reject(unknown),
        SourceCall::AcknowledgeThrough(valid),
    ] {
        assert_eq!(setup.source.next_call().await, call);
    }
    let labels = [(metric::LABEL_CODE, "unknown_version")];
    assert_eq!(setup.counters.sum(metric::POISON_MESSAGES.name, &labels), 1);

    // A transaction of poison messages alone acknowledges nothing.
    let alone = setup.source.deliver_message("x");
    setup.next_transaction().await.commit();
    assert_eq!(setup.source.next_call().await, SourceCall::Reject(alone));
    setup.assert_no_call().await;
    // A transaction that is not committed rejects nothing.
    setup.source.deliver_message("x");
    let transaction = setup.next_transaction().await;
    setup.stop.cancel();
    transaction.stop();
    assert!(setup.ended().await.is_ok());
}

#[tokio::test]
async fn what_an_earlier_connection_delivered_is_dropped_before_its_transaction_starts() {
    let mut setup = start(1, 100_000);
    let (first_tag, open) = setup.open(1).await;
    setup.deliver(2, 5);
    setup.source.deliver_message("x");
    setup.assert_no_transaction_starts().await;
    setup.source.reconnect();
    let second = setup.deliver(2, 5);
    setup.assert_no_transaction_starts().await;
    assert_eq!(setup.unacknowledged(), CONCURRENT_ROWS as u64 + 5);
    // The source ignores this one.
    open.commit();
    setup.assert_acknowledged(first_tag).await;
    let transaction = setup.next_transaction().await;
    assert_eq!(
        (&transaction.batches[..], transaction.generation),
        (&[2][..], 2)
    );
    assert_eq!((transaction.rows, transaction.poison.len()), (5, 0));
    transaction.commit();
    setup.assert_acknowledged(second).await;
}

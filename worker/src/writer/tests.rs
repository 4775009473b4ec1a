//! The writer with a real PostgreSQL and a connection that breaks.

use schema::batch::Receipt;
use schema::{Batch, Reading};
use service::health::Health;
use store::Client;
use store::testing::{connect, create_database, pool, server};
use testbed::faulty_proxy::{Condition, FaultyProxy};
use testbed::wait::until_async;
use transport::testing::{Counters as Recorded, LIMIT, within_limit};

use super::*;

const BEGIN: i64 = 1_790_000_000_000_000;

/// Makes each COMMIT of a transaction with new batches wait for an advisory lock, which the test
/// holds.
const SLOW_COMMIT: &str = "
    CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON batch
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_for_test()";
const LOCK: &str = "SELECT pg_advisory_lock(1)";
const UNLOCK: &str = "SELECT pg_advisory_unlock(1)";
/// Backends that wait for the test.
const WAITING: &str = "
    FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()";

/// A writer whose connections pass through a proxy, and a connection that does not.
struct Setup {
    writer: Writer,
    stop: CancellationToken,
    proxy: FaultyProxy,
    sql: Client,
    recorded: Recorded,
}

impl Setup {
    async fn new() -> Self {
        let url = create_database().await;
        let proxy = FaultyProxy::start(server().address()).await.unwrap();
        let proxied = url.replace(&server().address(), &proxy.address().to_string());
        let recorded = Recorded::record();
        let stop = CancellationToken::new();
        let context = Context {
            health: Health::new(&[]),
            histograms: Arc::default(),
            stop: stop.clone(),
        };
        Self {
            writer: Writer::new(&context, pool(&proxied, 2), Arc::default()),
            stop,
            proxy,
            sql: connect(&url).await,
            recorded,
        }
    }

    async fn with_slow_commit() -> Self {
        let setup = Self::new().await;
        setup.sql.batch_execute(SLOW_COMMIT).await.unwrap();
        setup
    }

    async fn count(&self, from: &str) -> i64 {
        let statement = format!("SELECT count(*) {from}");
        self.sql.query_one(&statement, &[]).await.unwrap().get(0)
    }

    async fn wait_for_count(&self, what: &str, from: &str, count: i64) {
        until_async(what, LIMIT, async || self.count(from).await == count).await;
    }

    async fn wait_for_retry(&self) {
        let retries = || self.recorded.sum(metric::TRANSACTION_RETRIES.name, &[]);
        until_async("the writer retries", LIMIT, async || retries() > 0).await;
    }

    async fn write<const N: usize>(&self, batches: [&Batch; N]) -> Result<(), WriteError> {
        let transaction = transaction(&batches);
        within_limit("the transaction ends", self.writer.write(&transaction)).await
    }

    /// Readings persisted, duplicates and conflicts, and redelivered batches.
    fn counted(&self) -> [u64; 4] {
        [
            metric::PERSISTED,
            metric::DUPLICATE,
            metric::CONFLICT,
            metric::REDELIVERED_BATCHES,
        ]
        .map(|metric| self.recorded.sum(metric.name, &[]))
    }
}

fn transaction(batches: &[&Batch]) -> PendingTransaction {
    let mut transaction = PendingTransaction::default();
    for (tag, &batch) in (1..).zip(batches) {
        let tag = transport::DeliveryTag { generation: 1, tag };
        let payload = transport::Payload::Batch(Arc::new(batch.clone()));
        transaction.add(transport::Delivery { tag, payload });
    }
    transaction
}

/// A batch of this many readings of a series.
fn batch(series_id: i32, readings: u32) -> Batch {
    let mut batch = Batch {
        enqueued_at: BEGIN,
        ..Batch::new()
    };
    batch.receipts.push(Receipt {
        received_at: BEGIN,
        count: readings,
    });
    for n in 0..i64::from(readings) {
        batch.push(Reading {
            series_id,
            measured_at: BEGIN + n,
            value: n as f64,
        });
    }
    batch
}

#[tokio::test]
async fn after_a_commit_in_doubt_the_ledger_tells_what_was_stored_and_the_counters_do_not_drift() {
    let setup = Setup::with_slow_commit().await;
    let (earlier, first, second) = (batch(1, 5), batch(2, 3), batch(3, 4));
    setup.write([&earlier]).await.unwrap();
    assert_eq!(setup.counted(), [5, 0, 0, 0]);
    setup.sql.batch_execute(LOCK).await.unwrap();
    // `earlier` is delivered again together with two new batches, one of which has readings that
    // are stored already.
    let overlap = Batch {
        id: Batch::new().id,
        ..earlier.clone()
    };
    let lose_the_response = async {
        setup.wait_for_count("COMMIT was sent", WAITING, 1).await;
        setup.proxy.set(Condition::Stalled);
        setup.sql.batch_execute(UNLOCK).await.unwrap();
        setup
            .wait_for_count("it is committed", "FROM batch", 4)
            .await;
        // The response to COMMIT is lost with the connection.
        setup.proxy.set(Condition::Disconnected);
        setup.wait_for_retry().await;
        setup.proxy.set(Condition::HEALTHY);
    };
    let batches = [&earlier, &first, &second, &overlap];
    let (written, ()) = tokio::join!(setup.write(batches), lose_the_response);
    written.unwrap();
    assert_eq!(setup.counted(), [5 + 3 + 4, 5, 0, 1]);
    assert_eq!(setup.count("FROM reading").await, 12);
}

#[tokio::test]
async fn after_a_commit_that_failed_the_readings_are_stored_and_counted_once() {
    let setup = Setup::with_slow_commit().await;
    setup.sql.batch_execute(LOCK).await.unwrap();
    let interrupt = async {
        setup.wait_for_count("COMMIT was sent", WAITING, 1).await;
        let terminate = format!("SELECT pg_terminate_backend(pid) {WAITING}");
        setup.sql.batch_execute(&terminate).await.unwrap();
        setup.wait_for_retry().await;
        assert_eq!(setup.count("FROM batch").await, 0);
        setup.sql.batch_execute(UNLOCK).await.unwrap();
    };
    let batch = batch(1, 3);
    let (written, ()) = tokio::join!(setup.write([&batch]), interrupt);
    written.unwrap();
    assert_eq!(setup.counted(), [3, 0, 0, 0]);
    assert_eq!(setup.count("FROM reading").await, 3);
}

#[tokio::test]
async fn a_batch_that_is_delivered_again_is_skipped_and_counted_as_redelivered() {
    let setup = Setup::new().await;
    let (first, second) = (batch(1, 3), batch(2, 4));
    setup.write([&first]).await.unwrap();
    // Also twice in one transaction.
    setup.write([&first, &second, &second]).await.unwrap();
    assert_eq!(setup.counted(), [7, 0, 0, 2]);
    assert_eq!(setup.count("FROM reading").await, 7);
}

#[tokio::test]
async fn nothing_is_stored_by_a_writer_that_stops_while_postgresql_is_unavailable() {
    let setup = Setup::new().await;
    setup.proxy.set(Condition::Disconnected);
    let stop = async {
        setup.wait_for_retry().await;
        setup.stop.cancel();
    };
    let batch = batch(1, 3);
    let (written, ()) = tokio::join!(setup.write([&batch]), stop);
    assert!(matches!(written, Err(WriteError::Stopped)), "{written:?}");
    assert_eq!(
        (setup.counted(), setup.count("FROM reading").await),
        ([0; 4], 0)
    );
}

#[tokio::test]
async fn a_missing_table_is_fatal() {
    let setup = Setup::new().await;
    setup.sql.batch_execute("DROP TABLE batch").await.unwrap();
    let written = setup.write([&batch(1, 3)]).await;
    assert!(matches!(written, Err(WriteError::Fatal(_))), "{written:?}");
    assert_eq!(setup.count("FROM reading").await, 0);
}

//! The coalescer, with a sink that the test controls.

use schema::partition::DAY;
use tokio::sync::oneshot::error::TryRecvError;
use transport::testing::{
    Counters, RecordingSink, SentBatch, SentBatches, run_other_tasks, within_limit,
};

use super::*;

const BEGIN: Micros = 1_790_000_000_000_000;

/// A coalescer, what it sends, and what it counts.
struct Setup {
    coalescer: Coalescer,
    sent: SentBatches,
    tasks: TaskTracker,
    counters: Counters,
}

fn start(max_in_flight: usize, max_pending: usize) -> Setup {
    let counters = Counters::record();
    let (sink, sent) = RecordingSink::new();
    let tasks = TaskTracker::new();
    let config = Config {
        max_in_flight,
        max_pending,
        deliver_timeout: Duration::from_secs(10),
    };
    Setup {
        coalescer: Coalescer::start(config, sink, Arc::default(), &tasks),
        sent,
        tasks,
        counters,
    }
}

/// Readings of one series, one per step.
fn readings(series_id: i32, count: usize, step: Micros) -> Vec<Reading> {
    let reading = |n| Reading {
        series_id,
        measured_at: BEGIN + n as Micros * step,
        value: n as f64,
    };
    (0..count).map(reading).collect()
}

type Outcomes = Vec<oneshot::Receiver<Outcome>>;

impl Setup {
    fn submit(&self, readings: Vec<Reading>) -> Result<Outcomes, Full> {
        self.coalescer.submit(readings, BEGIN)
    }

    /// Submits this many readings of a series, which fit into one batch.
    fn submit_one(&self, series_id: i32, count: usize) -> oneshot::Receiver<Outcome> {
        let mut outcomes = self.submit(readings(series_id, count, 1)).unwrap();
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    async fn assert_nothing_is_sent(&mut self) {
        run_other_tasks().await;
        let sent = self.sent.try_next().map(|sent| sent.batch.len());
        assert_eq!(sent, None, "a batch was sent");
    }

    fn unavailable(&self, reason: &str) -> u64 {
        let labels = [(metric::LABEL_REASON, reason)];
        self.counters.sum(metric::UNAVAILABLE.name, &labels)
    }

    /// The gauge of pending readings.
    fn pending(&self) -> u64 {
        self.counters.sum(metric::PENDING.name, &[])
    }

    /// Readings accepted, not sent and unconfirmed.
    fn counted(&self) -> [u64; 3] {
        [
            self.counters.sum(metric::ACCEPTED.name, &[]),
            self.unavailable("not_sent"),
            self.unavailable("unconfirmed"),
        ]
    }
}

async fn outcome(receiver: oneshot::Receiver<Outcome>) -> Outcome {
    let outcome = within_limit("a submission has its outcome", receiver).await;
    outcome.expect("the coalescer returns an outcome")
}

/// The series of each request of a batch, with the number of readings.
fn requests(sent: &SentBatch) -> Vec<(i32, u32)> {
    let mut at = 0;
    let request = |receipt: &Receipt| {
        let series_id = sent.batch.series_id[at];
        let readings = at..at + receipt.count as usize;
        assert!(
            sent.batch.series_id[readings.clone()]
                .iter()
                .all(|&id| id == series_id)
        );
        at = readings.end;
        (series_id, receipt.count)
    };
    sent.batch.receipts.iter().map(request).collect()
}

#[tokio::test]
async fn a_lone_submission_is_sent_at_once_and_others_join_while_the_limit_is_reached() {
    let mut setup = start(2, 1_000);
    let first = setup.submit_one(1, 3);
    let in_flight = setup.sent.next().await;
    assert_eq!(requests(&in_flight), [(1, 3)]);
    let second = setup.submit_one(2, 1);
    let also_in_flight = setup.sent.next().await;
    assert_eq!(requests(&also_in_flight), [(2, 1)]);

    // Both are in flight: the next ones wait and share a batch.
    let mut waiting = Vec::new();
    for series_id in 3..6 {
        waiting.push(setup.submit_one(series_id, 2));
        setup.assert_nothing_is_sent().await;
    }
    in_flight.confirm();
    assert_eq!(outcome(first).await, Ok(()));
    let joined = setup.sent.next().await;
    assert_eq!(requests(&joined), [(3, 2), (4, 2), (5, 2)]);
    let sent: Vec<Reading> = joined.batch.readings().collect();
    let submitted = (3..6).flat_map(|series_id| readings(series_id, 2, 1));
    assert_eq!(sent, submitted.collect::<Vec<_>>());
    setup.assert_nothing_is_sent().await;
    joined.confirm();
    also_in_flight.confirm();
    for receiver in waiting.into_iter().chain([second]) {
        assert_eq!(outcome(receiver).await, Ok(()));
    }
    assert_eq!(setup.counted(), [10, 0, 0]);
    assert_eq!(setup.counters.sum(metric::SINK_BATCHES.name, &[]), 3);
}

#[tokio::test]
async fn submissions_that_arrive_together_share_a_batch() {
    let mut setup = start(8, 1_000);
    let _outcomes: Vec<_> = (0..100).map(|id| setup.submit_one(id, 1)).collect();
    assert_eq!(setup.sent.next().await.batch.len(), 100);
    setup.assert_nothing_is_sent().await;
}

#[tokio::test]
async fn a_submission_beyond_the_limit_on_pending_readings_is_refused_whole() {
    let mut setup = start(1, 10);
    let first = setup.submit_one(1, 6);
    let in_flight = setup.sent.next().await;
    assert_eq!(setup.submit(readings(2, 5, 1)).unwrap_err(), Full);
    // A request of several parts is refused whole too.
    assert_eq!(setup.submit(readings(3, 300, DAY)).unwrap_err(), Full);
    let second = setup.submit_one(4, 4);
    assert_eq!(setup.submit(readings(5, 1, 1)).unwrap_err(), Full);
    assert_eq!(setup.pending(), 10);
    in_flight.confirm();
    assert_eq!(outcome(first).await, Ok(()));
    assert_eq!(setup.pending(), 4);
    let next = setup.sent.next().await;
    assert_eq!(requests(&next), [(4, 4)]);
    // The first six are no longer pending.
    let third = setup.submit_one(6, 6);
    assert_eq!(setup.submit(readings(7, 1, 1)).unwrap_err(), Full);
    next.refuse();
    setup.sent.next().await.leave_unconfirmed();
    assert!(outcome(second).await.is_err() && outcome(third).await.is_err());
    // Refused and unconfirmed readings are no longer pending either.
    let _last = setup.submit_one(8, 10);
    assert_eq!(setup.sent.next().await.batch.len(), 10);
    assert_eq!(setup.counted(), [6, 4, 6]);
}

#[tokio::test]
async fn a_submission_beyond_the_limit_on_pending_submissions_is_refused() {
    let mut setup = start(1, 100_000);
    let outcomes: Vec<_> = (0..MAX_SUBMISSIONS)
        .map(|_| setup.submit_one(1, 1))
        .collect();
    assert_eq!(setup.submit(readings(2, 1, 1)).unwrap_err(), Full);
    for _ in 0..MAX_SUBMISSIONS / MAX_READINGS {
        let sent = setup.sent.next().await;
        assert_eq!(sent.batch.len(), MAX_READINGS);
        sent.confirm();
    }
    for receiver in outcomes {
        assert_eq!(outcome(receiver).await, Ok(()));
    }
    let _last = setup.submit_one(2, 1);
    assert_eq!(requests(&setup.sent.next().await), [(2, 1)]);
}

#[tokio::test]
async fn a_batch_is_filled_up_to_its_limits_on_readings_and_days_and_not_beyond() {
    let days = MAX_DAYS;
    for (sizes, step, batches) in [
        (vec![2_048, 2_048, 1], 1, vec![vec![0, 1], vec![2]]),
        (vec![2_048, 2_049, 1], 1, vec![vec![0], vec![1, 2]]),
        (vec![MAX_READINGS, MAX_READINGS], 1, vec![vec![0], vec![1]]),
        // These have the same days, except the last one.
        (vec![days, 7, days + 1], DAY, vec![vec![0, 1, 2], vec![3]]),
        (vec![days - 1, days, days], DAY, vec![vec![0, 1, 2]]),
    ] {
        let mut setup = start(1, 100_000);
        let _blocking = setup.submit_one(-1, 1);
        let in_flight = setup.sent.next().await;
        let mut outcomes = Outcomes::new();
        let mut parts = Vec::new();
        for (series_id, &size) in (0..).zip(&sizes) {
            let submitted = setup.submit(readings(series_id, size, step)).unwrap();
            // The index of the part among all, and its series.
            parts.extend(submitted.iter().map(|_| series_id));
            outcomes.extend(submitted);
        }
        in_flight.confirm();
        for batch in &batches {
            let sent = setup.sent.next().await;
            let series: Vec<i32> = requests(&sent).iter().map(|request| request.0).collect();
            let expected: Vec<i32> = batch.iter().map(|&part: &usize| parts[part]).collect();
            assert_eq!(series, expected, "{sizes:?}");
            let days: Days = sent.batch.measured_at.iter().copied().collect();
            assert!(sent.batch.len() <= MAX_READINGS && days.len() <= MAX_DAYS);
            assert!(schema::Batch::decode(&sent.batch.encode()).is_ok());
            sent.confirm();
        }
        for receiver in outcomes {
            assert_eq!(outcome(receiver).await, Ok(()));
        }
        setup.assert_nothing_is_sent().await;
    }
}

#[tokio::test]
async fn each_submission_gets_the_outcome_of_its_own_batch() {
    let mut setup = start(4, 1_000);
    let mut receivers = Vec::new();
    let mut sent = Vec::new();
    for series_id in 0..4 {
        receivers.push(setup.submit_one(series_id, 1 << series_id));
        sent.push(setup.sent.next().await);
    }
    let [a, b, c, mut d] = <[_; 4]>::try_from(receivers).unwrap();
    let [first, second, third, fourth] = <[_; 4]>::try_from(sent).unwrap();
    third.confirm();
    assert_eq!(outcome(c).await, Ok(()));
    second.leave_unconfirmed();
    assert!(matches!(outcome(b).await, Err(SinkError::Unconfirmed(_))));
    first.refuse();
    assert!(matches!(outcome(a).await, Err(SinkError::Refused(_))));
    // The sink never returns for the last one.
    run_other_tasks().await;
    assert_eq!(d.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(setup.counted(), [4, 1, 2]);
    drop(fourth);
}

#[tokio::test]
async fn a_sink_that_panics_leaves_its_batch_without_an_outcome_and_the_coalescer_goes_on() {
    let mut setup = start(1, 10);
    let first = setup.submit_one(1, 10);
    setup.sent.next().await.panic();
    let closed = within_limit("the reply is dropped", first).await;
    assert!(closed.is_err());
    // The panic has returned the slot and the share of the limit.
    let second = setup.submit_one(2, 10);
    setup.sent.next().await.confirm();
    assert_eq!(outcome(second).await, Ok(()));
}

#[tokio::test]
async fn a_submission_whose_client_has_disconnected_is_not_sent_and_counted_as_not_sent() {
    let mut setup = start(1, 1_000);
    let first = setup.submit_one(1, 1);
    let in_flight = setup.sent.next().await;
    let disconnected = setup.submit_one(2, 20);
    let waiting = setup.submit_one(3, 3);
    let also_disconnected = setup.submit_one(4, 40);
    drop((disconnected, also_disconnected));
    in_flight.confirm();
    let sent = setup.sent.next().await;
    assert_eq!(requests(&sent), [(3, 3)]);
    // A client that disconnects while its batch is in flight changes nothing in the books.
    drop(waiting);
    sent.confirm();
    setup.assert_nothing_is_sent().await;
    assert_eq!(outcome(first).await, Ok(()));
    assert_eq!(setup.counted(), [4, 60, 0]);

    // When every client has disconnected, no batch is sent.
    drop(setup.submit_one(5, 1_000));
    setup.assert_nothing_is_sent().await;
    assert_eq!(setup.counted(), [4, 1_060, 0]);
    let _last = setup.submit_one(6, 1_000);
    assert_eq!(requests(&setup.sent.next().await), [(6, 1_000)]);
}

#[tokio::test]
async fn everything_pending_is_delivered_before_the_coalescer_ends() {
    let mut setup = start(1, 20_000);
    let outcomes = setup.submit(readings(1, 10_000, 1)).unwrap();
    let last = setup.submit_one(2, 1);
    drop(setup.coalescer);
    setup.tasks.close();
    let mut received = 0;
    for _ in 0..3 {
        let sent = setup.sent.next().await;
        run_other_tasks().await;
        assert_eq!(setup.tasks.len(), 1, "the coalescer has ended");
        received += sent.batch.len();
        sent.confirm();
    }
    within_limit("the coalescer ends", setup.tasks.wait()).await;
    assert_eq!(received, 10_001);
    for receiver in outcomes.into_iter().chain([last]) {
        assert_eq!(outcome(receiver).await, Ok(()));
    }
}

#[tokio::test]
async fn a_request_of_several_batches_gets_the_outcome_of_each() {
    let mut setup = start(8, 20_000);
    let submitted = readings(1, 10_000, 1);
    let outcomes = setup.submit(submitted.clone()).unwrap();
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(setup.sent.next().await);
    }
    let joined: Vec<Reading> = sent.iter().flat_map(|sent| sent.batch.readings()).collect();
    assert_eq!(joined, submitted);
    let ids: std::collections::BTreeSet<_> = sent.iter().map(|sent| sent.batch.id).collect();
    assert_eq!(ids.len(), 3);
    let [first, second, third] = <[_; 3]>::try_from(sent).unwrap();
    third.confirm();
    first.confirm();
    second.refuse();
    let mut are_ok = Vec::new();
    for receiver in outcomes {
        are_ok.push(outcome(receiver).await.is_ok());
    }
    assert_eq!(are_ok, [true, false, true]);
    assert_eq!(setup.counted(), [5_904, 4_096, 0]);
}

#[test]
fn a_request_is_split_by_readings_and_days_without_loss() {
    let reading = |n: i64, step: i64| Reading {
        series_id: 1,
        measured_at: 1_000_000_000_000_000 + n * step,
        value: n as f64,
    };
    for (step, parts) in [
        (1, 3),
        (DAY, 10_000usize.div_ceil(MAX_DAYS)),
        (-DAY, 10_000usize.div_ceil(MAX_DAYS)),
    ] {
        let readings: Vec<Reading> = (0..10_000).map(|n| reading(n % 10_000, step)).collect();
        let split = split(readings.clone());
        assert!(split.len() <= parts, "{} parts", split.len());
        for (part, days) in &split {
            assert!(part.len() <= MAX_READINGS && days.len() <= MAX_DAYS);
            assert_eq!(
                *days,
                part.iter()
                    .map(|reading| reading.measured_at)
                    .collect::<Days>()
            );
        }
        let joined: Vec<Reading> = split.into_iter().flat_map(|(part, _)| part).collect();
        assert_eq!(joined, readings);
    }
}

#[tokio::test]
async fn after_a_refusal_the_rest_of_the_request_is_refused_and_not_sent() {
    let mut setup = start(1, 100_000);
    let mut large = setup.submit(readings(1, 3 * MAX_READINGS, 1)).unwrap();
    let other = setup.submit_one(2, 5);
    assert_eq!(large.len(), 3);
    setup.sent.next().await.refuse();
    for part in large.drain(..) {
        assert_eq!(
            outcome(part).await,
            Err(SinkError::Refused("refused".into()))
        );
    }
    let sent = setup.sent.next().await;
    assert_eq!(requests(&sent), [(2, 5)]);
    sent.confirm();
    assert_eq!(outcome(other).await, Ok(()));
    assert_eq!(setup.counted(), [5, 3 * MAX_READINGS as u64, 0]);
    run_other_tasks().await;
    assert_eq!(setup.pending(), 0);
}

#[tokio::test]
async fn the_gauge_of_pending_readings_is_zero_after_the_last_client_has_disconnected() {
    let mut setup = start(1, 1_000);
    let first = setup.submit_one(1, 1);
    let in_flight = setup.sent.next().await;
    drop(setup.submit_one(2, 7));
    in_flight.confirm();
    assert_eq!(outcome(first).await, Ok(()));
    setup.assert_nothing_is_sent().await;
    assert_eq!((setup.pending(), setup.counted()), (0, [1, 7, 0]));
}

#[test]
fn a_sink_that_alternates_does_not_get_a_line_for_each_batch() {
    let log = OutcomeLog::default();
    assert!(!log.is_due(false));
    assert!(log.is_due(true));
    let lines = (0..1_000).filter(|batch| log.is_due(batch % 2 == 1));
    assert_eq!(lines.count(), 0);
}

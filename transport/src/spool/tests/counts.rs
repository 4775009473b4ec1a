//! What the spool counts and reports.

use super::*;

#[test]
fn the_monitor_reports_depth_rate_and_health() {
    use schema::metric;
    use service::health::{Component, Health, HealthState};

    use crate::testing::Counters;

    let directory = tempfile::tempdir().unwrap();
    let (spool, mut source, _guard) = crate::spool::open(config(directory.path()), 100).unwrap();
    runtime().block_on(async {
        let counters = Counters::record();
        let health = Health::new(&[Component::Spool]);
        // Stopped before it starts: it reports once, with the rate since the spool was opened.
        let stop = CancellationToken::new();
        stop.cancel();
        let report = || {
            let health = health.component(Component::Spool);
            monitor(spool.clone(), health, stop.clone())
        };
        let gauges = || {
            let gauges = [
                metric::SPOOL_READINGS,
                metric::SPOOL_BYTES,
                metric::SPOOL_TIME_TO_EMPTY,
            ];
            gauges.map(|gauge| counters.sum(gauge.name, &[]))
        };
        for number in 1..=2 {
            spool.append(payload(number, 10), 3).await.unwrap();
        }
        report().await;
        let size = (record::HEADER + 18) as u64;
        let infinite = u64::MAX;
        assert_eq!(gauges(), [6, 2 * size, infinite]);
        assert_eq!(health.report().0, HealthState::Ready);

        assert_eq!(receive(&mut source, 2).await, [1, 2]);
        source.acknowledge(2).await;
        // The writer processes acknowledgements and appends in order.
        spool.append(payload(3, 10), 9).await.unwrap();
        report().await;
        // Six readings in the last second have a weight of 0.3: 9 readings at 1.8 per second.
        assert_eq!(gauges(), [9, size, 5]);

        spool.failed().cancel();
        report().await;
        let (state, reasons) = health.report();
        assert_eq!(state, HealthState::Unready);
        assert_eq!(reasons["spool"], "its disk has failed");
    });
}

#[test]
fn records_that_are_gone_are_counted_wherever_they_were() {
    let directory = tempfile::tempdir().unwrap();
    // Segments of a few records each, of which some are acknowledged.
    let (spool, mut source, guard) = crate::spool::open(config(directory.path()), 100).unwrap();
    runtime().block_on(async {
        for number in 1..=30 {
            spool.append(payload(number, 40), 1).await.unwrap();
        }
        receive(&mut source, 30).await;
    });
    drop((spool, source, guard));
    let (key, firsts) = segment::list(directory.path()).unwrap();
    let firsts: Vec<u64> = firsts.into_iter().collect();
    assert!(firsts.len() > 4, "{firsts:?}");
    let removed = |remove: &[usize]| {
        let copied = tempfile::tempdir().unwrap();
        copy(directory.path(), copied.path());
        for &index in remove {
            let path = segment::path(copied.path(), key.unwrap(), firsts[index]);
            fs::remove_file(path).unwrap();
        }
        missing_after(copied.path())
    };
    let length = |index: usize| firsts[index + 1] - firsts[index];
    assert_eq!(removed(&[]), 0);
    assert_eq!(removed(&[0]), length(0), "the first segment");
    assert_eq!(removed(&[2]), length(2), "one in the middle");
    assert_eq!(removed(&[1, 2]), length(1) + length(2), "two neighbours");
    assert_eq!(removed(&[0, 2]), length(0) + length(2), "two apart");
}

#[test]
fn damaged_records_are_counted_unless_they_were_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut source, guard) = crate::spool::open(config(directory.path()), 100).unwrap();
    runtime().block_on(async {
        for number in 1..=3 {
            spool.append(payload(number, 20), 1).await.unwrap();
        }
        receive(&mut source, 1).await;
        source.acknowledge(1).await;
        // The writer processes acknowledgements and appends in order.
        spool.append(payload(4, 20), 1).await.unwrap();
    });
    drop((spool, source, guard));
    let (path, _) = only_segment(directory.path());
    let size = record::HEADER + 28;
    for (record, missing) in [(0, 0), (1, 1)] {
        let copied = tempfile::tempdir().unwrap();
        copy(directory.path(), copied.path());
        let copied_path = copied.path().join(path.file_name().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[record * size + record::HEADER] ^= 1;
        fs::write(copied_path, bytes).unwrap();
        assert_eq!(missing_after(copied.path()), missing, "record {record}");
    }
}

#[test]
fn the_oldest_record_is_the_first_one_that_is_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut source, _guard) = crate::spool::open(config(directory.path()), 100).unwrap();
    runtime().block_on(async {
        for number in 1..=2 {
            spool.append(payload(number, 10), 1).await.unwrap();
        }
        let oldest = || spool.shared.lock().depth.oldest;
        let first = source.next_record().await.header.appended_at;
        let second = source.next_record().await.header.appended_at;
        assert_eq!(oldest(), Some(first));
        source.acknowledge(1).await;
        assert_eq!(oldest(), Some(second));
        source.acknowledge(2).await;
        assert_eq!(oldest(), None);
    });
}

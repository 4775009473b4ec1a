//! The spool compared with a model, after a crash at every byte, and after damage to every byte.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::{DeliveryTag, Source as _};

fn config(directory: &Path) -> Config {
    Config {
        directory: directory.to_owned(),
        max_bytes: 1024 * 1024,
        segment_bytes: 400,
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// A payload of its own content for each number.
fn payload(number: usize, size: usize) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(bytes.len() + size, number as u8);
    bytes.into()
}

/// Receives `count` records, and returns the numbers of their payloads.
async fn receive(source: &mut SpoolSource, count: u64) -> Vec<usize> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let record = source.next_record().await;
        let (number, rest) = record.payload.split_first_chunk().unwrap();
        numbers.push(usize::from_le_bytes(*number));
        assert!(
            rest.iter()
                .all(|&byte| byte == numbers[numbers.len() - 1] as u8),
            "a payload was changed"
        );
    }
    numbers
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Number of files in quarantine.
fn quarantined(directory: &Path) -> usize {
    fs::read_dir(directory.join("quarantine")).map_or(0, Iterator::count)
}

#[derive(Debug, Clone)]
enum Step {
    /// Payloads of these sizes, appended together.
    Append(Vec<usize>),
    /// Receives up to this number of records and acknowledges them.
    Acknowledge(usize),
    /// Receives up to this number of records, which are delivered again after the next opening.
    Receive(usize),
    /// Closes and opens.
    Reopen,
    /// Opens after a crash that left these bytes after the last sync.
    Crash(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => proptest::collection::vec(0..300_usize, 1..6).prop_map(Step::Append),
        3 => (1..8_usize).prop_map(Step::Acknowledge),
        1 => (1..4_usize).prop_map(Step::Receive),
        1 => Just(Step::Reopen),
        1 => proptest::collection::vec(any::<u8>(), 0..60).prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_spool_behaves_like_a_queue_in_memory(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mut open = super::open(config(directory.path()), 1_000).unwrap();
            // The model: the numbers of the appended payloads, how many of them are acknowledged,
            // and how many were received.
            let (mut appended, mut acknowledged, mut received) = (Vec::new(), 0, 0);
            for step in steps {
                let (spool, source, _) = &mut open;
                match step {
                    Step::Append(sizes) => {
                        let first = appended.len();
                        let appends = sizes.iter().enumerate().map(|(index, &size)| {
                            spool.append(payload(first + index, size), 3)
                        });
                        for result in futures_util::future::join_all(appends).await {
                            result.unwrap();
                        }
                        appended.extend(first..first + sizes.len());
                    }
                    Step::Acknowledge(count) => {
                        let count = count.min(appended.len() - received);
                        let numbers = receive(source, count as u64).await;
                        prop_assert_eq!(numbers, &appended[received..received + count]);
                        received += count;
                        acknowledged = received;
                        source.acknowledge(acknowledged as u64).await;
                    }
                    Step::Receive(count) => {
                        let count = count.min(appended.len() - received);
                        let numbers = receive(source, count as u64).await;
                        prop_assert_eq!(numbers, &appended[received..received + count]);
                        received += count;
                    }
                    Step::Reopen | Step::Crash(_) => {
                        let (spool, source, guard) = open;
                        guard.close();
                        drop((spool, source));
                        if let Step::Crash(tail) = step {
                            let (key, firsts) = segment::list(directory.path()).unwrap();
                            let last = *firsts.last().unwrap();
                            let path = segment::path(directory.path(), key.unwrap(), last);
                            let mut file = File::options().append(true).open(path).unwrap();
                            file.write_all(&tail).unwrap();
                        }
                        open = super::open(config(directory.path()), 1_000).unwrap();
                        let depth = open.0.depth();
                        prop_assert_eq!(depth.records, (appended.len() - acknowledged) as u64);
                        prop_assert_eq!(depth.readings, 3 * depth.records);
                        received = acknowledged;
                    }
                }
            }
            let rest = (appended.len() - received) as u64;
            prop_assert_eq!(receive(&mut open.1, rest).await, &appended[received..]);
            prop_assert_eq!(quarantined(directory.path()), 0);
            Ok(())
        })?;
    }

    #[test]
    fn opening_accepts_any_bytes_as_a_segment(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        second in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(segment::path(directory.path(), 7, 1), &bytes).unwrap();
        if second {
            fs::write(segment::path(directory.path(), 7, 9), &bytes).unwrap();
        }
        let (spool, _source, _guard) = super::open(config(directory.path()), 10).unwrap();
        prop_assert_eq!(spool.depth().records, 0);
        runtime().block_on(spool.append(payload(1, 1), 1)).unwrap();
    }
}

/// Fills a directory with one segment of nine records: eight payloads, and a cursor that
/// acknowledges two of them. Returns for each record in the file its end and its number; `None` for
/// the cursor.
fn one_segment(directory: &Path) -> Vec<(usize, Option<usize>)> {
    let one_segment = Config {
        segment_bytes: 1024 * 1024,
        ..config(directory)
    };
    let (spool, mut source, guard) = super::open(one_segment, 100).unwrap();
    runtime().block_on(async {
        for number in 1..=5 {
            spool.append(payload(number, 3 * number), 1).await.unwrap();
        }
        assert_eq!(receive(&mut source, 2).await, [1, 2]);
        source.acknowledge(2).await;
        for number in 6..=8 {
            spool.append(payload(number, 3 * number), 1).await.unwrap();
        }
    });
    guard.close();
    let (path, key) = only_segment(directory);
    let bytes = fs::read(path).unwrap();
    let mut ends = Vec::new();
    let mut end = 0;
    segment::scan(&bytes, key, 1, |header| {
        end += header.size();
        ends.push((
            end,
            (header.kind == record::Kind::Payload).then_some(header.sequence as usize),
        ));
    });
    assert_eq!(ends.len(), 9);
    ends
}

fn only_segment(directory: &Path) -> (PathBuf, u32) {
    let (key, firsts) = segment::list(directory).unwrap();
    assert_eq!(firsts, [1]);
    (segment::path(directory, key.unwrap(), 1), key.unwrap())
}

/// Opens a copy of the directory whose segment has the content `bytes`. Returns the numbers of the
/// payloads in it, and the number of files in quarantine.
fn open_copy(directory: &Path, bytes: &[u8]) -> (Vec<usize>, usize) {
    let copied = tempfile::tempdir().unwrap();
    copy(directory, copied.path());
    fs::write(only_segment(copied.path()).0, bytes).unwrap();
    let (spool, mut source, _guard) = super::open(config(copied.path()), 100).unwrap();
    let numbers = runtime().block_on(receive(&mut source, spool.depth().records));
    (numbers, quarantined(copied.path()))
}

#[test]
fn a_crash_at_any_byte_loses_nothing_that_was_synced() {
    let directory = tempfile::tempdir().unwrap();
    let ends = one_segment(directory.path());
    let bytes = fs::read(only_segment(directory.path()).0).unwrap();
    for length in 0..=bytes.len() {
        let whole: Vec<_> = ends
            .iter()
            .filter(|(end, _)| *end <= length)
            .map(|(_, number)| *number)
            .collect();
        let acknowledged = if whole.contains(&None) { 2 } else { 0 };
        let expected: Vec<usize> = whole
            .into_iter()
            .flatten()
            .filter(|&number| number > acknowledged)
            .collect();
        assert_eq!(
            open_copy(directory.path(), &bytes[..length]),
            (expected, 0),
            "cut at {length} of {}",
            bytes.len()
        );
    }
}

#[test]
fn damage_to_any_byte_loses_only_its_record_and_is_quarantined() {
    let directory = tempfile::tempdir().unwrap();
    let ends = one_segment(directory.path());
    let bytes = fs::read(only_segment(directory.path()).0).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let damaged_index = ends.iter().position(|(end, _)| at < *end).unwrap();
        let acknowledged = if ends[damaged_index].1.is_none() {
            0
        } else {
            2
        };
        let left = ends
            .iter()
            .enumerate()
            .filter(|&(index, _)| index != damaged_index)
            .filter_map(|(_, (_, number))| *number);
        let expected: Vec<usize> = left.filter(|&number| number > acknowledged).collect();
        let quarantined = usize::from(damaged_index + 1 < ends.len());
        assert_eq!(
            open_copy(directory.path(), &damaged),
            (expected, quarantined),
            "byte {at} of {}",
            bytes.len()
        );
    }
}

#[test]
fn a_wholly_damaged_segment_does_not_affect_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _source, guard) = super::open(config(directory.path()), 100).unwrap();
    runtime().block_on(async {
        for number in 1..=30 {
            spool.append(payload(number, 50), 1).await.unwrap();
        }
    });
    guard.close();
    let (key, firsts) = segment::list(directory.path()).unwrap();
    let path = segment::path(directory.path(), key.unwrap(), firsts[1]);
    fs::write(&path, vec![0; fs::metadata(&path).unwrap().len() as usize]).unwrap();

    let (spool, mut source, _guard) = super::open(config(directory.path()), 100).unwrap();
    let expected: Vec<usize> = (1..=30)
        .filter(|n| !(firsts[1]..firsts[2]).contains(&(*n as u64)))
        .collect();
    assert_eq!(spool.depth().records, expected.len() as u64);
    let numbers = runtime().block_on(async {
        let receiving = receive(&mut source, expected.len() as u64);
        tokio::time::timeout(Duration::from_secs(10), receiving).await
    });
    assert_eq!(numbers.expect("the source is blocked"), expected);
    assert_eq!(quarantined(directory.path()), 1);
}

#[test]
fn a_full_spool_refuses_until_records_are_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let small = Config {
        max_bytes: 4_000,
        ..config(directory.path())
    };
    let (spool, mut source, guard) = super::open(small, 1_000).unwrap();
    runtime().block_on(async {
        let mut received = BTreeSet::new();
        for round in 0..50 {
            let mut count = 0;
            while spool.append(payload(round, 100), 1).await == Ok(()) {
                count += 1;
            }
            assert_eq!(
                spool.append(payload(round, 100), 1).await,
                Err(AppendError::Full)
            );
            assert!(count >= 20, "round {round}: only {count} fit");
            assert_eq!(spool.shared.lock().refusal, Some("full"));
            received.extend(receive(&mut source, count).await);
            source.acknowledge(u64::MAX).await;
            spool.append(payload(round, 1), 1).await.unwrap();
            assert_eq!(spool.shared.lock().refusal, None);
            assert_eq!(receive(&mut source, 1).await, [round]);
            source.acknowledge(u64::MAX).await;
        }
        assert_eq!(received, (0..50).collect());
    });
    guard.close();
    assert_eq!(spool.depth(), Depth::default());
    assert!(
        segment::list(directory.path()).unwrap().1.len() < 12,
        "segments were not deleted"
    );
    // The segments that are gone were acknowledged, which the others remember.
    drop((spool, source));
    assert_eq!(missing_after(directory.path()), 0);
}

#[test]
fn a_failed_sync_is_fatal_and_is_not_retried() {
    let directory = tempfile::tempdir().unwrap();
    let sync = |_: &File| Err(io::Error::other("the disk was removed"));
    let (spool, _source, _guard) = open_with(config(directory.path()), 10, sync).unwrap();
    let failed = Err(AppendError::Failed("the disk was removed".into()));
    runtime().block_on(async {
        assert_eq!(spool.append(payload(1, 1), 1).await, failed);
        spool.failed().cancelled().await;
        assert_eq!(spool.append(payload(2, 1), 1).await, failed);
    });
}

#[test]
fn opening_a_directory_that_is_in_use_fails() {
    let directory = tempfile::tempdir().unwrap();
    let (_spool, _source, guard) = super::open(config(directory.path()), 10).unwrap();
    let second = super::open(config(directory.path()), 10)
        .map(|_| ())
        .unwrap_err();
    assert!(
        second.to_string().contains("in use by another process"),
        "{second}"
    );
    guard.close();
    super::open(config(directory.path()), 10).unwrap();
}

#[test]
fn a_rejected_record_is_quarantined_and_does_not_block_others() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut source, guard) = super::open(config(directory.path()), 100).unwrap();
    runtime().block_on(async {
        for number in 1..=4 {
            spool.append(payload(number, 10), 1).await.unwrap();
        }
        assert_eq!(receive(&mut source, 4).await, [1, 2, 3, 4]);
        let tag = |tag| DeliveryTag { generation: 1, tag };
        source.reject(tag(3)).await;
        source.acknowledge_through(tag(2)).await;
        source.reject(tag(4)).await;
    });
    guard.close();
    let path = directory
        .path()
        .join("rejected/00000000000000000003.message");
    assert_eq!(fs::read(path).unwrap(), payload(3, 10));
    let (spool, _source, _guard) = super::open(config(directory.path()), 100).unwrap();
    assert_eq!(spool.depth().records, 0);
}

#[test]
fn at_most_prefetch_records_are_unacknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut source, _guard) = super::open(config(directory.path()), 2).unwrap();
    runtime().block_on(async {
        for number in 1..=3 {
            spool.append(payload(number, 10), 1).await.unwrap();
        }
        assert_eq!(receive(&mut source, 2).await, [1, 2]);
        assert!(source.try_next_record().is_none());
        assert!(source.next_record().now_or_never().is_none());
        source.acknowledge(1).await;
        assert_eq!(receive(&mut source, 1).await, [3]);
    });
}

#[test]
fn a_record_inside_a_payload_is_never_read_as_a_record() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _source, guard) = super::open(config(directory.path()), 10).unwrap();
    // A device could send this: a cursor far ahead, with a checksum that is not seeded with the
    // key.
    let header = record::Header {
        kind: record::Kind::Cursor,
        sequence: 1 << 40,
        appended_at: 0,
        readings: 0,
        length: 0,
    };
    let mut forged = Vec::new();
    header.write(&[], 0, &mut forged);
    runtime().block_on(async {
        spool.append(forged.into(), 1).await.unwrap();
        spool.append(payload(2, 10), 1).await.unwrap();
    });
    guard.close();
    let mut bytes = fs::read(only_segment(directory.path()).0).unwrap();
    bytes[0] ^= 1;
    assert_eq!(open_copy(directory.path(), &bytes), (vec![2], 1));
}

#[test]
fn only_a_failed_disk_leaves_it_open_whether_a_batch_is_stored() {
    for (error, may_be_stored) in [
        (AppendError::Full, false),
        (AppendError::TooLarge, false),
        (AppendError::Io("no space left".into()), false),
        (AppendError::Failed("sync".into()), true),
    ] {
        let sink_error = SinkError::from(error);
        let unconfirmed = matches!(sink_error, SinkError::Unconfirmed(_));
        assert_eq!(unconfirmed, may_be_stored, "{sink_error:?}");
    }
}

#[test]
fn the_monitor_reports_depth_rate_and_health() {
    use schema::metric;
    use service::health::{Component, Health, HealthState};

    use crate::testing::Counters;

    let directory = tempfile::tempdir().unwrap();
    let (spool, mut source, _guard) = super::open(config(directory.path()), 100).unwrap();
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

/// Opens a directory and returns the records that it counts as missing.
fn missing_after(directory: &Path) -> u64 {
    use crate::testing::Counters;
    runtime().block_on(async {
        let counters = Counters::record();
        let opened = super::open(config(directory), 100).unwrap();
        drop(opened);
        counters.sum(schema::metric::SPOOL_MISSING.name, &[])
    })
}

#[test]
fn records_that_are_gone_are_counted_wherever_they_were() {
    let directory = tempfile::tempdir().unwrap();
    // Segments of a few records each, of which some are acknowledged.
    let (spool, mut source, guard) = super::open(config(directory.path()), 100).unwrap();
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
    let (spool, mut source, guard) = super::open(config(directory.path()), 100).unwrap();
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
    let (spool, mut source, _guard) = super::open(config(directory.path()), 100).unwrap();
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

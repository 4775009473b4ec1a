//! The spool against a model, and against every crash and every damage of one byte.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;

fn config(folder: &Path) -> Config {
    Config {
        folder: folder.to_owned(),
        max_bytes: 1024 * 1024,
        segment_bytes: 400,
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// The payload of a record, told from every other by its number.
fn payload(number: usize, size: usize) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(bytes.len() + size, number as u8);
    bytes.into()
}

/// Everything that a source has to hand out, as numbers of the payloads.
async fn take_all(source: &mut SpoolSource, count: u64) -> Vec<usize> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let record = source.take().await;
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

fn quarantined(folder: &Path) -> usize {
    fs::read_dir(folder.join("quarantine")).map_or(0, Iterator::count)
}

#[derive(Debug, Clone)]
enum Step {
    /// Payloads of these sizes, appended together.
    Append(Vec<usize>),
    /// Takes so many and acknowledges them, as far as there are any.
    Acknowledge(usize),
    /// Takes so many and acknowledges none of them; they come again after the next opening.
    Take(usize),
    /// Closes and opens.
    Reopen,
    /// Opens after a crash that left these bytes behind the last sync.
    Crash(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => proptest::collection::vec(0..300_usize, 1..6).prop_map(Step::Append),
        3 => (1..8_usize).prop_map(Step::Acknowledge),
        1 => (1..4_usize).prop_map(Step::Take),
        1 => Just(Step::Reopen),
        1 => proptest::collection::vec(any::<u8>(), 0..60).prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_spool_does_what_a_queue_in_memory_does(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mut open = super::open(config(folder.path()), 1_000).unwrap();
            // The model: numbers of what was appended, how many are acknowledged, and how many are handed out.
            let (mut appended, mut acknowledged, mut taken) = (Vec::new(), 0, 0);
            for step in steps {
                let (spool, source, _) = &mut open;
                match step {
                    Step::Append(sizes) => {
                        let first = appended.len();
                        let together = sizes.iter().enumerate().map(|(index, &size)| spool.append(payload(first + index, size), 3));
                        for outcome in futures_util::future::join_all(together).await {
                            outcome.unwrap();
                        }
                        appended.extend(first..first + sizes.len());
                    }
                    Step::Acknowledge(count) => {
                        let count = count.min(appended.len() - taken);
                        prop_assert_eq!(take_all(source, count as u64).await, &appended[taken..taken + count]);
                        taken += count;
                        acknowledged = taken;
                        source.acknowledge(acknowledged as u64).await;
                    }
                    Step::Take(count) => {
                        let count = count.min(appended.len() - taken);
                        prop_assert_eq!(take_all(source, count as u64).await, &appended[taken..taken + count]);
                        taken += count;
                    }
                    Step::Reopen | Step::Crash(_) => {
                        let (spool, source, guard) = open;
                        guard.close();
                        drop((spool, source));
                        if let Step::Crash(tail) = step {
                            let (key, firsts) = segment::list(folder.path()).unwrap();
                            let path = segment::path(folder.path(), key.unwrap(), *firsts.last().unwrap());
                            let mut file = File::options().append(true).open(path).unwrap();
                            file.write_all(&tail).unwrap();
                        }
                        open = super::open(config(folder.path()), 1_000).unwrap();
                        let depth = open.0.depth();
                        prop_assert_eq!(depth.records, (appended.len() - acknowledged) as u64);
                        prop_assert_eq!(depth.readings, 3 * depth.records);
                        taken = acknowledged;
                    }
                }
            }
            let rest = (appended.len() - taken) as u64;
            prop_assert_eq!(take_all(&mut open.1, rest).await, &appended[taken..]);
            prop_assert_eq!(quarantined(folder.path()), 0);
            Ok(())
        })?;
    }

    #[test]
    fn opening_takes_any_bytes_as_a_segment(bytes in proptest::collection::vec(any::<u8>(), 0..300), second in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(segment::path(folder.path(), 7, 1), &bytes).unwrap();
        if second {
            fs::write(segment::path(folder.path(), 7, 9), &bytes).unwrap();
        }
        let (spool, _source, _guard) = super::open(config(folder.path()), 10).unwrap();
        prop_assert_eq!(spool.depth().records, 0);
        runtime().block_on(spool.append(payload(1, 1), 1)).unwrap();
    }
}

/// A folder with one segment of nine records, two of them acknowledged by a cursor in the middle, and where each record
/// ends, in the order of the file; the numbers are those of payloads, none is a cursor.
fn one_segment(folder: &Path) -> Vec<(usize, Option<usize>)> {
    let whole = Config {
        segment_bytes: 1024 * 1024,
        ..config(folder)
    };
    let (spool, mut source, guard) = super::open(whole, 100).unwrap();
    runtime().block_on(async {
        for number in 1..=5 {
            spool.append(payload(number, 3 * number), 1).await.unwrap();
        }
        assert_eq!(take_all(&mut source, 2).await, [1, 2]);
        source.acknowledge(2).await;
        for number in 6..=8 {
            spool.append(payload(number, 3 * number), 1).await.unwrap();
        }
    });
    guard.close();
    let (path, key) = only_segment(folder);
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

fn only_segment(folder: &Path) -> (PathBuf, u32) {
    let (key, firsts) = segment::list(folder).unwrap();
    assert_eq!(firsts, [1]);
    (segment::path(folder, key.unwrap(), 1), key.unwrap())
}

/// What is handed out of a copy of the folder whose segment is `bytes`, and how many files are in quarantine.
fn opened(folder: &Path, bytes: &[u8]) -> (Vec<usize>, usize) {
    let crashed = tempfile::tempdir().unwrap();
    copy(folder, crashed.path());
    fs::write(only_segment(crashed.path()).0, bytes).unwrap();
    let (spool, mut source, _guard) = super::open(config(crashed.path()), 100).unwrap();
    let numbers = runtime().block_on(take_all(&mut source, spool.depth().records));
    (numbers, quarantined(crashed.path()))
}

#[test]
fn a_crash_at_any_byte_costs_nothing_that_was_synced_before() {
    let folder = tempfile::tempdir().unwrap();
    let ends = one_segment(folder.path());
    let bytes = fs::read(only_segment(folder.path()).0).unwrap();
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
            opened(folder.path(), &bytes[..length]),
            (expected, 0),
            "cut at {length} of {}",
            bytes.len()
        );
    }
}

#[test]
fn damage_of_any_byte_costs_its_record_and_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let ends = one_segment(folder.path());
    let bytes = fs::read(only_segment(folder.path()).0).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let hit = ends.iter().position(|(end, _)| at < *end).unwrap();
        let acknowledged = if ends[hit].1.is_none() { 0 } else { 2 };
        let left = ends
            .iter()
            .enumerate()
            .filter(|&(index, _)| index != hit)
            .filter_map(|(_, (_, number))| *number);
        let expected: Vec<usize> = left.filter(|&number| number > acknowledged).collect();
        let aside = usize::from(hit + 1 < ends.len());
        assert_eq!(
            opened(folder.path(), &damaged),
            (expected, aside),
            "byte {at} of {}",
            bytes.len()
        );
    }
}

#[test]
fn a_segment_that_is_damaged_as_a_whole_costs_itself_only() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _source, guard) = super::open(config(folder.path()), 100).unwrap();
    runtime().block_on(async {
        for number in 1..=30 {
            spool.append(payload(number, 50), 1).await.unwrap();
        }
    });
    guard.close();
    let (key, firsts) = segment::list(folder.path()).unwrap();
    let path = segment::path(folder.path(), key.unwrap(), firsts[1]);
    fs::write(&path, vec![0; fs::metadata(&path).unwrap().len() as usize]).unwrap();

    let (spool, mut source, _guard) = super::open(config(folder.path()), 100).unwrap();
    let expected: Vec<usize> = (1..=30)
        .filter(|n| !(firsts[1]..firsts[2]).contains(&(*n as u64)))
        .collect();
    assert_eq!(spool.depth().records, expected.len() as u64);
    let found = async {
        tokio::time::timeout(
            Duration::from_secs(10),
            take_all(&mut source, expected.len() as u64),
        )
        .await
    };
    let found = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(found);
    assert_eq!(found.expect("the source goes past it"), expected);
    assert_eq!(quarantined(folder.path()), 1);
}

#[test]
fn a_full_spool_refuses_and_takes_again_what_was_made_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let small = Config {
        max_bytes: 4_000,
        ..config(folder.path())
    };
    let (spool, mut source, guard) = super::open(small, 1_000).unwrap();
    runtime().block_on(async {
        let mut seen = BTreeSet::new();
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
            seen.extend(take_all(&mut source, count).await);
            source.acknowledge(u64::MAX).await;
        }
        assert_eq!(seen, (0..50).collect());
    });
    guard.close();
    assert_eq!(spool.depth(), Depth::default());
    assert!(
        segment::list(folder.path()).unwrap().1.len() < 12,
        "segments were not deleted"
    );
}

#[test]
fn a_failed_sync_is_fatal_and_never_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let sync = |_: &File| Err(io::Error::other("the disk is gone"));
    let (spool, _source, _guard) = open_with(config(folder.path()), 10, sync).unwrap();
    let failed = Err(AppendError::Failed("the disk is gone".into()));
    runtime().block_on(async {
        assert_eq!(spool.append(payload(1, 1), 1).await, failed);
        spool.failed().cancelled().await;
        assert_eq!(spool.append(payload(2, 1), 1).await, failed);
    });
}

#[test]
fn a_second_process_on_the_folder_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (_spool, _source, guard) = super::open(config(folder.path()), 10).unwrap();
    let second = super::open(config(folder.path()), 10)
        .map(|_| ())
        .unwrap_err();
    assert!(
        second.to_string().contains("in use by another process"),
        "{second}"
    );
    guard.close();
    super::open(config(folder.path()), 10).unwrap();
}

#[test]
fn a_rejected_record_is_kept_whole_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, mut source, guard) = super::open(config(folder.path()), 100).unwrap();
    runtime().block_on(async {
        for number in 1..=4 {
            spool.append(payload(number, 10), 1).await.unwrap();
        }
        assert_eq!(take_all(&mut source, 4).await, [1, 2, 3, 4]);
        let token = |tag| Token { generation: 1, tag };
        use crate::source::{Source as _, Token};
        source.reject(token(3)).await;
        source.acknowledge_through(token(2)).await;
        source.reject(token(4)).await;
    });
    guard.close();
    let kept = fs::read(folder.path().join("rejected/00000000000000000003.message")).unwrap();
    assert_eq!(kept, payload(3, 10));
    let (spool, _source, _guard) = super::open(config(folder.path()), 100).unwrap();
    assert_eq!(spool.depth().records, 0);
}

#[test]
fn no_more_is_handed_out_than_may_be_held() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, mut source, _guard) = super::open(config(folder.path()), 2).unwrap();
    runtime().block_on(async {
        for number in 1..=3 {
            spool.append(payload(number, 10), 1).await.unwrap();
        }
        assert_eq!(take_all(&mut source, 2).await, [1, 2]);
        assert!(source.take_ready().is_none());
        assert!(source.take().now_or_never().is_none());
        use futures_util::FutureExt as _;
        source.acknowledge(1).await;
        assert_eq!(take_all(&mut source, 1).await, [3]);
    });
}

#[test]
fn a_record_inside_of_a_payload_is_no_record_whatever_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _source, guard) = super::open(config(folder.path()), 10).unwrap();
    // As a device could write it: a cursor far ahead, with a checksum that needs no key.
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
    let mut bytes = fs::read(only_segment(folder.path()).0).unwrap();
    bytes[0] ^= 1;
    assert_eq!(opened(folder.path(), &bytes), (vec![2], 1));
}

//! A crash at every byte, and damage to every byte.

use super::*;

/// Fills a directory with one segment of nine records: eight payloads, and a cursor that
/// acknowledges two of them. Returns for each record in the file its end and its number; `None` for
/// the cursor.
fn one_segment(directory: &Path) -> Vec<(usize, Option<usize>)> {
    let one_segment = Config {
        segment_bytes: 1024 * 1024,
        ..config(directory)
    };
    let (spool, mut source, guard) = crate::spool::open(one_segment, 100).unwrap();
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

/// Opens a copy of the directory whose segment has the content `bytes`. Returns the numbers of the
/// payloads in it, and the number of files in quarantine.
fn open_copy(directory: &Path, bytes: &[u8]) -> (Vec<usize>, usize) {
    let copied = tempfile::tempdir().unwrap();
    copy(directory, copied.path());
    fs::write(only_segment(copied.path()).0, bytes).unwrap();
    let (spool, mut source, _guard) = crate::spool::open(config(copied.path()), 100).unwrap();
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
    let (spool, _source, guard) = crate::spool::open(config(directory.path()), 100).unwrap();
    runtime().block_on(async {
        for number in 1..=30 {
            spool.append(payload(number, 50), 1).await.unwrap();
        }
    });
    guard.close();
    let (key, firsts) = segment::list(directory.path()).unwrap();
    let path = segment::path(directory.path(), key.unwrap(), firsts[1]);
    fs::write(&path, vec![0; fs::metadata(&path).unwrap().len() as usize]).unwrap();

    let (spool, mut source, _guard) = crate::spool::open(config(directory.path()), 100).unwrap();
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
fn a_record_inside_a_payload_is_never_read_as_a_record() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _source, guard) = crate::spool::open(config(directory.path()), 10).unwrap();
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

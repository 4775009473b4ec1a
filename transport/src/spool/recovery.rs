//! Recovery: what opening finds in the directory, and repairs.
//!
//! In: the segments as the last process left them. Out: segments that hold only whole records, and
//! what is in them. A torn tail is truncated, because no append of it returned. Damaged bytes are
//! moved to `quarantine/` and counted. On an I/O error opening fails; it can be retried.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;

use schema::{clock, metric};

use super::record::{Header, Kind};
use super::segment::{self, Scan};
use super::{Depth, Segments};

/// What opening found in a directory.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub key: u32,
    pub segments: Segments,
    /// Everything up to this sequence is acknowledged.
    pub acknowledged: u64,
    /// The sequence of the next payload.
    pub next_sequence: u64,
    pub depth: Depth,
}

/// Reads and repairs every segment, and counts what is not acknowledged.
///
/// It goes from the last segment to the first. A cursor covers only records before it, so that
/// every cursor that covers a segment is known when that segment is read, and sums are all that has
/// to be remembered.
pub(super) fn recover(directory: &Path) -> io::Result<Recovered> {
    let (key, firsts) = segment::list(directory)?;
    let key = key.unwrap_or_else(|| uuid::Uuid::new_v4().as_fields().0);
    let mut recovered = Recovered {
        key,
        next_sequence: 1,
        segments: BTreeMap::new(),
        ..Recovered::default()
    };
    let mut missing = 0;
    // The first sequence of the segment after the current one.
    let mut following: Option<u64> = None;
    for first in firsts.into_iter().rev() {
        let bytes = fs::read(segment::path(directory, key, first))?;
        let mut payloads = Vec::new();
        let scan = segment::scan(&bytes, key, first, |header| match header.kind {
            Kind::Cursor => {
                recovered.acknowledged = recovered.acknowledged.max(header.sequence);
            }
            Kind::Payload => payloads.push(header),
        });
        let is_last = following.is_none();
        repair(directory, key, first, &bytes, &scan, is_last)?;
        let mut expected = first;
        for header in &payloads {
            let from = expected.max(recovered.acknowledged + 1);
            missing += header.sequence.saturating_sub(from);
            expected = header.sequence + 1;
        }
        payloads.retain(|header| header.sequence > recovered.acknowledged);
        if let Some(following) = following
            && following > recovered.acknowledged
        {
            let expected = scan.next_sequence.max(recovered.acknowledged + 1);
            missing += following.saturating_sub(expected);
        }
        recovered.add(&payloads);
        let length: usize = scan.valid.iter().map(ExactSizeIterator::len).sum();
        recovered.segments.insert(first, length as u64);
        recovered.next_sequence = recovered.next_sequence.max(scan.next_sequence);
        following = Some(first);
    }
    if let Some(first) = following {
        missing += (first - 1).saturating_sub(recovered.acknowledged);
    }
    if missing > 0 {
        metrics::counter!(metric::SPOOL_MISSING.name).increment(missing);
        tracing::error!(
            directory = %directory.display(),
            records = missing,
            "records are missing from the spool"
        );
    }
    recovered.next_sequence = recovered.next_sequence.max(recovered.acknowledged + 1);
    segment::sync_directory(directory)?;
    Ok(recovered)
}

impl Recovered {
    fn add(&mut self, payloads: &[Header]) {
        for header in payloads {
            self.depth.records += 1;
            self.depth.readings += u64::from(header.readings);
            self.depth.bytes += header.size() as u64;
        }
    }
}

/// Removes from a segment what is not a record. In the last segment, the bytes after the last
/// record are the tail of an append that a crash interrupted; anywhere else they are damage.
fn repair(
    directory: &Path,
    key: u32,
    first: u64,
    bytes: &[u8],
    scan: &Scan,
    is_last: bool,
) -> io::Result<()> {
    let path = segment::path(directory, key, first);
    let has_tail = scan.end < bytes.len();
    let mut damaged = scan.damaged.clone();
    if has_tail && !is_last {
        damaged.push(scan.end..bytes.len());
    }
    if !damaged.is_empty() {
        quarantine(directory, first, bytes, &damaged)?;
        let valid = scan.valid.iter().map(|range| &bytes[range.clone()]);
        return rewrite(directory, &path, valid);
    }
    if has_tail {
        tracing::warn!(
            segment = first,
            bytes = bytes.len() - scan.end,
            "truncated a record that a crash left incomplete"
        );
        let file = File::options().write(true).open(&path)?;
        file.set_len(scan.end as u64)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Copies damaged bytes of a segment to files in `quarantine/`.
fn quarantine(
    directory: &Path,
    first: u64,
    bytes: &[u8],
    damaged: &[Range<usize>],
) -> io::Result<()> {
    let quarantine = directory.join("quarantine");
    fs::create_dir_all(&quarantine)?;
    for range in damaged {
        let name = format!("{first:020}-{}-{}.damaged", range.start, clock::now());
        let path = quarantine.join(name);
        let mut file = File::create(&path)?;
        file.write_all(&bytes[range.clone()])?;
        file.sync_all()?;
        metrics::counter!(metric::SPOOL_DAMAGED.name).increment(range.len() as u64);
        tracing::error!(
            segment = first,
            offset = range.start,
            bytes = range.len(),
            quarantined = %path.display(),
            "a segment of the spool is damaged; the damaged bytes are quarantined"
        );
    }
    segment::sync_directory(&quarantine)
}

/// Replaces a segment by its valid bytes, atomically.
fn rewrite<'a>(
    directory: &Path,
    path: &Path,
    valid: impl Iterator<Item = &'a [u8]>,
) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    for bytes in valid {
        file.write_all(bytes)?;
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    segment::sync_directory(directory)
}

//! A segment: one file of the spool. It holds consecutive records, and its name contains the
//! sequence of the first one and the key of the spool.
//!
//! In: the bytes of a segment. Out: which of them are records and which are damaged. After damage
//! the scan continues at the next position where a checksum matches, so that one bad sector loses
//! only the records on it.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::record::{self, Header, Kind};

const EXTENSION: &str = "segment";

/// The file of the segment whose first record is `first`.
pub(super) fn path(directory: &Path, key: u32, first: u64) -> PathBuf {
    directory.join(format!("{first:020}-{key:08x}.{EXTENSION}"))
}

/// The key of the segments in a directory, which all have the same, and the sequences of their
/// first records, ascending. The key is `None` if there is no segment.
///
/// # Errors
/// The directory cannot be read, or the name of a segment is not valid or has another key.
pub(super) fn list(directory: &Path) -> io::Result<(Option<u32>, Vec<u64>)> {
    let (mut key, mut firsts) = (None, Vec::new());
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != EXTENSION)
        {
            continue;
        }
        let foreign = || {
            let reason = format!("{} is not a segment of this spool", path.display());
            io::Error::new(io::ErrorKind::InvalidData, reason)
        };
        let (first, own_key) = parse_name(&path).ok_or_else(foreign)?;
        if *key.get_or_insert(own_key) != own_key {
            return Err(foreign());
        }
        firsts.push(first);
    }
    firsts.sort_unstable();
    Ok((key, firsts))
}

/// The sequence and the key in the name of a segment.
fn parse_name(path: &Path) -> Option<(u64, u32)> {
    let (first, key) = path.file_stem()?.to_str()?.split_once('-')?;
    let first = first.parse().ok()?;
    let key = u32::from_str_radix(key, 16).ok()?;
    (1..=record::MAX_SEQUENCE)
        .contains(&first)
        .then_some((first, key))
}

/// Makes it durable that files of `directory` were created, renamed or removed.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The content of a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the records are; adjacent ones are merged into one range.
    pub valid: Vec<Range<usize>>,
    /// The bytes between records that are not records.
    pub damaged: Vec<Range<usize>>,
    /// Where the last record ends. The bytes after it are not a record.
    pub end: usize,
    /// The sequence after that of the last payload.
    pub next_sequence: u64,
}

/// Scans a segment whose payloads have sequences from `first` on, and passes each record to
/// `visit`.
pub(super) fn scan(bytes: &[u8], key: u32, first: u64, mut visit: impl FnMut(Header)) -> Scan {
    let mut scan = Scan {
        next_sequence: first,
        ..Scan::default()
    };
    let mut at = 0;
    while at < bytes.len() {
        let is_in_order =
            |header: &Header| header.kind == Kind::Cursor || header.sequence >= scan.next_sequence;
        let record = record::read(&bytes[at..], key)
            .map(|(header, _)| header)
            .filter(is_in_order);
        let Some(header) = record else {
            at += 1;
            continue;
        };
        if at > scan.end {
            scan.damaged.push(scan.end..at);
        }
        let end = at + header.size();
        match scan.valid.last_mut().filter(|range| range.end == at) {
            Some(range) => range.end = end,
            None => scan.valid.push(at..end),
        }
        if header.kind == Kind::Payload {
            scan.next_sequence = header.sequence + 1;
        }
        visit(header);
        (at, scan.end) = (end, end);
    }
    scan
}

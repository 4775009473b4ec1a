//! A segment: one file of the spool, records one behind the other, named after the sequence of its first
//! and the key of the spool.
//!
//! In: the bytes of a segment as they were found. Out: which of them are records, and which are damaged. After damage the
//! records go on at the next place where a checksum agrees, so that one bad sector costs what was on it and no more.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::record::{self, Header, Kind};

const EXTENSION: &str = "segment";

/// The file of the segment whose first record is `first`.
pub fn path(folder: &Path, key: u32, first: u64) -> PathBuf {
    folder.join(format!("{first:020}-{key:08x}.{EXTENSION}"))
}

/// The key of a folder's segments, which is one for all, and the sequences of their first records, ascending. The key is
/// none where there is no segment.
pub fn list(folder: &Path) -> io::Result<(Option<u32>, Vec<u64>)> {
    let (mut key, mut firsts) = (None, Vec::new());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
        {
            let name = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.split_once('-'));
            let parsed = name.and_then(|(first, own)| {
                Some((first.parse().ok()?, u32::from_str_radix(own, 16).ok()?))
            });
            let foreign = || {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is no segment of it", path.display()),
                )
            };
            let (first, own) = parsed
                .filter(|(first, _)| (1..=record::MAX_SEQUENCE).contains(first))
                .ok_or_else(foreign)?;
            if *key.get_or_insert(own) != own {
                return Err(foreign());
            }
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok((key, firsts))
}

/// Makes names of files durable: those that were made, renamed or removed in `folder`.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What was found in a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Where the records are; neighbours are one range.
    pub sound: Vec<Range<usize>>,
    /// What lies between records and is none.
    pub damage: Vec<Range<usize>>,
    /// Where the last record ends; what is behind it is no record.
    pub end: usize,
    /// The sequence that comes after the last payload.
    pub next: u64,
    /// Payloads that are not there although later ones are.
    pub missing: u64,
}

/// Reads a segment whose payloads have sequences from `first` on, and hands each record to `visit`.
pub fn scan(bytes: &[u8], key: u32, first: u64, mut visit: impl FnMut(Header)) -> Scan {
    let mut found = Scan {
        next: first,
        ..Scan::default()
    };
    let mut at = 0;
    while at < bytes.len() {
        let fits = |header: &Header| header.kind == Kind::Cursor || header.sequence >= found.next;
        let record = record::read(&bytes[at..], key)
            .map(|(header, _)| header)
            .filter(fits);
        let Some(header) = record else {
            at += 1;
            continue;
        };
        if at > found.end {
            found.damage.push(found.end..at);
        }
        let end = at + header.size();
        match found.sound.last_mut().filter(|range| range.end == at) {
            Some(range) => range.end = end,
            None => found.sound.push(at..end),
        }
        if header.kind == Kind::Payload {
            found.missing += header.sequence - found.next;
            found.next = header.sequence + 1;
        }
        visit(header);
        (at, found.end) = (end, end);
    }
    found
}

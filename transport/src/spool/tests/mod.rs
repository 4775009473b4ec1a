//! The spool on a directory: as a queue, after a crash or damage, and what it counts.

mod counts;
mod damage;
mod limits;
mod model;

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

fn only_segment(directory: &Path) -> (PathBuf, u32) {
    let (key, firsts) = segment::list(directory).unwrap();
    assert_eq!(firsts, [1]);
    (segment::path(directory, key.unwrap(), 1), key.unwrap())
}

/// Opens a directory and returns the records that it counts as missing.
fn missing_after(directory: &Path) -> u64 {
    use crate::testing::Counters;
    runtime().block_on(async {
        let counters = Counters::record();
        let opened = crate::spool::open(config(directory), 100).unwrap();
        drop(opened);
        counters.sum(schema::metric::SPOOL_MISSING.name, &[])
    })
}

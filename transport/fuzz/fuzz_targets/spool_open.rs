//! Opens a directory of segments that consist of whole records, truncated records, cursors and
//! arbitrary bytes.
//!
//! Opening must not panic. The spool must hand out only whole records, in order, and the number of
//! them that its depth states. Opening again must find the same. What is appended then must come
//! last.

#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use transport::spool::record::{Header, Kind};
use transport::spool::{self, Config};

const KEY: u32 = 0x600d_f00d;

#[derive(Debug, Arbitrary)]
enum Piece {
    /// A record with a valid checksum. Its sequence is `skip` higher than the next one, and `cut`
    /// bytes are missing at its end.
    Record {
        skip: u32,
        size: u16,
        readings: u32,
        appended_at: i64,
        cut: u16,
    },
    /// Everything up to here is acknowledged.
    Cursor { through: u64 },
    /// Arbitrary bytes.
    Raw(Vec<u8>),
    /// Starts another segment, whose first sequence is `skip` higher than the next one.
    Segment { skip: u32 },
}

fuzz_target!(|pieces: Vec<Piece>| {
    let directory = tempfile::tempdir_in("/dev/shm").expect("create a directory");
    for (first, bytes) in segments(&pieces) {
        let name = format!("{first:020}-{KEY:08x}.segment");
        std::fs::write(directory.path().join(name), bytes).expect("write a segment");
    }
    let config = || Config {
        directory: directory.path().to_owned(),
        max_bytes: 1 << 30,
        segment_bytes: 4_096,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("build a runtime");

    let (spool, _, guard) = spool::open(config(), 8).expect("open a damaged spool");
    let depth = spool.depth();
    guard.close();

    let (spool, mut source, guard) = spool::open(config(), 8).expect("open a repaired spool");
    assert_eq!(spool.depth(), depth, "opening again found another depth");
    runtime.block_on(async {
        let appended = spool.append(Bytes::from_static(b"last"), 1).await.is_ok();
        let mut readings = 0;
        for _ in 0..depth.records {
            let record = source.next_record().await;
            readings += u64::from(record.header.readings);
            let expected = record.payload.len() as u8;
            assert!(
                record.payload.iter().all(|&byte| byte == expected),
                "a payload was changed"
            );
            source.acknowledge(record.header.sequence).await;
        }
        assert_eq!(readings, depth.readings);
        if appended {
            assert_eq!(
                source.next_record().await.payload,
                Bytes::from_static(b"last")
            );
        }
    });
    guard.close();
});

/// The segments that the pieces make up, each with its first sequence.
fn segments(pieces: &[Piece]) -> Vec<(u64, Vec<u8>)> {
    let mut segments = Vec::new();
    let (mut first, mut sequence, mut bytes) = (1, 1_u64, Vec::new());
    for piece in pieces {
        match piece {
            Piece::Record {
                skip,
                size,
                readings,
                appended_at,
                cut,
            } => {
                let size = usize::from(*size) % 300;
                sequence += u64::from(*skip);
                let header = Header {
                    kind: Kind::Payload,
                    sequence,
                    appended_at: *appended_at,
                    readings: *readings,
                    length: size as u32,
                };
                let begin = bytes.len();
                header.write(&vec![size as u8; size], KEY, &mut bytes);
                let keep = (bytes.len() - begin).saturating_sub(usize::from(*cut));
                bytes.truncate(begin + keep);
                sequence += 1;
            }
            Piece::Cursor { through } => {
                // A cursor never covers later records, because only the writer knows the key.
                let header = Header {
                    kind: Kind::Cursor,
                    sequence: *through % sequence,
                    appended_at: 0,
                    readings: 0,
                    length: 0,
                };
                header.write(&[], KEY, &mut bytes);
            }
            Piece::Raw(raw) => bytes.extend_from_slice(raw),
            Piece::Segment { skip } => {
                sequence += u64::from(*skip);
                segments.push((first, std::mem::take(&mut bytes)));
                first = sequence;
            }
        }
    }
    segments.push((first, bytes));
    segments
}

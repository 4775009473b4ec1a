//! Opens a folder of segments that are made of whole records, halves of records, cursors and bytes of any kind.
//!
//! Opening never panics; what it hands out was a whole record, in order, and as many as it says; opening again finds the
//! same; and what is appended then comes last.

#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use service::spool::record::{Header, Kind};
use service::spool::{self, Config};

const KEY: u32 = 0x600d_f00d;

#[derive(Debug, Arbitrary)]
enum Piece {
    /// A record with a true checksum and a sequence so much above the last one; bytes are cut off from its end.
    Record {
        skip: u32,
        size: u16,
        readings: u32,
        appended_at: i64,
        cut: u16,
    },
    /// Everything up to here is acknowledged.
    Cursor {
        through: u64,
    },
    Raw(Vec<u8>),
    /// The next file, named by its first sequence.
    Segment { skip: u32 },
}

fuzz_target!(|pieces: Vec<Piece>| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    for (first, bytes) in segments(&pieces) {
        std::fs::write(folder.path().join(format!("{first:020}-{KEY:08x}.segment")), bytes).expect("a segment");
    }
    let config = || Config { folder: folder.path().to_owned(), max_bytes: 1 << 30, segment_bytes: 4_096 };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");

    let (spool, _, guard) = spool::open(config(), 8).expect("damage is no error");
    let depth = spool.depth();
    guard.close();

    let (spool, mut source, guard) = spool::open(config(), 8).expect("and none the second time");
    assert_eq!(spool.depth(), depth, "opening changed what is there");
    runtime.block_on(async {
        let last = spool.append(Bytes::from_static(b"last"), 1).await.is_ok();
        let mut readings = 0;
        for _ in 0..depth.records {
            let record = source.take().await;
            readings += u64::from(record.header.readings);
            assert!(record.payload.iter().all(|&byte| byte == record.payload.len() as u8), "no record of ours");
            source.acknowledge(record.header.sequence).await;
        }
        assert_eq!(readings, depth.readings);
        if last {
            assert_eq!(source.take().await.payload, Bytes::from_static(b"last"));
        }
    });
    guard.close();
});

fn segments(pieces: &[Piece]) -> Vec<(u64, Vec<u8>)> {
    let (mut done, mut first, mut sequence, mut bytes) = (Vec::new(), 1, 1_u64, Vec::new());
    for piece in pieces {
        match piece {
            Piece::Record { skip, size, readings, appended_at, cut } => {
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
                // None is ahead of what it speaks of: nobody but the writer knows the key.
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
                done.push((first, std::mem::take(&mut bytes)));
                first = sequence;
            }
        }
    }
    done.push((first, bytes));
    done
}

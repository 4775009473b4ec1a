//! A record of the spool on disk: a header of 32 bytes, and the payload.
//!
//! | offset | bytes | |
//! |---:|---:|---|
//! | 0 | 4 | CRC-32 (IEEE) of all that follows, the payload included, begun with the spool's key |
//! | 4 | 4 | kind: what the record is, and by its value that it is one |
//! | 8 | 8 | sequence: of the record; of a cursor, up to which everything is acknowledged |
//! | 16 | 8 | when it was appended, in microseconds since 1970 |
//! | 24 | 4 | readings in the payload |
//! | 28 | 4 | bytes of the payload |
//!
//! All numbers are little-endian. The key is random and no secret to whoever can read the folder; it is one to devices,
//! which choose nearly every byte of a payload and could otherwise put a record into it, for a search after damage to find.
//! In: bytes of any origin. Out: a record only where the checksum agrees.

use schema::reading::Micros;

/// Bytes before the payload.
pub const HEADER: usize = 32;
/// Longest payload. A length above it is damage.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// Highest sequence. One above it is damage: a million records a second do not come so far in a hundred thousand years.
pub const MAX_SEQUENCE: u64 = 1 << 62;

const BATCH: u32 = u32::from_le_bytes(*b"GWb1");
const CURSOR: u32 = u32::from_le_bytes(*b"GWc1");

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A payload that somebody appended.
    Payload,
    /// Everything up to its sequence is acknowledged.
    Cursor,
}

/// What a record says before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// See [`Kind`].
    pub kind: Kind,
    /// Its place in the queue, from 1.
    pub sequence: u64,
    /// When it was appended.
    pub appended_at: Micros,
    /// Readings in its payload.
    pub readings: u32,
    /// Bytes of its payload.
    pub length: u32,
}

impl Header {
    /// Bytes of the record on disk.
    pub fn size(&self) -> usize {
        HEADER + self.length as usize
    }

    /// Writes the record behind `out`. The payload is as long as the header says.
    pub fn write(&self, payload: &[u8], key: u32, out: &mut Vec<u8>) {
        let begin = out.len();
        let kind = match self.kind {
            Kind::Payload => BATCH,
            Kind::Cursor => CURSOR,
        };
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.appended_at.to_le_bytes());
        out.extend_from_slice(&self.readings.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(payload);
        let checksum = checksum(key, &[&out[begin + 4..]]);
        out[begin..begin + 4].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn checksum(key: u32, parts: &[&[u8]]) -> u32 {
    let mut checksum = crc32fast::Hasher::new_with_initial(key);
    parts.iter().for_each(|part| checksum.update(part));
    checksum.finalize()
}

/// The record at the start of `bytes`, if there is a whole one.
pub fn read(bytes: &[u8], key: u32) -> Option<(Header, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let four = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let eight = |at: usize| u64::from(four(at)) | u64::from(four(at + 4)) << 32;
    let kind = match four(4) {
        BATCH => Kind::Payload,
        CURSOR => Kind::Cursor,
        _ => return None,
    };
    let (sequence, length) = (eight(8), four(28));
    if length as usize > MAX_PAYLOAD || sequence > MAX_SEQUENCE {
        return None;
    }
    let payload = rest.get(..length as usize)?;
    if checksum(key, &[&header[4..], payload]) != four(0) {
        return None;
    }
    let header = Header {
        kind,
        sequence,
        appended_at: eight(16).cast_signed(),
        readings: four(24),
        length,
    };
    Some((header, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_and_any_change_is_noticed(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            sequence in 0..=MAX_SEQUENCE,
            (appended_at, readings) in any::<(i64, u32)>(),
            (at, change) in (any::<proptest::sample::Index>(), 1..=255_u8),
        ) {
            let length = payload.len() as u32;
            let header = Header { kind: Kind::Payload, sequence, appended_at, readings, length };
            let mut bytes = Vec::new();
            header.write(&payload, 7, &mut bytes);
            prop_assert_eq!(read(&bytes, 8), None);
            prop_assert_eq!(read(&bytes, 7), Some((header, &payload[..])));
            for end in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..end], 7), None);
            }
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            prop_assert_eq!(read(&bytes, 7), None);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, 7);
        }
    }
}

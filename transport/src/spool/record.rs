//! A record of the spool on disk: a header of 32 bytes, then the payload.
//!
//! In: bytes of any origin. Out: a record, only if its checksum matches.
//!
//! | offset | bytes | content |
//! |---:|---:|---|
//! | 0 | 4 | CRC-32 (IEEE) of everything after it, payload included, seeded with the spool's key |
//! | 4 | 4 | kind of the record; also its magic number |
//! | 8 | 8 | sequence of the record; in a cursor, the sequence up to which all is acknowledged |
//! | 16 | 8 | when the record was appended, in microseconds since 1970 |
//! | 24 | 4 | number of readings in the payload |
//! | 28 | 4 | length of the payload in bytes |
//!
//! All numbers are little-endian. The key is random. It is not a secret from users who can read the
//! directory, but it is one from devices. A device chooses nearly every byte of a payload, and
//! could otherwise put a forged record into it, which the search after damage would find.

use schema::reading::Micros;

/// Length of the header in bytes.
pub const HEADER: usize = 32;
/// Upper bound on the length of a payload in bytes. A greater length is damage.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// Upper bound on sequences. A greater one is damage: at a million records per second it would take
/// more than a hundred thousand years to reach.
pub const MAX_SEQUENCE: u64 = 1 << 62;

const BATCH: u32 = u32::from_le_bytes(*b"GWb1");
const CURSOR: u32 = u32::from_le_bytes(*b"GWc1");

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A payload that was appended.
    Payload,
    /// Everything up to its sequence is acknowledged.
    Cursor,
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of the record.
    pub kind: Kind,
    /// The position in the queue, from 1; see [`Kind::Cursor`] for that of a cursor.
    pub sequence: u64,
    /// When the record was appended.
    pub appended_at: Micros,
    /// Number of readings in the payload.
    pub readings: u32,
    /// Length of the payload in bytes.
    pub length: u32,
}

impl Header {
    /// Length of the record on disk in bytes.
    pub fn size(&self) -> usize {
        HEADER + self.length as usize
    }

    /// Appends the record to `out`. The payload must have the length that the header states.
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

fn checksum(key: u32, slices: &[&[u8]]) -> u32 {
    let mut checksum = crc32fast::Hasher::new_with_initial(key);
    slices.iter().for_each(|slice| checksum.update(slice));
    checksum.finalize()
}

/// The record at the start of `bytes`, if there is a complete and undamaged one.
pub fn read(bytes: &[u8], key: u32) -> Option<(Header, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let u32_at = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let kind = match u32_at(4) {
        BATCH => Kind::Payload,
        CURSOR => Kind::Cursor,
        _ => return None,
    };
    let (sequence, length) = (u64_at(8), u32_at(28));
    if length as usize > MAX_PAYLOAD || sequence > MAX_SEQUENCE {
        return None;
    }
    let payload = rest.get(..length as usize)?;
    if checksum(key, &[&header[4..], payload]) != u32_at(0) {
        return None;
    }
    let header = Header {
        kind,
        sequence,
        appended_at: u64_at(16).cast_signed(),
        readings: u32_at(24),
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
        fn a_written_record_can_be_read_and_any_change_is_detected(
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
        fn reading_arbitrary_bytes_does_not_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = read(&bytes, 7);
        }
    }
}

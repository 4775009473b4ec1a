//! The batch: the content of one message on the queue.
//!
//! In: columns of readings that the front end has validated and resolved. Out: bytes, which are a
//! version byte and the protobuf message of `proto/batch.proto`. Decoding accepts any bytes, never
//! panics, and returns a [`DecodeError`] for bytes that are not a valid batch.

use prost::Message as _;
use uuid::Uuid;

use crate::partition::{Days, MAX_DAYS};
use crate::reading::{Micros, Reading, SeriesId};

/// The generated protobuf message.
#[expect(unreachable_pub, reason = "prost generates public items")]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/gridwatch.v1.rs"));
}

/// First byte of every message. A consumer rejects a version that it does not know.
pub const VERSION: u8 = 1;

/// Upper bound on the readings of a batch. At 20 bytes each a message stays near 80 kB, a size at
/// which a quorum queue still carries thousands of messages per second, and a consumer's prefetch
/// of 512 messages stays near 40 MB.
pub const MAX_READINGS: usize = 4_096;

/// Upper bound on the length of a message in bytes: the columns, a receipt for each reading, and
/// some room. A longer message is not decoded.
pub const MAX_MESSAGE_BYTES: usize = MAX_READINGS * (20 + 13) + 1_024;

/// The share of one request in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// When the request was received.
    pub received_at: Micros,
    /// Number of the batch's readings that came with this request.
    pub count: u32,
}

/// Readings in columns, with the clocks up to the sink.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Idempotency key: UUIDv7.
    pub id: Uuid,
    /// When the front end sent the batch to its sink.
    pub enqueued_at: Micros,
    /// The requests of the batch, in the order of the columns. Their counts add up to
    /// [`Batch::len`].
    pub receipts: Vec<Receipt>,
    /// Column: series of each reading.
    pub series_id: Vec<SeriesId>,
    /// Column: time of each reading.
    pub measured_at: Vec<Micros>,
    /// Column: value of each reading.
    pub value: Vec<f64>,
}

/// Why a message is not a valid batch. Every such message is poison: a retry cannot succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message has no bytes.
    #[error("the message is empty")]
    Empty,
    /// The message has a version that this consumer does not know.
    #[error("the message has version {0}; only version 1 is supported")]
    Version(u8),
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("the message has {0} bytes, more than a batch can have")]
    TooLong(usize),
    /// The bytes are not the protobuf message.
    #[error("the message is not a valid protobuf batch: {0}")]
    Malformed(String),
    /// The batch id is not 16 bytes.
    #[error("the batch id has {0} bytes instead of 16")]
    Id(usize),
    /// The columns and receipts differ in length.
    #[error(
        "the columns differ in length: {series} series, {times} times, {values} values, \
         receipts of {receipts} readings"
    )]
    Columns {
        /// Length of the series column.
        series: usize,
        /// Length of the time column.
        times: usize,
        /// Length of the value column.
        values: usize,
        /// Sum of the receipts' counts.
        receipts: u64,
    },
    /// More than [`MAX_READINGS`].
    #[error("the batch has {0} readings, more than the 4096 allowed")]
    TooMany(usize),
    /// More than [`MAX_DAYS`] days.
    #[error("the readings of the batch span {0} days, more than the 256 allowed")]
    TooManyDays(usize),
}

impl DecodeError {
    /// The stable code: a metric label, and the reason in the dead-letter table.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_message",
            Self::Version(_) => "unknown_version",
            Self::TooLong(_) | Self::TooMany(_) | Self::TooManyDays(_) => "message_too_large",
            Self::Malformed(_) | Self::Id(_) | Self::Columns { .. } => "malformed_message",
        }
    }

    /// Every [`Self::code`], so that its counter exists before the first message that is not valid.
    pub const CODES: [&'static str; 4] = [
        "empty_message",
        "unknown_version",
        "message_too_large",
        "malformed_message",
    ];
}

impl Batch {
    /// A batch with a new id and no readings.
    pub fn new() -> Self {
        Self {
            id: Uuid::now_v7(),
            ..Self::default()
        }
    }

    /// Number of readings.
    pub fn len(&self) -> usize {
        self.series_id.len()
    }

    /// Whether the batch has no readings.
    pub fn is_empty(&self) -> bool {
        self.series_id.is_empty()
    }

    /// Appends one reading to the columns. The caller adds the receipts.
    pub fn push(&mut self, reading: Reading) {
        self.series_id.push(reading.series_id);
        self.measured_at.push(reading.measured_at);
        self.value.push(reading.value);
    }

    /// The readings, row by row.
    pub fn readings(&self) -> impl Iterator<Item = Reading> + '_ {
        self.series_id
            .iter()
            .zip(&self.measured_at)
            .zip(&self.value)
            .map(|((&series_id, &measured_at), &value)| Reading {
                series_id,
                measured_at,
                value,
            })
    }

    /// Encodes the batch as the bytes of a message.
    pub fn encode(&self) -> Vec<u8> {
        let message = wire::Batch {
            id: self.id.as_bytes().to_vec(),
            enqueued_at: self.enqueued_at,
            received_at: self.receipts.iter().map(|r| r.received_at).collect(),
            received_count: self.receipts.iter().map(|r| r.count).collect(),
            series_id: self.series_id.clone(),
            measured_at: self.measured_at.clone(),
            value: self.value.clone(),
        };
        let mut bytes = Vec::with_capacity(1 + message.encoded_len());
        bytes.push(VERSION);
        message.encode_raw(&mut bytes);
        bytes
    }

    /// Decodes the bytes of a message. Any bytes are accepted as input.
    ///
    /// # Errors
    /// [`DecodeError`]: the message is poison and has to be dead-lettered with this reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(DecodeError::TooLong(bytes.len()));
        }
        match bytes.first() {
            None => return Err(DecodeError::Empty),
            Some(&VERSION) => {}
            Some(&version) => return Err(DecodeError::Version(version)),
        }
        let message = wire::Batch::decode(&bytes[1..])
            .map_err(|error| DecodeError::Malformed(error.to_string()))?;
        let id = Uuid::from_slice(&message.id).map_err(|_| DecodeError::Id(message.id.len()))?;
        let receipts_sum: u64 = message.received_count.iter().map(|&n| u64::from(n)).sum();
        let readings = message.series_id.len();
        let fits = readings == message.measured_at.len()
            && readings == message.value.len()
            && readings as u64 == receipts_sum
            && message.received_at.len() == message.received_count.len();
        if !fits {
            return Err(DecodeError::Columns {
                series: readings,
                times: message.measured_at.len(),
                values: message.value.len(),
                receipts: receipts_sum,
            });
        }
        if readings > MAX_READINGS {
            return Err(DecodeError::TooMany(readings));
        }
        let days = message.measured_at.iter().copied().collect::<Days>().len();
        if days > MAX_DAYS {
            return Err(DecodeError::TooManyDays(days));
        }
        let receipts = message
            .received_at
            .into_iter()
            .zip(message.received_count)
            .map(|(received_at, count)| Receipt { received_at, count })
            .collect();
        Ok(Self {
            id,
            enqueued_at: message.enqueued_at,
            receipts,
            series_id: message.series_id,
            measured_at: message.measured_at,
            value: message.value,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::partition::DAY;

    fn small() -> Batch {
        let mut batch = Batch {
            id: Uuid::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
            enqueued_at: 1_700_000_000_000_002,
            receipts: vec![Receipt {
                received_at: 1_700_000_000_000_001,
                count: 2,
            }],
            ..Batch::default()
        };
        batch.push(Reading {
            series_id: 1,
            measured_at: 1_700_000_000_000_000,
            value: 1.5,
        });
        batch.push(Reading {
            series_id: -2,
            measured_at: -1,
            value: -0.0,
        });
        batch
    }

    /// The bytes were written by hand from the protobuf encoding rules
    /// (protobuf.dev/programming-guides/encoding). A change that breaks this test breaks every
    /// message that is on a queue.
    #[test]
    fn the_wire_format_is_pinned_by_golden_bytes() {
        let golden: Vec<u8> = [
            &[VERSION][..],
            &[
                0x0a, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
            ],
            &[0x11, 0x02, 0x40, 0x1e, 0x18, 0x24, 0x0a, 0x06, 0x00],
            &[0x1a, 8, 0x01, 0x40, 0x1e, 0x18, 0x24, 0x0a, 0x06, 0x00],
            &[0x22, 1, 2],
            &[0x2a, 8, 1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff],
            &[0x32, 16, 0x00, 0x40, 0x1e, 0x18, 0x24, 0x0a, 0x06, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x3a, 16, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f],
            &[0, 0, 0, 0, 0, 0, 0, 0x80],
        ]
        .concat();
        assert_eq!(small().encode(), golden);
        assert_eq!(Batch::decode(&golden).unwrap(), small());
    }

    #[test]
    fn each_kind_of_invalid_message_has_its_error() {
        assert_eq!(Batch::decode(&[]), Err(DecodeError::Empty));
        assert_eq!(Batch::decode(&[9, 1]), Err(DecodeError::Version(9)));
        assert!(matches!(
            Batch::decode(&vec![1; MAX_MESSAGE_BYTES + 1]),
            Err(DecodeError::TooLong(_))
        ));
        let bytes = small().encode();
        assert!(matches!(
            Batch::decode(&bytes[..bytes.len() - 1]),
            Err(DecodeError::Malformed(_))
        ));
        assert_eq!(Batch::decode(&[VERSION]), Err(DecodeError::Id(0)));
        let mut uneven = small();
        uneven.value.pop();
        assert!(matches!(
            Batch::decode(&uneven.encode()),
            Err(DecodeError::Columns { .. })
        ));
        let mut receipts = small();
        receipts.receipts[0].count = 3;
        assert!(matches!(
            Batch::decode(&receipts.encode()),
            Err(DecodeError::Columns { .. })
        ));
    }

    #[test]
    fn the_largest_batch_fits_the_largest_message() {
        let mut batch = Batch {
            receipts: vec![
                Receipt {
                    received_at: -1,
                    count: 1
                };
                MAX_READINGS
            ],
            ..Batch::new()
        };
        for _ in 0..MAX_READINGS {
            batch.push(Reading {
                series_id: i32::MIN,
                measured_at: i64::MIN,
                value: f64::MAX,
            });
        }
        assert_eq!(Batch::decode(&batch.encode()).unwrap(), batch);
        batch.push(Reading {
            series_id: 1,
            measured_at: 1,
            value: 1.0,
        });
        batch.receipts[0].count += 1;
        assert_eq!(
            Batch::decode(&batch.encode()),
            Err(DecodeError::TooMany(MAX_READINGS + 1))
        );
        batch.measured_at.truncate(MAX_DAYS + 1);
        batch.series_id.truncate(MAX_DAYS + 1);
        batch.value.truncate(MAX_DAYS + 1);
        batch.receipts.truncate(MAX_DAYS);
        batch.receipts[0].count = 2;
        for (day, at) in batch.measured_at.iter_mut().enumerate() {
            *at = 1_700_000_000_000_000 + day as i64 * DAY;
        }
        assert_eq!(
            Batch::decode(&batch.encode()),
            Err(DecodeError::TooManyDays(MAX_DAYS + 1))
        );
    }

    prop_compose! {
        fn any_batch()(
            id in any::<u128>(),
            enqueued_at in any::<i64>(),
            rows in prop::collection::vec(
                (any::<i32>(), any::<i64>(), prop::num::f64::ANY),
                0..200,
            ),
            received_at in any::<i64>(),
        ) -> Batch {
            let mut batch = Batch { id: Uuid::from_u128(id), enqueued_at, ..Batch::default() };
            for (row, (series_id, measured_at, value)) in rows.into_iter().enumerate() {
                batch.push(Reading { series_id, measured_at, value });
                let received_at = received_at.wrapping_add(row as i64);
                batch.receipts.push(Receipt { received_at, count: 1 });
            }
            batch
        }
    }

    proptest! {
        #[test]
        fn every_batch_survives_encoding_and_decoding(batch in any_batch()) {
            // The bytes are compared because NaN is not equal to itself.
            prop_assert_eq!(Batch::decode(&batch.encode()).unwrap().encode(), batch.encode());
        }

        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = Batch::decode(&bytes);
        }

        #[test]
        fn decoding_a_damaged_message_never_panics(
            batch in any_batch(),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
        ) {
            let mut bytes = batch.encode();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = Batch::decode(&bytes);
        }
    }
}

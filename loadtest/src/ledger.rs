//! The ledger: the outcome of each request in two bits. It determines the expected state of every
//! reading, because the contents of a request follow from its number.
//!
//! In: outcomes by request number, from the threads that send. Out: a compressed file. A damaged
//! file, or the file of another run, is an error. A hundred million requests take 25 MB.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, ensure};
use schema::reading::Micros;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was not sent: none of its readings may be stored.
    Unsent = 0,
    /// The response was 2xx: every valid reading has to be stored, and no invalid one.
    Accepted = 1,
    /// The response rejects the whole request: none of its readings may be stored.
    Rejected = 2,
    /// There was no final response: each of its valid readings may be stored or not.
    Unknown = 3,
}

impl Outcome {
    fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Unsent,
            1 => Self::Accepted,
            2 => Self::Rejected,
            _ => Self::Unknown,
        }
    }
}

/// Outcomes by request number, of a run or of one of its threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    bits: Vec<u8>,
    len: u64,
}

impl Ledger {
    /// Sets the outcome of a request.
    pub(crate) fn set(&mut self, request: u64, outcome: Outcome) {
        let (byte, shift) = ((request / 4) as usize, request % 4 * 2);
        if byte >= self.bits.len() {
            self.bits.resize(byte + 1, 0);
        }
        self.bits[byte] = self.bits[byte] & !(3 << shift) | (outcome as u8) << shift;
        self.len = self.len.max(request + 1);
    }

    /// The outcome of a request.
    pub(crate) fn get(&self, request: u64) -> Outcome {
        let byte = self.bits.get((request / 4) as usize);
        Outcome::from_bits(byte.copied().unwrap_or_default() >> (request % 4 * 2))
    }

    /// The highest request number that was set, plus one.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no outcome was set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Combines the ledgers of n threads, of which each sent every n-th request.
    pub(crate) fn interleave(threads: &[Ledger]) -> Self {
        let mut combined = Self::default();
        let longest = threads.iter().map(Ledger::len).max().unwrap_or_default();
        for turn in (0..longest).rev() {
            for (thread, number) in threads.iter().zip(0..) {
                if turn < thread.len() {
                    combined.set(turn * threads.len() as u64 + number, thread.get(turn));
                }
            }
        }
        combined
    }

    /// Writes the ledger, compressed, with the time of the run's first measurement.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path, begin: Micros) -> anyhow::Result<()> {
        let mut bytes = [self.len.to_le_bytes(), begin.to_le_bytes()].concat();
        bytes.extend_from_slice(&self.bits);
        std::fs::write(path, zstd::bulk::compress(&bytes, 3)?)
            .with_context(|| path.display().to_string())
    }

    /// Reads the ledger of the run whose first measurement is at `begin`.
    ///
    /// # Errors
    /// The file cannot be read, is not a valid ledger, or belongs to another run.
    pub fn read(path: &Path, begin: Micros) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        let bytes = zstd::stream::decode_all(File::open(path).with_context(name)?);
        let fields = bytes.ok().and_then(|bytes| {
            let (len, rest) = bytes.split_first_chunk()?;
            let (begin, bits) = rest.split_first_chunk()?;
            Some((
                u64::from_le_bytes(*len),
                Micros::from_le_bytes(*begin),
                bits.to_vec(),
            ))
        });
        let complete = fields.filter(|(len, _, bits)| len.div_ceil(4) == bits.len() as u64);
        let (len, own_begin, bits) = complete.with_context(|| {
            format!(
                "{}: not a ledger of this version, or the file is damaged",
                name()
            )
        })?;
        ensure!(
            own_begin == begin,
            "{}: the ledger is of another run than the report",
            name()
        );
        Ok(Self { bits, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_combined_written_and_read_back() {
        let outcomes = [
            Outcome::Accepted,
            Outcome::Unsent,
            Outcome::Rejected,
            Outcome::Unknown,
            Outcome::Accepted,
        ];
        let mut threads = vec![Ledger::default(); 2];
        let mut combined = Ledger::default();
        for (request, outcome) in (0..).zip(outcomes) {
            threads[request as usize % 2].set(request / 2, outcome);
            combined.set(request, outcome);
        }
        assert_eq!(Ledger::interleave(&threads), combined);
        let file = tempfile::NamedTempFile::new().unwrap();
        combined.write(file.path(), 7).unwrap();
        assert!(
            Ledger::read(file.path(), 8)
                .unwrap_err()
                .to_string()
                .contains("another run")
        );
        let read = Ledger::read(file.path(), 7).unwrap();
        assert_eq!(
            (0..6).map(|request| read.get(request)).collect::<Vec<_>>(),
            [&outcomes[..], &[Outcome::Unsent]].concat()
        );
        combined.set(1, Outcome::Accepted);
        assert_eq!(
            (combined.get(0), combined.get(1), combined.get(2)),
            (Outcome::Accepted, Outcome::Accepted, Outcome::Rejected)
        );
    }
}

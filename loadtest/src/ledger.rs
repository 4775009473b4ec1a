//! The ledger: what became of each request, in two bits, and by that of each reading, whose contents follow from its number.
//!
//! A hundred million readings in requests of one take 25 MB.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, ensure};
use schema::reading::Micros;

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Not sent: nothing of it may be stored.
    Unsent = 0,
    /// Answered with 2xx: every good reading has to be stored, and no bad one.
    Accepted = 1,
    /// Answered in a way that says that nothing of it was taken.
    Rejected = 2,
    /// No final answer: each of its good readings may be stored or not.
    Unknown = 3,
}

impl Fate {
    fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Unsent,
            1 => Self::Accepted,
            2 => Self::Rejected,
            _ => Self::Unknown,
        }
    }
}

/// Fates by request, or by every n-th request of one thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    bits: Vec<u8>,
    len: u64,
}

impl Ledger {
    /// Sets the fate of a request.
    pub fn set(&mut self, request: u64, fate: Fate) {
        let (byte, shift) = ((request / 4) as usize, request % 4 * 2);
        if byte >= self.bits.len() {
            self.bits.resize(byte + 1, 0);
        }
        self.bits[byte] = self.bits[byte] & !(3 << shift) | (fate as u8) << shift;
        self.len = self.len.max(request + 1);
    }

    /// The fate of a request.
    pub fn get(&self, request: u64) -> Fate {
        let byte = self
            .bits
            .get((request / 4) as usize)
            .copied()
            .unwrap_or_default();
        Fate::of(byte >> (request % 4 * 2))
    }

    /// One more than the highest request that was set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ledger of all, from those of threads of which each had every n-th request.
    pub fn interleave(parts: &[Ledger]) -> Self {
        let mut whole = Self::default();
        let most = parts.iter().map(Ledger::len).max().unwrap_or_default();
        for turn in (0..most).rev() {
            for (part, at) in parts.iter().zip(0..) {
                if turn < part.len() {
                    whole.set(turn * parts.len() as u64 + at, part.get(turn));
                }
            }
        }
        whole
    }

    /// Writes it, compressed, with the begin of its run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path, begin: Micros) -> anyhow::Result<()> {
        let mut bytes = [self.len.to_le_bytes(), begin.to_le_bytes()].concat();
        bytes.extend_from_slice(&self.bits);
        std::fs::write(path, zstd::bulk::compress(&bytes, 3)?)
            .with_context(|| path.display().to_string())
    }

    /// Reads that of a run with this begin.
    ///
    /// # Errors
    /// There is no such file, or it is no ledger, or another run's.
    pub fn read(path: &Path, begin: Micros) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        let bytes = zstd::stream::decode_all(File::open(path).with_context(name)?);
        let parts = bytes.ok().and_then(|bytes| {
            let (len, rest) = bytes.split_first_chunk()?;
            let (begin, bits) = rest.split_first_chunk()?;
            Some((
                u64::from_le_bytes(*len),
                Micros::from_le_bytes(*begin),
                bits.to_vec(),
            ))
        });
        let whole = parts.filter(|(len, _, bits)| len.div_ceil(4) == bits.len() as u64);
        let (len, of, bits) =
            whole.with_context(|| format!("{}: no ledger of this version, or damaged", name()))?;
        ensure!(
            of == begin,
            "{}: the ledger of another run than the report",
            name()
        );
        Ok(Self { bits, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_kept_interleaved_and_written() {
        let fates = [
            Fate::Accepted,
            Fate::Unsent,
            Fate::Rejected,
            Fate::Unknown,
            Fate::Accepted,
        ];
        let mut parts = vec![Ledger::default(); 2];
        let mut whole = Ledger::default();
        for (request, fate) in (0..).zip(fates) {
            parts[request as usize % 2].set(request / 2, fate);
            whole.set(request, fate);
        }
        assert_eq!(Ledger::interleave(&parts), whole);
        let file = tempfile::NamedTempFile::new().unwrap();
        whole.write(file.path(), 7).unwrap();
        assert!(
            Ledger::read(file.path(), 8)
                .unwrap_err()
                .to_string()
                .contains("another run")
        );
        let read = Ledger::read(file.path(), 7).unwrap();
        assert_eq!(
            (0..6).map(|request| read.get(request)).collect::<Vec<_>>(),
            [&fates[..], &[Fate::Unsent]].concat()
        );
        whole.set(1, Fate::Accepted);
        assert_eq!(
            (whole.get(0), whole.get(1), whole.get(2)),
            (Fate::Accepted, Fate::Accepted, Fate::Rejected)
        );
    }
}

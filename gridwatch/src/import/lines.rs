//! The lines of a text file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read as _};
use std::path::Path;

use anyhow::Context as _;

use super::source::Place;
use crate::UsageError;

/// Upper bound on the length of a line.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// The file, and the line that was read last.
pub(super) struct Lines {
    name: String,
    reader: BufReader<File>,
    bytes: u64,
    position: u64,
    line: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self, UsageError> {
        let name = path.display().to_string();
        let unreadable = |error| UsageError(format!("{name}: cannot be read: {error}"));
        let file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        Ok(Self {
            name,
            reader: BufReader::new(file),
            bytes,
            position: 0,
            line: 0,
            buffer: Vec::new(),
        })
    }

    /// The path of the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Length of the file, and number of bytes that are read.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.bytes, self.position)
    }

    /// The number of the line that was read last, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The place of the line that was read last.
    pub(super) fn place(&self) -> Place {
        Place::Line(self.line)
    }

    /// The next line that is not blank, without the blanks around it, or why it is not text;
    /// `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Result<&str, String>>> {
        loop {
            self.buffer.clear();
            let next = self.line + 1;
            let failed = || format!("{}, line {next}: cannot be read", self.name);
            let mut limited = (&mut self.reader).take(MAX_LINE_BYTES);
            let length = limited.read_until(b'\n', &mut self.buffer);
            let length = length.with_context(failed)? as u64;
            if length == 0 {
                return Ok(None);
            }
            if length == MAX_LINE_BYTES && self.buffer.last() != Some(&b'\n') {
                let sentence = format!("the line is longer than {MAX_LINE_BYTES} bytes");
                return Err(Error::new(ErrorKind::InvalidData, sentence)).with_context(failed);
            }
            self.line = next;
            self.position += length;
            let mut bytes = self.buffer.as_slice();
            if self.line == 1 {
                // The byte order mark, which spreadsheets write.
                bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
            }
            if !bytes.trim_ascii().is_empty() {
                break;
            }
        }
        let mut bytes = self.buffer.as_slice();
        if self.line == 1 {
            bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        }
        let text = std::str::from_utf8(bytes).map(str::trim);
        Ok(Some(text.map_err(|_| "the line is not UTF-8 text".into())))
    }
}

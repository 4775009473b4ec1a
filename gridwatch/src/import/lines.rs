//! The lines of a text file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use anyhow::Context as _;

use super::source::Place;
use crate::UsageError;

/// Upper bound on the bytes of a line, with its end.
const MAX_LINE: u64 = 1 << 20;

/// The file, and the line that was read last.
pub(super) struct Lines {
    name: String,
    reader: Box<dyn BufRead + Send>,
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
        Ok(Self::new(name, Box::new(BufReader::new(file)), bytes))
    }

    /// The lines of a text, which messages call by this name.
    pub(super) fn of_text(name: String, text: &'static str) -> Self {
        Self::new(name, Box::new(text.as_bytes()), text.len() as u64)
    }

    fn new(name: String, reader: Box<dyn BufRead + Send>, bytes: u64) -> Self {
        Self {
            name,
            reader,
            bytes,
            position: 0,
            line: 0,
            buffer: Vec::new(),
        }
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
            let line = self.line + 1;
            let failed = || format!("{}, line {line}: cannot be read", self.name);
            let mut bounded = self.reader.by_ref().take(MAX_LINE);
            let length = bounded.read_until(b'\n', &mut self.buffer);
            let length = length.with_context(failed)? as u64;
            if length == 0 {
                return Ok(None);
            }
            self.line = line;
            self.position += length;
            if length == MAX_LINE && !self.buffer.ends_with(b"\n") {
                let skipped = self.reader.skip_until(b'\n');
                let skipped = skipped.with_context(|| format!("{}: cannot be read", self.name))?;
                self.position += skipped as u64;
                if skipped > 0 {
                    return Ok(Some(Err("the line is longer than 1 MiB".into())));
                }
            }
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

//! Standard output and standard error. A reader that closes its end, as `head` does, is not an
//! error.

use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;

/// Writes a text to standard output.
///
/// # Errors
/// It cannot be written, for example because the disk is full.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("the results cannot be written to standard output"),
    }
}

/// Writes a line to standard error. If that fails, there is no place to report it.
pub(crate) fn log(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

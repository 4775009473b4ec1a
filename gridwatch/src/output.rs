//! What the commands print. A reader that closes the output, such as `head`, is no fault of a
//! command: `println!` and `eprintln!` would end the process with a panic.
//!
//! In: lines. Out: these on stdout or stderr. On failure: the caller is notified of what stdout did
//! not take, and what stderr did not take is lost.

use std::fmt::Display;
use std::io::{self, Write as _};
// Tests print nothing.
#[cfg(test)]
use std::io::{sink as stdout, sink as stderr};
#[cfg(not(test))]
use std::io::{stderr, stdout};

/// Prints lines, the result of a command.
///
/// # Errors
/// Stdout is closed, or cannot be written. [`ended`] tells these apart.
pub(crate) fn print(lines: impl Display) -> io::Result<()> {
    writeln!(stdout(), "{lines}")
}

/// Prints lines about work that is done. A closed stdout is not an error: the exit code remains
/// that of the work.
///
/// # Errors
/// Stdout cannot be written.
pub(crate) fn summary(lines: impl Display) -> io::Result<()> {
    match print(lines) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Prints a line for people on stderr.
pub(crate) fn note(line: impl Display) {
    // There is no other place to report that stderr is closed.
    let _ = writeln!(stderr(), "{line}");
}

/// The end of a command that prints its result: a reader that has what it needs is no error.
pub(crate) fn ended(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

/// Whether the program that reads the output has closed it.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

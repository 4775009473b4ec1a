//! Printing again and again, until Ctrl-C.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use jiff::Timestamp;

use crate::output::{is_broken_pipe, note};

/// Moves the cursor to the top left corner and clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Runs `print` once, or with an interval until Ctrl-C. On a terminal each output replaces the one
/// before; otherwise a blank line is between them. After the first output, an error is printed and
/// does not end the command.
///
/// # Errors
/// The first output failed, or no other process reads the output.
pub(crate) async fn watch(
    interval: Option<Duration>,
    print: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(interval) = interval else {
        return print().await;
    };
    let repeat = async {
        let is_terminal = std::io::stdout().is_terminal();
        let mut is_first = true;
        loop {
            let mut out = std::io::stdout();
            match (is_terminal, is_first) {
                (true, _) => write!(out, "{CLEAR}")?,
                (false, true) => {}
                (false, false) => writeln!(out)?,
            }
            match print().await {
                Err(error) if is_first || is_broken_pipe(&error) => return Err(error),
                Err(error) => {
                    note(format_args!("{:.0}: {error:#}; retrying", Timestamp::now()));
                }
                Ok(()) => {}
            }
            is_first = false;
            tokio::time::sleep(interval).await;
        }
    };
    tokio::select! {
        ended = repeat => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

//! Errors for people: an error with its causes.

use std::error::Error;

/// An error and its sources in one line, outermost first, separated by colons.
///
/// The `Display` of many errors names only their kind; the source states what happened.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain = format!("{chain}: {cause}");
        source = cause.source();
    }
    chain.replace('\n', " ")
}

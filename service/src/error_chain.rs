//! Errors for people: an error with its causes.

use std::error::Error;

/// An error and its sources in one line, outermost first, separated by colons.
///
/// The `Display` of many errors names only their kind; the source states what happened.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some errors end with the text of their source.
        if !chain.ends_with(&text) {
            chain = format!("{chain}: {text}");
        }
        source = cause.source();
    }
    chain.replace('\n', " ")
}

/// The innermost source of an error, or the error itself: what went wrong, without the errors
/// around it, which repeat it or name only their kind.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    // "Connection refused (os error 111)": the number is for programs.
    let text = innermost.to_string().replace('\n', " ");
    match text.split_once(" (os error ") {
        Some((sentence, _)) => sentence.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect: {0}")]
    struct Repeating(#[source] Outer);

    #[derive(Debug, thiserror::Error)]
    #[error("server")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("starting\nup")]
    struct Inner;

    #[test]
    fn every_cause_is_named_once_and_in_one_line() {
        let error = Repeating(Outer(Inner));
        assert_eq!(error_chain(&error), "cannot connect: server: starting up");
    }
}

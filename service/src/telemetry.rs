//! Logs: one line per event on standard error, as text or as JSON.
//!
//! In: events of `tracing`. Out: those that the filter selects. A filter that is not valid is an
//! error at startup.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// Examples of filters, for messages.
const EXAMPLES: &str = "for example: info, or info,worker=debug";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The level of everything that a filter does not name. Without it, a filter that names only a
/// misspelled target would log nothing.
const BASE_LEVEL: &str = "info";
/// Levels of libraries that log what is normal, or what Gridwatch logs itself, with what it does
/// about it: notices of PostgreSQL, and every broken connection two or three times.
const LIBRARY_LEVELS: &str = "wasmer_wasix=error,pglite_oxide=warn,refinery_core=warn,\
    tokio_postgres=warn,deadpool=off,lapin=off,lapin::thread=error";

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text, for people.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected 'text' or 'json'".into()),
        }
    }
}

/// Checks a filter. It has the syntax of `tracing_subscriber::EnvFilter`, for example `info` or
/// `info,worker=debug`, except that a word alone is a level: a misspelled level would be a target,
/// and nothing else would be logged.
///
/// # Errors
/// A sentence with the part that is wrong, and an example.
pub fn check_filter(filter: &str) -> Result<(), String> {
    for part in filter.split(',').map(str::trim) {
        let is_word = part
            .chars()
            .all(|c| c.is_alphanumeric() || "_:-.".contains(c));
        let is_level = LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
        if is_word && !is_level {
            let levels = LEVELS.join(", ");
            return Err(format!("'{part}' is not a level ({levels}); {EXAMPLES}"));
        }
        if EnvFilter::try_new(part).is_err() {
            return Err(format!("'{part}' is not TARGET=LEVEL; {EXAMPLES}"));
        }
    }
    Ok(())
}

/// Starts logging with a filter that [`check_filter`] accepts. What it does not name is logged at
/// `info`.
///
/// # Errors
/// The filter is not valid, or logging was started before.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    // Later directives have precedence, so that the filter can override these levels.
    let filter = EnvFilter::try_new(format!("{BASE_LEVEL},{LIBRARY_LEVELS},{filter}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_refused_if_it_would_log_nothing_by_mistake() {
        for filter in [
            "info",
            "INFO",
            "off",
            "info,worker=debug",
            "info, worker=debug",
            "worker=debug",
            "warn,ingest_api::registry=trace",
        ] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in [
            "",
            "debgu",
            "worker",
            "info,",
            "info,debgu",
            "worker=debgu",
            "a=b=c",
            "=debug=",
        ] {
            let error = check_filter(filter).unwrap_err();
            assert!(error.contains("info,worker=debug"), "{filter}: {error}");
        }
    }
}

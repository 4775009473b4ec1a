//! Logs: one line per event on standard error, as text or as JSON.
//!
//! In: events of `tracing`. Out: those that the filter selects. A filter that is not valid is an
//! error at startup.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

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

/// Starts logging. `filter` has the syntax of `tracing_subscriber::EnvFilter`, for example `info`
/// or `info,worker=debug`.
///
/// # Errors
/// The filter is not valid, or logging was started before.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    // Later directives have precedence, so that the filter can override these levels.
    let filter = EnvFilter::try_new(format!("{LIBRARY_LEVELS},{filter}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

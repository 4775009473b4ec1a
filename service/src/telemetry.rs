//! Logs: one line an event to standard error, for people or as JSON.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// Libraries that warn of what is in order with them.
const NOISE: &str = "wasmer_wasix=error,pglite_oxide=warn,refinery_core=warn";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
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

/// Starts logging. `filter` is in the syntax of `tracing_subscriber::EnvFilter`, for example `info` or
/// `info,worker=debug`.
///
/// # Errors
/// The filter cannot be read, or logging was started before.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    // What the filter says of these itself comes later, and counts.
    let filter = EnvFilter::try_new(format!("{NOISE},{filter}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("logging was started before: {error}"))
}

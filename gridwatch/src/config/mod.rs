//! Configuration: flags, then `GRIDWATCH_…` in the environment, then a TOML file, then defaults.
//!
//! Every setting is defined once, as a flag in [`arguments`]. Its name in the environment is
//! derived from the flag. A value of the file becomes the default of its flag before the command
//! line is parsed, so that every value is validated in the same way. An unknown key in the file is
//! an error that names it, and a value that is not valid is reported with the place that it came
//! from. A setting is at the top of the file, for every command that has it, or in the section of
//! one command:
//!
//! ```toml
//! database-url = "postgres://gridwatch@db/gridwatch"
//! [worker]
//! writers = 4
//! ```

mod arguments;
mod explain;
mod file;
mod secrets;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

pub(crate) use self::arguments::*;
pub(crate) use self::explain::missing;
use self::file::File;
pub(crate) use self::values::Address;

/// The settings of a process, and what to warn about once it logs.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub settings: Settings,
    pub warnings: Vec<String>,
}

/// Why there are no settings.
#[derive(Debug)]
enum LoadError {
    /// A wrong flag, or a request for the help.
    CommandLine(clap::Error),
    /// What is wrong elsewhere, as a sentence.
    Sentence(String),
}

/// Loads the settings of this process. Exits with code 2 and a sentence if they are wrong, and with
/// 0 after printing the help.
pub(crate) fn load() -> Loaded {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let file =
        file_of(&arguments).or_else(|| std::env::var_os("GRIDWATCH_CONFIG").map(PathBuf::from));
    let command = with_environment(Settings::command());
    let names: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    let mut warnings = explain::unknown_variables(&command, names.iter().map(OsString::as_os_str));
    let is_set = |name: &str| names.iter().any(|other| other == OsStr::new(name));
    let settings = match parse(command, &arguments, file, is_set) {
        Ok(settings) => settings,
        Err(LoadError::CommandLine(error)) => error.exit(),
        Err(LoadError::Sentence(error)) => {
            crate::output::note(format_args!("gridwatch: {error}"));
            std::process::exit(2);
        }
    };
    if matches!(settings.command, Command::Demo(_)) {
        // It does not read the environment.
        warnings.clear();
    }
    Loaded { settings, warnings }
}

/// Parses the command line, with the file as defaults.
fn parse(
    mut command: clap::Command,
    arguments: &[OsString],
    file: Option<PathBuf>,
    is_set: impl Fn(&str) -> bool,
) -> Result<Settings, LoadError> {
    let file = file.map(|path| File::read(&path)).transpose();
    let file = file.map_err(LoadError::Sentence)?;
    if let Some(file) = &file {
        command = file.apply(command).map_err(LoadError::Sentence)?;
    }
    let matches =
        command.try_get_matches_from(arguments).map_err(|error| {
            match explain::explain(&error, arguments, file.as_ref(), is_set) {
                Some(sentence) => LoadError::Sentence(sentence),
                None => LoadError::CommandLine(error),
            }
        })?;
    let mut settings = Settings::from_arg_matches(&matches).map_err(LoadError::CommandLine)?;
    let log_is_default = matches.value_source("log") == Some(ValueSource::DefaultValue);
    if log_is_default && matches!(settings.command, Command::Demo(_)) {
        // Log lines would interrupt the progress bar.
        settings.log = "warn".into();
    }
    secrets::read(&mut settings.command).map_err(LoadError::Sentence)?;
    Ok(settings)
}

/// The value of `--config`, which must be known before the command line is parsed.
fn file_of(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(|file| PathBuf::from(file.as_ref()));
        }
        if let Some(file) = argument.strip_prefix("--config=") {
            return Some(PathBuf::from(file));
        }
    }
    None
}

/// A command that has flags only: a URL in the environment or in a file may be that of a production
/// database, and must not receive the invented readings of the demo.
const FLAGS_ONLY: &str = "demo";

fn with_environment(command: clap::Command) -> clap::Command {
    if command.get_name() == FLAGS_ONLY {
        return command;
    }
    let named = |argument: clap::Arg| match argument.get_long() {
        Some(long) => {
            let name = explain::variable(long);
            argument.env(name).hide_env_values(true)
        }
        None => argument,
    };
    command.mut_args(named).mut_subcommands(with_environment)
}

//! Configuration: flags, then `GRIDWATCH_…` in the environment, then a TOML file, then defaults.
//!
//! Every setting is defined once, as a flag in [`arguments`]. Its name in the environment is
//! derived from the flag. A value of the file becomes the default of its flag before the command
//! line is parsed, so that every value is validated in the same way. An unknown key in the file is
//! an error that names it. A setting is at the top of the file, for every command that has it, or
//! in the section of one command:
//!
//! ```toml
//! database-url = "postgres://gridwatch@db/gridwatch"
//! [worker]
//! writers = 4
//! ```

mod arguments;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

pub(crate) use self::arguments::*;

/// Loads the settings of this process. Exits with code 2 and a sentence if they are wrong, and with
/// 0 after printing the help.
pub(crate) fn load() -> Settings {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let file =
        file_of(&arguments).or_else(|| std::env::var_os("GRIDWATCH_CONFIG").map(PathBuf::from));
    let command = with_environment(Settings::command());
    let command = match file.map(|file| with_file(command.clone(), &file)) {
        None => command,
        Some(Ok(command)) => command,
        Some(Err(error)) => {
            eprintln!("gridwatch: {error}");
            std::process::exit(2);
        }
    };
    let matches = command.get_matches_from(arguments);
    let mut settings = Settings::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let log_is_default = matches.value_source("log") == Some(ValueSource::DefaultValue);
    if log_is_default && matches!(settings.command, Command::Demo(_)) {
        // Log lines would interrupt the progress bar.
        settings.log = "warn".into();
    }
    settings
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
            let name = format!("GRIDWATCH_{}", long.replace('-', "_").to_uppercase());
            argument.env(name).hide_env_values(true)
        }
        None => argument,
    };
    command.mut_args(named).mut_subcommands(with_environment)
}

/// Makes the values of a file the defaults of the flags with the same names.
fn with_file(command: clap::Command, path: &Path) -> Result<clap::Command, String> {
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            text[..span.start.min(text.len())].lines().count().max(1)
        });
        format!("{name}, line {line}: {}", error.message())
    })?;
    let (sections, settings): (Vec<_>, Vec<_>) =
        table.into_iter().partition(|(_, value)| value.is_table());
    let mut command = command;
    for (key, value) in settings {
        let value = scalar_to_text(&value)
            .ok_or_else(|| format!("{name}: '{key}' must be a string, a number or a boolean"))?;
        let mut known = false;
        command = set(command, &key, &value, &mut known);
        if !known {
            return Err(format!(
                "{name}: unknown key '{key}'; keys are the names of flags without the dashes"
            ));
        }
    }
    for (section, values) in sections {
        if command.find_subcommand(&section).is_none() {
            return Err(format!(
                "{name}: unknown section '[{section}]'; sections are the names of commands"
            ));
        }
        for (key, value) in values.as_table().into_iter().flatten() {
            let value = scalar_to_text(value).ok_or_else(|| {
                format!("{name}: '{key}' in [{section}] must be a string, a number or a boolean")
            })?;
            if section == FLAGS_ONLY {
                return Err(format!("{name}: '{section}' is configured with flags only"));
            }
            let mut known = false;
            command = command.mut_subcommand(&section, |subcommand| {
                set(subcommand, key, &value, &mut known)
            });
            if !known {
                return Err(format!(
                    "{name}: unknown key '{key}' in [{section}]; \
                     see 'gridwatch {section} --help'"
                ));
            }
        }
    }
    Ok(command)
}

/// Sets the default of a flag, here and in every subcommand.
fn set(command: clap::Command, key: &str, value: &str, known: &mut bool) -> clap::Command {
    if command.get_name() == FLAGS_ONLY {
        return command;
    }
    let mut found = false;
    let command = command.mut_args(|argument| {
        if argument.get_long() == Some(key) && key != "config" {
            found = true;
            argument
                .required(false)
                .default_value(value.to_owned())
                .hide_default_value(true)
        } else {
            argument
        }
    });
    *known |= found;
    command.mut_subcommands(|subcommand| set(subcommand, key, value, known))
}

fn scalar_to_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn parse(toml: &str, arguments: &[&str]) -> Result<Settings, String> {
        let command = with_file(with_environment(Settings::command()), file(toml).path())?;
        let matches = command
            .try_get_matches_from(arguments)
            .map_err(|error| error.to_string())?;
        Settings::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        fn check(command: &clap::Command) {
            if command.get_name() == FLAGS_ONLY {
                return;
            }
            for argument in command
                .get_arguments()
                .filter(|argument| argument.get_long().is_some())
            {
                let name = argument
                    .get_env()
                    .expect("no environment variable")
                    .to_string_lossy();
                assert_eq!(
                    name,
                    format!("GRIDWATCH_{}", argument.get_id().as_str().to_uppercase())
                        .replace("METRICS", "METRIC")
                );
                assert!(
                    argument.is_hide_env_values_set(),
                    "{name} may contain a secret"
                );
            }
            command.get_subcommands().for_each(check);
        }
        let command = with_environment(Settings::command());
        command.clone().debug_assert();
        check(&command);
    }

    #[test]
    fn a_flag_overrides_the_file_and_the_file_overrides_the_default() {
        let toml = "amqp-url = 'amqp://file'\ndatabase-url = 'postgres://file'\n\
                    [worker]\nwriters = 7\nprefetch = 9\n";
        let settings = parse(toml, &["gridwatch", "worker", "--prefetch", "11"]).unwrap();
        let Command::Worker(worker) = settings.command else {
            panic!("another command")
        };
        assert_eq!(
            (
                worker.writer.writers,
                worker.writer.prefetch,
                worker.writer.max_rows
            ),
            (7, 11, 200_000)
        );
        assert_eq!(worker.amqp_url, "amqp://file");
    }

    #[test]
    fn the_error_names_what_is_wrong_with_a_file() {
        for (toml, expected) in [
            ("databse-url = 'x'", "unknown key 'databse-url'"),
            (
                "[worker]\nwritters = 2",
                "unknown key 'writters' in [worker]",
            ),
            ("[wroker]\nwriters = 2", "unknown section '[wroker]'"),
            ("log = ['a']", "'log' must be a string"),
            ("log = 'info'\nlog-format text", "line 2"),
            (
                "[worker]\nwriters = 0\namqp-url='a'\ndatabase-url='b'",
                "--writers",
            ),
        ] {
            let error = parse(toml, &["gridwatch", "worker"]).unwrap_err();
            assert!(
                error.contains(expected),
                "expected {expected:?}, got {error:?}"
            );
        }
    }

    #[test]
    fn the_demo_ignores_the_urls_of_a_file() {
        let toml = "amqp-url = 'amqp://mq'\ndatabase-url = 'postgres://db'\n";
        let settings = parse(toml, &["gridwatch", "demo"]).unwrap();
        let Command::Demo(demo) = settings.command else {
            panic!("another command")
        };
        assert_eq!((demo.amqp_url, demo.database_url), (None, None));
        let error = parse("[demo]\nfleet = 1\n", &["gridwatch", "demo"]).unwrap_err();
        assert!(error.contains("flags only"), "{error}");
    }

    /// docs/gridwatch.toml, as it is, and with the settings that have no default.
    #[test]
    fn the_sample_configuration_is_valid_and_complete() {
        let sample = include_str!("../../../docs/gridwatch.toml");
        let all: Vec<&str> = sample
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if setting.starts_with(char::is_lowercase) => setting,
                _ => line,
            })
            .collect();
        let all = all.join("\n");
        let urls = ["--amqp-url", "amqp://mq", "--database-url", "postgres://db"];
        parse(sample, &[&["gridwatch", "ingest-api"], &urls[..]].concat()).unwrap();
        for command in ["ingest-api", "worker", "standalone", "migrate"] {
            parse(&all, &["gridwatch", command]).unwrap_or_else(|error| panic!("{error}"));
        }
        let table: toml::Table = all.parse().unwrap();
        let has = |name: &str| {
            let sections = table.values().filter_map(toml::Value::as_table);
            table.contains_key(name) || sections.into_iter().any(|s| s.contains_key(name))
        };
        for command in Settings::command().get_subcommands() {
            if ["ingest-api", "worker", "standalone"].contains(&command.get_name()) {
                let flags = command.get_arguments().filter_map(clap::Arg::get_long);
                for flag in flags.filter(|flag| *flag != "help") {
                    assert!(has(flag), "--{flag} is missing in docs/gridwatch.toml");
                }
            }
        }
    }
}

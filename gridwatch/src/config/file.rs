//! The TOML file: its settings, each with its line.
//!
//! In: a path. Out: the settings, which become the defaults of the flags with the same names, or a
//! sentence that names the file, the line and the key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::FLAGS_ONLY;

/// A file of settings.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// The sections, each with its line.
    sections: Vec<(String, usize)>,
    settings: Vec<Setting>,
}

#[derive(Debug)]
struct Setting {
    /// The command of its section; `None` above the first section.
    section: Option<String>,
    key: String,
    value: String,
    line: usize,
}

impl File {
    /// Reads the file at a path.
    ///
    /// # Errors
    /// A sentence: the file cannot be read, is not TOML, or has something else than settings.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what_to_do = match error.kind() {
                std::io::ErrorKind::NotFound => "check the path in --config or GRIDWATCH_CONFIG",
                _ => "it must be a text file that this user can read",
            };
            format!("cannot read {name}: {error}; {what_to_do}")
        })?;
        let at = |span: Range<usize>| line(&text, span.start);
        let wrong = |error: toml::de::Error| {
            let line = at(error.span().unwrap_or_default());
            format!("{name}:{line}: {}", error.message())
        };
        let positions = DeTable::parse(&text).map_err(wrong)?;
        let table: toml::Table = text.parse().map_err(wrong)?;
        let mut lines = BTreeMap::new();
        let mut sections = Vec::new();
        for (key, value) in positions.get_ref() {
            let section = key.get_ref().to_string();
            match value.get_ref() {
                DeValue::Table(inner) => {
                    sections.push((section.clone(), at(key.span())));
                    for inner in inner.keys() {
                        let key = Some(inner.get_ref().to_string());
                        lines.insert((section.clone(), key), at(inner.span()));
                    }
                }
                _ => {
                    lines.insert((section, None), at(key.span()));
                }
            }
        }
        let line = |section: &str, key: Option<&str>| {
            let position = (section.to_owned(), key.map(str::to_owned));
            lines.get(&position).copied().unwrap_or(1)
        };
        let mut settings = Vec::new();
        for (key, value) in table {
            if let toml::Value::Table(values) = value {
                for (inner, value) in values {
                    let line = line(&key, Some(&inner));
                    settings.push((Some(key.clone()), inner, value, line));
                }
            } else {
                let line = line(&key, None);
                settings.push((None, key, value, line));
            }
        }
        let setting = |(section, key, value, line)| {
            let value = scalar_to_text(&value).ok_or_else(|| {
                format!("{name}:{line}: '{key}' must be a string, a number or a boolean")
            })?;
            Ok(Setting {
                section,
                key,
                value,
                line,
            })
        };
        let settings: Result<Vec<Setting>, String> = settings.into_iter().map(setting).collect();
        let mut settings = settings?;
        // A section overrides what is above the first one.
        settings.sort_by_key(|setting| setting.section.is_some());
        Ok(Self {
            path: path.to_owned(),
            sections,
            settings,
        })
    }

    /// Makes the settings the defaults of the flags with the same names.
    ///
    /// # Errors
    /// A sentence: a key or a section is unknown.
    pub(super) fn apply(&self, mut command: clap::Command) -> Result<clap::Command, String> {
        let name = self.path.display();
        for (section, line) in &self.sections {
            if command.find_subcommand(section).is_none() {
                let names = command
                    .get_subcommands()
                    .map(|own| own.get_name().to_owned());
                let nearest = nearest(section, names);
                return Err(format!(
                    "{name}:{line}: unknown section '[{section}]'; \
                     sections are the names of commands; the nearest is '[{nearest}]'"
                ));
            }
        }
        for setting in &self.settings {
            let Setting { key, value, .. } = setting;
            let mut known = false;
            let mut flags = BTreeSet::new();
            match &setting.section {
                None => collect_flags(&command, &mut flags),
                Some(section) => {
                    let section = command.find_subcommand(section);
                    section
                        .into_iter()
                        .for_each(|own| collect_flags(own, &mut flags));
                }
            }
            let nearest = nearest(key, flags.into_iter());
            let unknown = match &setting.section {
                None => {
                    command = set(command, key, value, &mut known);
                    format!(
                        "unknown key '{key}'; keys are the names of flags without the dashes; \
                         the nearest is '{nearest}'"
                    )
                }
                Some(section) if section == FLAGS_ONLY => {
                    format!("'{section}' is configured with flags only")
                }
                Some(section) => {
                    command = command.mut_subcommand(section, |subcommand| {
                        set(subcommand, key, value, &mut known)
                    });
                    format!(
                        "unknown key '{key}' in [{section}]; the nearest is '{nearest}'; \
                         see 'gridwatch {section} --help'"
                    )
                }
            };
            if !known {
                return Err(format!("{name}:{}: {unknown}", setting.line));
            }
        }
        Ok(command)
    }

    /// Where a value of the file is, as `FILE:LINE`.
    pub(super) fn place(&self, command: &str, key: &str, value: &str) -> Option<String> {
        let applies = |setting: &&Setting| {
            let is_of_command = setting
                .section
                .as_deref()
                .is_none_or(|name| name == command);
            is_of_command && setting.key == key && setting.value == value
        };
        let setting = self.settings.iter().rev().find(applies)?;
        Some(format!("{}:{}", self.path.display(), setting.line))
    }
}

/// The line of a position in a text, from 1.
fn line(text: &str, position: usize) -> usize {
    let before = text.as_bytes().iter().take(position);
    before.filter(|byte| **byte == b'\n').count() + 1
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
            let has_value = argument.get_action().takes_values();
            argument
                .required(false)
                .default_value(value.to_owned())
                .hide_default_value(has_value)
        } else {
            argument
        }
    });
    *known |= found;
    command.mut_subcommands(|subcommand| set(subcommand, key, value, known))
}

/// The names of the flags of a command and of its subcommands.
fn collect_flags(command: &clap::Command, flags: &mut BTreeSet<String>) {
    if command.get_name() != FLAGS_ONLY {
        let own = command.get_arguments().filter_map(clap::Arg::get_long);
        flags.extend(own.map(str::to_owned));
        for subcommand in command.get_subcommands() {
            collect_flags(subcommand, flags);
        }
    }
}

/// The name that is most like another one.
fn nearest(name: &str, names: impl Iterator<Item = String>) -> String {
    let nearest = names.min_by_key(|own| strsim::damerau_levenshtein(own, name));
    nearest.unwrap_or_default()
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

//! What is wrong with the settings, and where the wrong one was given.
//!
//! In: an error of the command line, the file and the environment. Out: a sentence that names the
//! line of the file or the variable, or how to give a setting that is missing. An error in a flag
//! stays as it is.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use service::quote::quote;

use super::FLAGS_ONLY;
use super::file::File;

/// What Kubernetes sets in every container beside a service with the name `gridwatch`.
const OF_KUBERNETES: [&str; 2] = ["GRIDWATCH_SERVICE_", "GRIDWATCH_PORT"];

/// How to give a setting that has no value.
pub(crate) fn missing(flag: &str, value_name: &str) -> String {
    let file = match value_name {
        "URL" => format!("in a file with --{flag}-file FILE, "),
        _ => String::new(),
    };
    format!(
        "--{flag} is missing: give it as the flag --{flag} {value_name}, as {} in the \
         environment, {file}or as {flag} in the TOML file of --config",
        variable(flag)
    )
}

/// The name of a flag in the environment.
pub(super) fn variable(flag: &str) -> String {
    format!("GRIDWATCH_{}", flag.replace('-', "_").to_uppercase())
}

/// The sentence for an error; `None` if the error is in a flag, and says so itself.
pub(super) fn explain(
    error: &clap::Error,
    arguments: &[OsString],
    file: Option<&File>,
    is_set: impl Fn(&str) -> bool,
) -> Option<String> {
    match (error.kind(), error.get(ContextKind::InvalidArg)?) {
        (ErrorKind::MissingRequiredArgument, ContextValue::Strings(names)) => {
            let sentence = |name: &String| {
                let (flag, value_name) = name.strip_prefix("--")?.split_once(' ')?;
                let value_name = value_name.trim_matches(['<', '>', '.']);
                Some(missing(flag, value_name))
            };
            let sentences: Option<Vec<String>> = names.iter().map(sentence).collect();
            Some(sentences?.join("\ngridwatch: "))
        }
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, ContextValue::String(name)) => {
            let ContextValue::String(value) = error.get(ContextKind::InvalidValue)? else {
                return None;
            };
            let flag = name.strip_prefix("--")?.split(' ').next()?;
            if is_given(arguments, flag) {
                return None;
            }
            let place = if is_set(&variable(flag)) {
                variable(flag)
            } else {
                let commands = arguments.iter().filter_map(|argument| argument.to_str());
                let mut places = commands.filter_map(|command| file?.place(command, flag, value));
                format!("{}: {flag}", places.next()?)
            };
            Some(format!("{place}: {}: {}", quote(value), reason(error)))
        }
        _ => None,
    }
}

/// Whether a flag is on the command line.
fn is_given(arguments: &[OsString], flag: &str) -> bool {
    arguments.iter().any(|argument| {
        let flag_and_value = argument.to_str().and_then(|text| text.strip_prefix("--"));
        flag_and_value.is_some_and(|text| text.split('=').next() == Some(flag))
    })
}

/// Why a value is not valid.
fn reason(error: &clap::Error) -> String {
    match (
        std::error::Error::source(error),
        error.get(ContextKind::ValidValue),
    ) {
        (Some(reason), _) => reason.to_string(),
        (None, Some(ContextValue::Strings(values))) => format!("expected {}", values.join(" or ")),
        _ => "is not valid".into(),
    }
}

/// A warning for each variable that looks like a setting and is none.
pub(super) fn unknown_variables<'a>(
    command: &clap::Command,
    names: impl Iterator<Item = &'a OsStr>,
) -> Vec<String> {
    let mut known = Vec::new();
    collect_variables(command, &mut known);
    let warning = |name: &str| {
        let nearest = known
            .iter()
            .min_by_key(|known| strsim::damerau_levenshtein(known, name))?;
        Some(format!(
            "the environment variable {name} is not a setting and is ignored; \
             the nearest setting is {nearest}"
        ))
    };
    names
        .filter_map(OsStr::to_str)
        .filter(|name| name.starts_with("GRIDWATCH_") && !known.iter().any(|known| known == name))
        .filter(|name| !OF_KUBERNETES.iter().any(|prefix| name.starts_with(prefix)))
        .filter_map(warning)
        .collect()
}

fn collect_variables(command: &clap::Command, known: &mut Vec<String>) {
    if command.get_name() != FLAGS_ONLY {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        for subcommand in command.get_subcommands() {
            collect_variables(subcommand, known);
        }
    }
}

//! Settings that hold passwords, given as a file: a secret of Docker, Kubernetes or systemd.
//!
//! In: the settings after parsing. Out: the URL of each `…-file` in the place of the URL, or a
//! sentence that names the file and what to do. A URL that the command needs and that is given in
//! no way is reported, all of them at once.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::arguments::{AmqpUrl, Command, DatabaseUrl, DevicesCommand, SinkChoice};
use super::explain::missing;

/// Upper bound on the length of a file. A URL is far shorter.
const MAX_BYTES: u64 = 64 * 1024;

/// Reads the files that the settings of a command name.
///
/// # Errors
/// A sentence: a file cannot be used, a URL is given twice, or is missing.
pub(super) fn read(command: &mut Command) -> Result<(), String> {
    let mut missing_ones = Vec::new();
    for secret in secrets(command) {
        let Secret {
            flag, url, file, ..
        } = secret;
        match (&url, file) {
            (Some(_), Some(file)) => {
                return Err(format!(
                    "--{flag} and --{flag}-file {} are both given; give one of them",
                    file.display()
                ));
            }
            (None, Some(file)) => {
                let place = |reason| format!("--{flag}-file {}: {reason}", file.display());
                *url = Some(read_file(file).map_err(place)?);
            }
            (None, None) if secret.is_required => missing_ones.push(missing(flag, "URL")),
            _ => {}
        }
    }
    match missing_ones.is_empty() {
        true => Ok(()),
        false => Err(missing_ones.join("\ngridwatch: ")),
    }
}

/// A setting that holds a password.
struct Secret<'a> {
    flag: &'static str,
    url: &'a mut Option<String>,
    file: Option<&'a Path>,
    is_required: bool,
}

/// The settings of a command that hold passwords. The demo has flags only, and no files.
fn secrets(command: &mut Command) -> Vec<Secret<'_>> {
    match command {
        Command::IngestApi(own) => {
            let is_queued = own.sink == SinkChoice::Queue;
            vec![own.amqp.secret(is_queued), own.database.secret(true)]
        }
        Command::Worker(own) => vec![own.amqp.secret(true), own.database.secret(true)],
        Command::Standalone(own) => vec![own.amqp.secret(false), own.database.secret(false)],
        Command::QueryApi(own) => vec![own.database.secret(true)],
        Command::Migrate(own) => vec![own.database.secret(true)],
        Command::Devices(own) => match &mut own.command {
            DevicesCommand::Add { database, .. } => vec![database.secret(true)],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

impl DatabaseUrl {
    fn secret(&mut self, is_required: bool) -> Secret<'_> {
        Secret {
            flag: "database-url",
            url: &mut self.database_url,
            file: self.database_url_file.as_deref(),
            is_required,
        }
    }
}

impl AmqpUrl {
    fn secret(&mut self, is_required: bool) -> Secret<'_> {
        Secret {
            flag: "amqp-url",
            url: &mut self.amqp_url,
            file: self.amqp_url_file.as_deref(),
            is_required,
        }
    }
}

/// The content of a file, without the blanks and line breaks around it.
fn read_file(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| {
        let what_to_do = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            _ => "it must be a text file that this user can read",
        };
        format!("cannot read the file: {error}; {what_to_do}")
    };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    if read.map_err(unreadable)? as u64 > MAX_BYTES {
        return Err("the file is longer than 64 KiB; it must hold the URL and nothing else".into());
    }
    match text.trim() {
        "" => Err("the file is empty; it must hold the URL".into()),
        url => Ok(url.to_owned()),
    }
}

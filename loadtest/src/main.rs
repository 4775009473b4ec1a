//! `loadtest`: load tests of Gridwatch, and verification of what it stored.

mod command;

use std::process::ExitCode;

use clap::Parser as _;

use crate::command::{Arguments, UsageError};

fn main() -> ExitCode {
    let result = command::execute(Arguments::parse());
    match result {
        Ok(code) => code,
        Err(error) => {
            command::log(&format!("loadtest: {error:#}"));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

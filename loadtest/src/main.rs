//! `loadtest`: load on a Gridwatch, and proof of what became of it.

mod command;

use std::process::ExitCode;

use clap::Parser as _;

use crate::command::{Arguments, Usage};

fn main() -> ExitCode {
    let result = command::run(Arguments::parse());
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

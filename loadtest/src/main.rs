//! `loadtest`: load on a Gridwatch, and proof of what became of it.

mod command;

use std::process::ExitCode;

use clap::Parser as _;

use crate::command::{Arguments, Usage};

/// Makes and forgets what a request needs faster than the system's: 3 % more requests of one thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

//! What the tests share: servers, a site for each test, load, and assertions.
//!
//! A test starts a [`Site`] on the shared [`Servers`], sends load to it and checks the tables. When
//! the site is dropped, it asserts that its counters balance (see [`assertions`]).

mod assertions;
mod commands;
mod load;
mod servers;
mod site;
mod standalone;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use service::client::{Client, Response};

pub(crate) use assertions::*;
pub(crate) use commands::*;
pub(crate) use load::*;
pub(crate) use servers::*;
pub(crate) use site::*;
pub(crate) use standalone::*;

/// The directory of the repository.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap().to_owned()
}

/// Ends a test that hangs; no condition needs nearly as long.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

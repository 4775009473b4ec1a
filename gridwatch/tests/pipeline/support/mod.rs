//! What the tests share: servers, a site for each test, load, and assertions.
//!
//! A test starts a [`Site`] on the shared [`Servers`], sends load to it and checks the tables. When
//! the site is dropped, it asserts that its counters balance (see [`assertions`]).

mod assertions;
mod load;
mod servers;
mod site;

use std::time::Duration;

pub use service::client::{Client, Response};

pub use assertions::*;
pub use load::*;
pub use servers::*;
pub use site::*;

/// Ends a test that hangs; no condition needs nearly as long.
pub const LIMIT: Duration = Duration::from_secs(90);

//! A program without the embedded PostgreSQL: standalone and the demo need a server.
//!
//! In: a directory. Out: an error that says so. The rest has the form of the module that it
//! replaces.

use std::path::{Path, PathBuf};

use deadpool_postgres::Pool;
use store::Object;

use crate::UsageError;

/// The running database, of which there is none.
pub(crate) enum Embedded {}

/// Nothing to confine. [`Embedded::pool`] reports the error, once the flags are checked.
pub(crate) fn confine_to(_: &Path) -> anyhow::Result<()> {
    Ok(())
}

/// The process is never confined.
pub(crate) fn confined_to() -> Option<PathBuf> {
    None
}

impl Embedded {
    /// There is no embedded database.
    ///
    /// # Errors
    /// [`UsageError`]: always.
    pub(crate) fn pool(_: &Path) -> anyhow::Result<(Self, Pool)> {
        let sentence = "this program is built without the embedded PostgreSQL: give \
                        --database-url, or use a program with it";
        Err(UsageError(sentence.into()).into())
    }

    /// Never called.
    pub(crate) async fn connect(&self, _: &Pool) -> anyhow::Result<Object> {
        match *self {}
    }

    /// Never called.
    pub(crate) async fn stop(self) {
        match self {}
    }
}

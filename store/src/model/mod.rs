//! The model: components, kinds, devices, series, targets, types and customers.
//!
//! In: documents, which are JSON objects with the fields of a [`Resource`]. Out: the stored
//! document, with its version. A write is one transaction, which also records who changed what
//! (table `change`). It either succeeds as a whole or changes nothing. The caller validates
//! fields; this module decides what depends on other rows: whether a component may have a parent,
//! whether a reference exists, whether a version is the current one.

pub mod bulk;
pub mod changes;
mod component;
mod delete;
pub mod health;
mod idempotency;
pub mod imports;
pub mod jobs;
pub mod list;
pub mod readings;
mod remove;
pub mod resource;
pub mod targets;
#[cfg(test)]
mod tests;
mod write;

pub use delete::{Deletion, delete};
pub use idempotency::IdempotencyKey;
pub use resource::Resource;
pub use write::{change, check_version, create, get};

use serde_json::Value;
use service::FieldError;
use service::error_chain;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::reads::ReadError;

/// Who writes, and under which conditions.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Recorded with the change.
    pub actor: String,
    /// The versions that the row may have, if the client requires some.
    pub if_match: Option<Vec<i64>>,
    /// Makes a retry return the response to the first attempt.
    pub idempotency: Option<IdempotencyKey>,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WriteError {
    /// PostgreSQL failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The row does not exist.
    #[error("there is no such row")]
    NotFound,
    /// The row exists already.
    #[error("the row exists already")]
    Exists,
    /// Fields that are not valid.
    #[error("fields are not valid")]
    Invalid(Vec<FieldError>),
    /// The row has this version, which the client did not ask for.
    #[error("the row has version {0}")]
    VersionMismatch(i64),
    /// The row was changed while the new value was computed.
    #[error("the row was changed in the meantime")]
    Changed,
    /// Other rows depend on it.
    #[error("other rows depend on it: {dependents}")]
    HasDependents {
        /// The number of rows of each table.
        dependents: Value,
        /// Whether they can be deleted too.
        can_cascade: bool,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
            return Self::Exists;
        }
        Self::Read(error.into())
    }
}

/// A JSON text of PostgreSQL.
fn parse(text: &str) -> Result<Value, ReadError> {
    serde_json::from_str(text).map_err(|error| ReadError::Failed(error_chain(&error)))
}

/// One field that is not valid.
fn invalid(pointer: &str, reason: String) -> WriteError {
    WriteError::Invalid(vec![FieldError {
        line: None,
        pointer: pointer.into(),
        reason,
    }])
}

//! Errors of writes, as the client sees them.

use service::ApiError;
use store::model::{Resource, WriteError};

use super::definition::Definition;
use crate::error::api_error;

/// The response to a write that failed. `key` is that of the row, and `path` that of the URL.
pub(crate) fn write_error(
    definition: &Definition,
    path: &[String],
    key: &[String],
    error: WriteError,
) -> ApiError {
    match error {
        WriteError::Read(error) => api_error(&error),
        WriteError::NotFound => definition.not_found(path),
        WriteError::Exists => ApiError::AlreadyExists {
            what: definition.resource.name(),
            id: match definition.resource {
                Resource::Device | Resource::Kind => key.concat(),
                _ => key.last().cloned().unwrap_or_default(),
            },
        },
        WriteError::Invalid(errors) => ApiError::InvalidBody(errors),
        // A writer that others overtake again and again: it retries later.
        WriteError::Changed => ApiError::DatabaseUnavailable,
        WriteError::VersionMismatch(version) => ApiError::VersionMismatch(version),
        WriteError::HasDependents {
            dependents,
            can_cascade,
        } => ApiError::HasDependents {
            dependents,
            can_cascade,
        },
        WriteError::KeyReused => ApiError::IdempotencyKeyReused,
    }
}

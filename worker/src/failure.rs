//! Failures of PostgreSQL, by what to do about them.
//!
//! In: an error of the driver. Out: its class. The classes are told apart by SQLSTATE (Appendix A of the PostgreSQL
//! manual), never by words.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What to do about a failed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The same again may succeed: the connection broke, the server restarts, locks, disk or memory ran out.
    Transient,
    /// A key is stored already: the way over the staging table is for that.
    KeyExists,
    /// A day has no partition: it was dropped, or is not known to be missing.
    NoPartition,
    /// A row is refused, now and ever.
    BadRow,
    /// Nothing that a retry or another row would change: a missing table, a missing right, a wrong password.
    Fatal,
}

/// Classifies an error.
pub fn classify(error: &Error) -> Class {
    let Some(database) = error.as_db_error() else {
        // Not the server's words: the connection could not be made, or broke.
        return Class::Transient;
    };
    let state = database.code();
    if *state == SqlState::UNIQUE_VIOLATION {
        return Class::KeyExists;
    }
    if *state == SqlState::CHECK_VIOLATION && database.constraint().is_none() {
        // "no partition of relation found for row": the same SQLSTATE as a CHECK, but no constraint to name.
        return Class::NoPartition;
    }
    match &state.code()[..2] {
        // A cached plan that a migration has made stale: the next attempt has a new connection, and no cache.
        "0A" if *state == SqlState::FEATURE_NOT_SUPPORTED => Class::Transient,
        // Connection, transaction rollback (deadlock, serialization), resources, object in use, operator intervention
        // (restart, statement_timeout), system error (I/O), snapshot too old.
        "08" | "40" | "53" | "55" | "57" | "58" | "72" => Class::Transient,
        // A standby that is not promoted yet.
        "25" if *state == SqlState::READ_ONLY_SQL_TRANSACTION => Class::Transient,
        // Data exception, integrity constraint; raised by a trigger (PL/pgSQL).
        "22" | "23" | "P0" => Class::BadRow,
        _ => Class::Fatal,
    }
}

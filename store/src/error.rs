//! Errors of PostgreSQL, classified by what to do about them, and as one sentence for people.
//!
//! In: an error of the driver. Out: its class, and its cause. Classes are determined by SQLSTATE
//! (Appendix A of the PostgreSQL manual), never by message texts.

use service::root_cause;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// What to do about a failed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// A retry may succeed: the connection broke, the server restarts, there was a deadlock, or
    /// disk or memory ran out.
    Transient,
    /// A key exists already: the rows have to go through the staging table.
    KeyExists,
    /// A day has no partition: it was dropped, or has not been created.
    NoPartition,
    /// A row is refused and always will be.
    BadRow,
    /// Neither a retry nor another row would succeed: a missing table, a missing privilege, a wrong
    /// password.
    Fatal,
}

/// Classifies an error.
pub fn classify(error: &Error) -> ErrorClass {
    let Some(database) = error.as_db_error() else {
        // The error is not from the server: the connection could not be opened, or broke.
        return ErrorClass::Transient;
    };
    let state = database.code();
    if *state == SqlState::UNIQUE_VIOLATION {
        return ErrorClass::KeyExists;
    }
    if *state == SqlState::CHECK_VIOLATION && database.constraint().is_none() {
        // "no partition of relation found for row" has the SQLSTATE of a CHECK constraint, but
        // names no constraint.
        return ErrorClass::NoPartition;
    }
    match &state.code()[..2] {
        // A migration made a cached plan stale. The next attempt uses a new connection, which has
        // no cache.
        "0A" if *state == SqlState::FEATURE_NOT_SUPPORTED => ErrorClass::Transient,
        // Connection, transaction rollback (deadlock, serialization), resources, object in use,
        // operator intervention (restart, statement_timeout), system error (I/O), snapshot too old.
        "08" | "40" | "53" | "55" | "57" | "58" | "72" => ErrorClass::Transient,
        // A standby that is not promoted yet.
        "25" if *state == SqlState::READ_ONLY_SQL_TRANSACTION => ErrorClass::Transient,
        // Data exception, integrity constraint, exception raised by a trigger (PL/pgSQL).
        "22" | "23" | "P0" => ErrorClass::BadRow,
        _ => ErrorClass::Fatal,
    }
}

/// The cause of an error of the driver, of the pool or of a migration: what the server reports, or
/// else the innermost error.
pub fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(reported) = error.downcast_ref::<DbError>() {
            return reported.message().replace('\n', " ");
        }
        source = error.source();
    }
    root_cause(error)
}

#[cfg(test)]
mod tests {
    use deadpool_postgres::PoolError;

    use super::*;
    use crate::{Database, testing};

    #[tokio::test]
    async fn errors_of_a_real_server_have_the_class_that_says_what_to_do() {
        let url = testing::create_database().await;
        let raise = |state: &str| {
            format!("DO $$ BEGIN RAISE EXCEPTION 'test' USING ERRCODE = '{state}'; END $$")
        };
        let insert = "INSERT INTO device (external_id) VALUES ('one')";
        for (statement, expected) in [
            (format!("{insert}; {insert}"), ErrorClass::KeyExists),
            (
                "INSERT INTO reading VALUES (1, '2077-01-01', 1)".into(),
                ErrorClass::NoPartition,
            ),
            (
                "INSERT INTO device (external_id) VALUES ('')".into(),
                ErrorClass::BadRow,
            ),
            ("SELECT 1 / 0".into(), ErrorClass::BadRow),
            (
                "DO $$ BEGIN RAISE EXCEPTION 'a trigger refuses'; END $$".into(),
                ErrorClass::BadRow,
            ),
            (
                format!("SET TRANSACTION READ ONLY; {insert}"),
                ErrorClass::Transient,
            ),
            (
                "SELECT pg_cancel_backend(pg_backend_pid()); SELECT pg_sleep(60)".into(),
                ErrorClass::Transient,
            ),
            // A plan that a migration made stale, a lost connection, a deadlock, a full disk, a
            // restart.
            (raise("0A000"), ErrorClass::Transient),
            (raise("08006"), ErrorClass::Transient),
            (raise("40P01"), ErrorClass::Transient),
            (raise("53100"), ErrorClass::Transient),
            (raise("57P01"), ErrorClass::Transient),
            ("SELECT * FROM nowhere".into(), ErrorClass::Fatal),
            (raise("25P02"), ErrorClass::Fatal),
            (raise("28P01"), ErrorClass::Fatal),
        ] {
            let client = testing::connect(&url).await;
            let error = client.batch_execute(&statement).await.unwrap_err();
            assert_eq!(classify(&error), expected, "{statement}: {error:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_opened_is_transient() {
        let database: crate::Database = "postgres://x@127.0.0.1:1/none".parse().unwrap();
        let error = database.connect().await.err().unwrap();
        assert_eq!(classify(&error), ErrorClass::Transient);
        let reason = crate::is_reachable(&database.pool(1).unwrap()).await;
        reason.expect_err("nothing listens there");
    }

    #[tokio::test]
    async fn an_unreachable_server_is_reported_with_one_plain_cause() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let url = format!("postgres://grid:hunter2@{address}/readings");
        let database: Database = url.parse().unwrap();
        let pool = database.pool(1).unwrap();
        let error = crate::database::get(&pool).await.unwrap_err();
        let expected = format!(
            "cannot connect to PostgreSQL at {address}/readings: Connection refused; retrying; \
             check --database-url"
        );
        assert_eq!(error, expected);
        let url = testing::create_database().await;
        let (_, server) = url.split_once('@').unwrap();
        let other: Database = format!("postgres://hunter2@{server}").parse().unwrap();
        let error = crate::database::get(&other.pool(1).unwrap()).await;
        let error = error.unwrap_err();
        assert!(error.contains("role does not exist; retrying"), "{error}");
        let error = database.connect().await.unwrap_err();
        assert_eq!(cause(&PoolError::Backend(error)), "Connection refused");
    }
}

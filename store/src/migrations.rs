//! Creating and updating the tables.
//!
//! In: the numbered SQL files in `schema/migrations`. Out: a database that has all of them, applied
//! in order under an advisory lock. Each migration is a transaction.

use tokio_postgres::Client;

use crate::Pool;
use crate::error::cause;

mod embedded {
    refinery::embed_migrations!("../schema/migrations");
}

/// Key of the advisory lock: `gridwatc` in ASCII. The migration tool takes no lock, and two
/// processes that start at the same time would both create the tables.
const LOCK: i64 = 0x6772_6964_7761_7463;

/// What to do about missing tables.
const HINT: &str = "the tables are missing or out of date; run 'gridwatch migrate'";

/// Why the tables could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The lock could not be acquired or released.
    #[error("PostgreSQL")]
    Postgres(#[from] tokio_postgres::Error),
    /// A migration failed and was rolled back; earlier migrations remain applied.
    #[error(transparent)]
    Migration(#[from] refinery::Error),
}

/// Applies the missing migrations and returns their names, oldest first.
///
/// # Errors
/// [`MigrateError`]; migrations before the failed one remain applied, and the next run continues
/// from there.
pub async fn run(client: &mut Client) -> Result<Vec<String>, MigrateError> {
    client
        .execute("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await?;
    let result = embedded::migrations::runner().run_async(client).await;
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&LOCK])
        .await?;
    let report = result?;
    let applied = report.applied_migrations().iter();
    Ok(applied.map(ToString::to_string).collect())
}

/// The number of the newest migration of this build.
fn newest() -> i32 {
    let runner = embedded::migrations::runner();
    let versions = runner.get_migrations().iter().map(|m| m.version());
    versions.max().unwrap_or(0)
}

/// Whether the database has every migration of this build. A database that is ahead of the build
/// counts as current.
///
/// # Errors
/// PostgreSQL's error. A database without any migration is not an error.
pub async fn are_current(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let statement = "SELECT to_regclass('refinery_schema_history') IS NOT NULL";
    if !client.query_one(statement, &[]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    let statement = "SELECT coalesce(max(version), 0)::bigint FROM refinery_schema_history";
    let version: i64 = client.query_one(statement, &[]).await?.get(0);
    Ok(version >= i64::from(newest()))
}

/// Checks that PostgreSQL is reachable and has every table.
///
/// # Errors
/// A sentence that states the cause and what to do.
pub async fn check(pool: &Pool) -> Result<(), String> {
    let client = crate::database::get(pool).await?;
    match are_current(&client).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(HINT.into()),
        Err(error) => Err(cause(&error)),
    }
}

/// Adds what to do to an error of PostgreSQL when the cause is that tables are missing.
pub(crate) async fn explain(client: &Client, error: &tokio_postgres::Error) -> String {
    if are_current(client).await.unwrap_or(true) {
        cause(error)
    } else {
        HINT.into()
    }
}

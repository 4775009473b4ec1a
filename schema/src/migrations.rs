//! The tables, as numbered SQL files in `migrations/`, applied in order under an advisory lock.

use tokio_postgres::Client;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Key of the advisory lock: `gridwatc` in ASCII. The migration tool takes none itself, and two processes that start
/// together would both create the tables.
const LOCK: i64 = 0x6772_6964_7761_7463;

/// Why the tables could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The lock could not be taken or given back.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// A migration failed; it was rolled back, those before it stand.
    #[error("{0}")]
    Migration(#[from] refinery::Error),
}

/// Applies what is missing and returns the names of what was applied, oldest first. Each migration is a transaction.
///
/// # Errors
/// [`MigrateError`]; what was applied before the failing migration stays applied, and running again goes on from there.
pub async fn run(client: &mut Client) -> Result<Vec<String>, MigrateError> {
    client
        .execute("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await?;
    let result = embedded::migrations::runner().run_async(client).await;
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&LOCK])
        .await?;
    Ok(result?
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect())
}

/// The newest migration that this build knows.
pub fn newest() -> i32 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|m| m.version())
        .max()
        .unwrap_or(0)
}

/// Whether the database has every migration that this build knows. A database ahead of the build counts as current.
///
/// # Errors
/// Whatever PostgreSQL says, but for a database without any migration, which is `false`.
pub async fn are_current(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let known = client
        .query_one(
            "SELECT to_regclass('refinery_schema_history') IS NOT NULL",
            &[],
        )
        .await?;
    if !known.get::<_, bool>(0) {
        return Ok(false);
    }
    let row = client
        .query_one(
            "SELECT coalesce(max(version), 0)::bigint FROM refinery_schema_history",
            &[],
        )
        .await?;
    Ok(row.get::<_, i64>(0) >= i64::from(newest()))
}

//! Creating and updating the tables.
//!
//! In: the numbered SQL files in `schema/migrations`. Out: a database that has all of them, applied
//! in order under an advisory lock. Each migration is a transaction. A process that goes on running
//! waits for them.

use std::time::Duration;

use service::health::ComponentHealth;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::Pool;
use crate::error::cause;

mod embedded {
    refinery::embed_migrations!("../schema/migrations");
}

/// Key of the advisory lock: `gridwatc` in ASCII. The migration tool takes no lock, and two
/// processes that start at the same time would both create the tables.
const LOCK: i64 = 0x6772_6964_7761_7463;

/// Upper bound on the time of a statement: a migration may rewrite a table.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Pause between two attempts of [`wait`].
const PAUSE: Duration = Duration::from_secs(1);

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
    let timeout = STATEMENT_TIMEOUT.as_millis();
    let longer = format!("SET statement_timeout = {timeout}");
    client.batch_execute(&longer).await?;
    let result = run_locked(client).await;
    // The connection may be of a pool.
    let reset = client.batch_execute("RESET statement_timeout").await;
    let applied = result?;
    reset?;
    Ok(applied)
}

async fn run_locked(client: &mut Client) -> Result<Vec<String>, MigrateError> {
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

/// Retries an attempt to check the tables, or to create them, until it succeeds or the process
/// stops. Reports each failure as the health of the database. Returns whether it succeeded.
pub async fn wait<F>(
    health: &ComponentHealth,
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> bool
where
    F: Future<Output = Result<(), String>>,
{
    while let Some(result) = stop.run_until_cancelled(attempt()).await {
        match result {
            Ok(()) => return true,
            Err(reason) => health.unready(reason),
        }
        stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
    false
}

/// Adds what to do to an error of PostgreSQL when the cause is that tables are missing.
pub(crate) async fn explain(client: &Client, error: &tokio_postgres::Error) -> String {
    if are_current(client).await.unwrap_or(true) {
        cause(error)
    } else {
        HINT.into()
    }
}

#[cfg(test)]
mod tests {
    use refinery::Target;

    use super::*;
    use service::health::{Component, Health, HealthState};
    use testbed::wait::until_async;

    use crate::Database;
    use crate::testing::{LIMIT, connect, create_database, create_empty_database, pool};

    async fn create_first_version(client: &mut Client) {
        embedded::migrations::runner()
            .set_target(Target::Version(1))
            .run_async(client)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn tables_of_the_first_version_are_out_of_date_until_they_are_migrated() {
        let mut client = connect(&create_empty_database().await).await;
        assert!(!are_current(&client).await.unwrap());
        create_first_version(&mut client).await;
        assert!(!are_current(&client).await.unwrap());
        let reading = "INSERT INTO device (external_id) VALUES ('meter-1');
             INSERT INTO series (device_id, metric, unit) SELECT id, 'power', 'W' FROM device;
             SELECT gridwatch_create_reading_day('2026-11-20');
             INSERT INTO reading SELECT id, '2026-11-20 10:00:00Z', 1.5 FROM series";
        client.batch_execute(reading).await.unwrap();
        assert_eq!(
            run(&mut client).await.unwrap(),
            [
                "V2__readings_by_name",
                "V3__model",
                "V4__deletion",
                "V5__rollups",
                "V6__imports",
            ]
        );
        assert!(are_current(&client).await.unwrap());
        let readings = "SELECT * FROM readings_by_name
             WHERE (device, metric, unit, measured_at, value)
                 = ('meter-1', 'power', 'W', '2026-11-20 10:00:00Z', 1.5)";
        assert_eq!(client.query(readings, &[]).await.unwrap().len(), 1);
        assert_eq!(run(&mut client).await.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn a_process_waits_while_the_tables_are_of_the_first_version() {
        let url = create_empty_database().await;
        let mut client = connect(&url).await;
        create_first_version(&mut client).await;
        let (pool, stop) = (pool(&url, 1), CancellationToken::new());
        let health = Health::new(&[Component::Database]);
        let database = health.component(Component::Database);
        let waiting = wait(&database, &stop, || check(&pool));
        let migrating = async {
            until_async("the hint is reported", LIMIT, async || {
                health.report().1["database"] == HINT
            })
            .await;
            run(&mut client).await.unwrap();
        };
        assert!(tokio::join!(waiting, migrating).0);
        // The caller has more to do before it is ready.
        assert_eq!(health.report().0, HealthState::Unready);
        stop.cancel();
        assert!(!wait(&database, &stop, || check(&pool)).await);
    }

    #[tokio::test]
    async fn a_migration_may_take_longer_than_the_other_statements_of_a_connection() {
        let url = create_empty_database().await;
        let other = connect(&url).await;
        let lock = format!("SELECT pg_advisory_lock({LOCK})");
        other.batch_execute(&lock).await.unwrap();
        let database: Database = url.parse().unwrap();
        let database = database.named("test", Duration::from_secs(1));
        let mut client = database.connect().await.unwrap();
        // On the connection that has the lock, so that the other one waits longer than a second.
        let unlock = format!("SELECT pg_sleep(1.5); SELECT pg_advisory_unlock({LOCK})");
        let (applied, unlocked) = tokio::join!(run(&mut client), other.batch_execute(&unlock));
        unlocked.unwrap();
        assert!(!applied.unwrap().is_empty());
        let row = client.query_one("SHOW statement_timeout", &[]).await;
        assert_eq!(row.unwrap().get::<_, &str>(0), "1s");
    }

    #[tokio::test]
    async fn tables_that_are_ahead_of_this_build_are_current() {
        let client = connect(&create_database().await).await;
        let next = "UPDATE refinery_schema_history SET version = version + 1
                    WHERE version = (SELECT max(version) FROM refinery_schema_history)";
        client.batch_execute(next).await.unwrap();
        assert!(are_current(&client).await.unwrap());
    }

    /// The plan of the query that README shows.
    #[tokio::test]
    async fn a_query_by_name_uses_the_keys() {
        let client = connect(&create_database().await).await;
        let readings = "INSERT INTO device (external_id) SELECT 'meter-' || n
                 FROM generate_series(1, 2000) n;
             INSERT INTO series (device_id, metric)
                 SELECT id, metric FROM device, unnest(ARRAY['power', 'voltage']) metric;
             SELECT gridwatch_create_reading_day('2026-11-20');
             SELECT gridwatch_create_reading_day('2026-11-21');
             INSERT INTO reading SELECT series.id, minute, 1
                 FROM series JOIN device ON device.id = device_id AND device.id <= 100,
                     generate_series(timestamptz '2026-11-20 00:00Z', '2026-11-21 23:59Z', '10 min')
                         AS minute;
             ANALYZE";
        client.batch_execute(readings).await.unwrap();
        for condition in ["", "AND measured_at >= '2026-11-21 00:00Z'"] {
            let explain = format!(
                "EXPLAIN SELECT * FROM readings_by_name
                 WHERE device = 'meter-7' AND metric = 'power' {condition}
                 ORDER BY measured_at DESC LIMIT 5"
            );
            let rows = client.query(&explain, &[]).await.unwrap();
            let plan: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
            let plan = plan.join("\n");
            for expected in [
                "device_external_id_key",
                "series_device_id_metric_key",
                "reading_20261121_pkey",
            ] {
                assert!(plan.contains(expected), "{expected} is not in:\n{plan}");
            }
            assert!(!plan.contains("Seq Scan on reading_2026"), "{plan}");
            let reads_first_day = plan.contains("reading_20261120");
            assert_eq!(reads_first_day, condition.is_empty(), "{plan}");
        }
    }
}

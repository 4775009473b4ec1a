//! `gridwatch migrate`, and the same at the start of `gridwatch standalone`.
//!
//! In: a database. Out: it has every table. The command fails when PostgreSQL is unavailable; the
//! process that goes on running waits for it.

use std::fmt::Display;

use service::Context;
use service::health::Component;
use store::error::cause;
use store::{Client, Database, Pool, migrations};

use crate::config::Migrate;
use crate::output::summary;

/// Applies the missing migrations and prints their names.
pub(crate) async fn run(arguments: Migrate) -> anyhow::Result<()> {
    let database = arguments
        .database
        .parse("gridwatch migrate", migrations::STATEMENT_TIMEOUT)?;
    let mut client = connect(&database).await?;
    let applied = apply(&mut client, &database).await?;
    if applied.is_empty() {
        summary(format_args!("{database}: the tables are up to date"))?;
    }
    for migration in applied {
        summary(format_args!("{database}: applied {migration}"))?;
    }
    Ok(())
}

/// Applies the missing migrations. Returns their names.
///
/// # Errors
/// The migration that failed; earlier ones remain applied.
pub(crate) async fn apply(
    client: &mut Client,
    database: &(dyn Display + Sync),
) -> anyhow::Result<Vec<String>> {
    migrations::run(client).await.map_err(|error| {
        let cause = cause(&error);
        anyhow::anyhow!("cannot create or update the tables of {database}: {cause}")
    })
}

/// Applies the missing migrations over a connection of the pool.
///
/// # Errors
/// A sentence with the cause.
pub(crate) async fn apply_with(pool: &Pool) -> Result<(), String> {
    let mut client = store::get(pool).await?;
    let applied = apply(&mut client, &"PostgreSQL").await;
    applied.map(drop).map_err(|error| error.to_string())
}

/// Retries [`apply_with`] until it succeeds or the process stops. Returns whether the tables are up
/// to date.
pub(crate) async fn wait(context: &Context, pool: &Pool) -> bool {
    let health = context.health.component(Component::Database);
    let applied = migrations::wait(&health, &context.stop, || apply_with(pool)).await;
    if applied {
        tracing::info!("the tables are up to date");
    }
    applied
}

/// A connection for a command that does one thing and exits.
///
/// # Errors
/// PostgreSQL is unreachable or refuses the connection.
pub(crate) async fn connect(database: &Database) -> anyhow::Result<Client> {
    database.connect().await.map_err(|error| {
        let cause = cause(&error);
        anyhow::anyhow!(
            "cannot connect to PostgreSQL at {database}: {cause}; check --database-url and that \
             the server is running"
        )
    })
}

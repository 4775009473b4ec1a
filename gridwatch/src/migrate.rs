//! `gridwatch migrate`.

use std::fmt::Display;
use std::time::Duration;

use service::postgres::{Database, words};
use tokio_postgres::Client;

use crate::Usage;
use crate::config::Migrate;

/// Longest statement: a migration may rewrite a table.
const STATEMENT: Duration = Duration::from_secs(3_600);

/// Applies the migrations that are missing and says which.
pub async fn run(arguments: Migrate) -> anyhow::Result<()> {
    let database = arguments.database.parse("gridwatch migrate", STATEMENT)?;
    let mut client = connect(&database).await?;
    let applied = apply(&mut client, &database).await?;
    if applied.is_empty() {
        println!("{database}: the tables are up to date");
    }
    for migration in applied {
        println!("{database}: applied {migration}");
    }
    Ok(())
}

/// Applies the migrations that are missing. Returns their names.
///
/// # Errors
/// The migration that failed; those before it stand.
pub async fn apply(client: &mut Client, database: &dyn Display) -> anyhow::Result<Vec<String>> {
    schema::migrations::run(client).await.map_err(|error| {
        anyhow::anyhow!(
            "the tables of {database} could not be migrated: {}",
            words(&error)
        )
    })
}

/// A connection for a command that does one thing and ends.
///
/// # Errors
/// [`Usage`]: the URL leads nowhere.
pub async fn connect(database: &Database) -> Result<Client, Usage> {
    database.connect().await.map_err(|error| {
        Usage(format!(
            "cannot connect to PostgreSQL at {database}: {}",
            words(&error)
        ))
    })
}

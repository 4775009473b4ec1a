//! `gridwatch migrate`.

use std::fmt::Display;
use std::time::Duration;

use service::error_chain;
use store::{Client, Database, migrations};

use crate::config::Migrate;

/// Upper bound on the time of a statement: a migration may rewrite a table.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Applies the missing migrations and prints their names.
pub(crate) async fn run(arguments: Migrate) -> anyhow::Result<()> {
    let database = arguments
        .database
        .parse("gridwatch migrate", STATEMENT_TIMEOUT)?;
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

/// Applies the missing migrations. Returns their names.
///
/// # Errors
/// The migration that failed; earlier ones remain applied.
pub(crate) async fn apply(
    client: &mut Client,
    database: &dyn Display,
) -> anyhow::Result<Vec<String>> {
    migrations::run(client).await.map_err(|error| {
        let cause = error_chain(&error);
        anyhow::anyhow!("cannot migrate the tables of {database}: {cause}")
    })
}

/// A connection for a command that does one thing and exits.
///
/// # Errors
/// PostgreSQL is unreachable or refuses the connection.
pub(crate) async fn connect(database: &Database) -> anyhow::Result<Client> {
    database.connect().await.map_err(|error| {
        let cause = error_chain(&error);
        anyhow::anyhow!("cannot connect to PostgreSQL at {database}: {cause}")
    })
}

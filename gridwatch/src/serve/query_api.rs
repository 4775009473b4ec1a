//! `gridwatch query-api`: the read side, on a database.

use std::time::Duration;

use service::health::Component;
use store::probe;

use super::process::{Process, bind};
use crate::UsageError;
use crate::config::{Address, QueryApi};

/// The name in `pg_stat_activity`.
const NAME: &str = "gridwatch query-api";
/// Upper bound on the time of a statement. Long results are read in slices of a fraction of it.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections to PostgreSQL for the queries of standalone.
pub(super) const CONNECTIONS: usize = 4;

/// Runs the command.
pub(crate) async fn run(arguments: QueryApi) -> anyhow::Result<()> {
    check_access(&arguments.listen, arguments.insecure_no_auth).await?;
    let database = arguments.database.parse(NAME, STATEMENT_TIMEOUT)?;
    let listener = bind("--listen", &arguments.listen).await?;
    let process = Process::start(&arguments.admin, &[Component::Database]).await?;
    let context = process.context();
    // One more, so that the probe does not wait for queries.
    let pool = database.pool(arguments.connections + 1)?;
    let health = context.health.component(Component::Database);
    let probing = tokio::spawn(probe::run(pool.clone(), health, context.stop.clone()));
    let config = ::query_api::Config {
        max_connections: arguments.max_connections,
        grace: arguments.grace,
    };
    ::query_api::run(context, config, listener, pool.clone()).await;
    let _ = probing.await;
    pool.close();
    process.close().await;
    Ok(())
}

/// Whether queries may be served on an address: there are no API keys, so that other machines must
/// not reach them, unless the operator takes care of that.
///
/// # Errors
/// [`UsageError`]: other machines can reach the address.
pub(super) async fn check_access(
    listen: &Address,
    insecure_no_auth: bool,
) -> Result<(), UsageError> {
    if insecure_no_auth {
        return Ok(());
    }
    let address = listen
        .resolve()
        .await
        .map_err(|reason| UsageError(format!("--listen {listen}: {reason}")))?;
    if address.ip().is_loopback() {
        return Ok(());
    }
    Err(UsageError(format!(
        "--listen {listen}: other machines could read everything, because there are no API keys \
         yet. Listen on 127.0.0.1 behind a proxy with authentication, or give --insecure-no-auth"
    )))
}

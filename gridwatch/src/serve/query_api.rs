//! `gridwatch query-api`: the read side, on a database.

use std::time::Duration;

use ::query_api::Access;
use service::health::Component;
use store::probe;
use tokio::net::TcpListener;

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
    let database = arguments.database.parse(NAME, STATEMENT_TIMEOUT)?;
    let listener = bind("--listen", &arguments.listen).await?;
    let access = check_access(&arguments.listen, &listener, arguments.insecure_no_auth)?;
    let process = Process::start(&arguments.admin, &[Component::Database]).await?;
    let context = process.context();
    // One more, so that the probe does not wait for queries.
    let pool = database.pool(arguments.connections + 1)?;
    let health = context.health.component(Component::Database);
    let probing = tokio::spawn(probe::run(pool.clone(), health, context.stop.clone()));
    let config = ::query_api::Config {
        max_connections: arguments.max_connections,
        grace: arguments.grace,
        access,
    };
    ::query_api::run(context, config, listener, pool.clone()).await;
    let _ = probing.await;
    pool.close();
    process.close().await;
    Ok(())
}

/// Which queries may be served by a listener, which comes from `--listen`: there are no API keys,
/// so that other machines must not reach it, unless the operator takes care of that.
///
/// # Errors
/// [`UsageError`]: other machines can reach the listener.
pub(super) fn check_access(
    listen: &Address,
    listener: &TcpListener,
    insecure_no_auth: bool,
) -> Result<Access, UsageError> {
    if insecure_no_auth {
        return Ok(Access::Open);
    }
    let address = listener
        .local_addr()
        .map_err(|error| UsageError(format!("--listen {listen}: {error}")))?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(Access::Loopback);
    }
    Err(UsageError(format!(
        "--listen {listen}: other machines could read everything, because there are no API keys \
         yet. Listen on 127.0.0.1 behind a proxy with authentication, or give --insecure-no-auth"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn queries_are_served_on_loopback_unless_the_operator_insists() {
        for (address, insecure, expected) in [
            ("127.0.0.1:0", false, Some(Access::Loopback)),
            ("127.0.0.1:0", true, Some(Access::Open)),
            ("0.0.0.0:0", false, None),
            ("0.0.0.0:0", true, Some(Access::Open)),
        ] {
            let listener = TcpListener::bind(address).await.unwrap();
            // What a name resolves to later does not matter.
            let listen: Address = "localhost:0".parse().unwrap();
            let access = check_access(&listen, &listener, insecure).ok();
            assert_eq!(access, expected, "{address} {insecure}");
        }
    }
}

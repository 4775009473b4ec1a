//! What every long-running command has: metrics, health, an admin port and a stop signal.

use std::io::ErrorKind;
use std::time::Duration;

use service::Context;
use service::health::{Component, Health};
use service::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::UsageError;
use crate::config::Address;

/// Upper bound on open connections of the admin port.
const ADMIN_CONNECTIONS: usize = 64;
/// How long a scrape in flight may take at shutdown.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// The process, with its admin port open.
pub(crate) struct Process {
    context: Context,
    admin_stop: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

impl Process {
    /// Opens the admin port. The process is ready when all `components` are.
    ///
    /// # Errors
    /// [`UsageError`]: the address cannot be used.
    pub(crate) async fn start(admin: &Address, components: &[Component]) -> anyhow::Result<Self> {
        let listener = bind("--admin", admin).await?;
        let metrics = Metrics::install()?;
        let context = Context {
            health: Health::new(components),
            histograms: metrics.histograms.clone(),
            stop: service::shutdown::on_signal()?,
        };
        let router = service::admin::router(metrics.clone(), context.health.clone());
        let server = service::http::Config {
            name: "admin",
            max_connections: ADMIN_CONNECTIONS,
            grace: ADMIN_GRACE,
        };
        tracing::info!(address = %listener.local_addr()?, "admin port");
        let admin_stop = CancellationToken::new();
        let serving = service::http::serve(server, listener, router, admin_stop.clone());
        let tasks = [
            tokio::spawn(serving),
            tokio::spawn(metrics.upkeep(admin_stop.clone())),
        ];
        Ok(Self {
            context,
            admin_stop,
            tasks,
        })
    }

    /// What the stages of the process share.
    pub(crate) fn context(&self) -> Context {
        self.context.clone()
    }

    /// Closes the admin port.
    pub(crate) async fn close(self) {
        self.admin_stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        tracing::info!("stopped");
    }
}

/// Opens a listener.
///
/// # Errors
/// [`UsageError`] that names the flag and states what to do.
pub(super) async fn bind(flag: &str, address: &Address) -> Result<TcpListener, UsageError> {
    let wrong = |reason: String| UsageError(format!("{flag} {address}: {reason}"));
    let resolved = address.resolve().await.map_err(wrong)?;
    TcpListener::bind(resolved).await.map_err(|error| {
        wrong(match error.kind() {
            ErrorKind::AddrInUse => {
                "the address is in use; end the process that uses it, or choose another port".into()
            }
            ErrorKind::PermissionDenied => {
                "this user may not listen there; choose a port from 1024 to 65535".into()
            }
            ErrorKind::AddrNotAvailable => {
                "this machine does not have the address; 0.0.0.0 is all that it has".into()
            }
            _ => format!("cannot listen: {error}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_cannot_be_used_is_reported_with_what_to_do() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let used = listener.local_addr().unwrap().to_string();
        for (address, expected) in [
            (used.as_str(), "the address is in use"),
            ("192.0.2.1:0", "this machine does not have the address"),
            ("no-such-host.invalid:0", "cannot be resolved"),
        ] {
            let error = bind("--admin", &address.parse().unwrap()).await;
            let error = error.unwrap_err().to_string();
            let place = format!("--admin {address}: ");
            assert!(
                error.starts_with(&place) && error.contains(expected),
                "{error}"
            );
        }
        bind("--admin", &"localhost:0".parse().unwrap())
            .await
            .unwrap();
    }
}

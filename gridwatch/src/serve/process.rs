//! What every long-running command has: metrics, health, an admin port and a stop signal.

use std::net::SocketAddr;
use std::time::Duration;

use service::Context;
use service::health::{Component, Health};
use service::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::UsageError;

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
    pub(crate) async fn start(admin: SocketAddr, components: &[Component]) -> anyhow::Result<Self> {
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
/// [`UsageError`] that names the flag.
pub(super) async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener, UsageError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| UsageError(format!("{flag} {address}: cannot listen: {error}")))
}

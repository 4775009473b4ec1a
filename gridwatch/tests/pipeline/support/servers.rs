//! The private PostgreSQL and RabbitMQ of a run, and the connection to a database.
//!
//! The servers start with the first test that uses them and end with the run. A server that does
//! not start fails the test.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use testbed::postgres::Postgres;
pub(crate) use testbed::postgres::connect as try_connect;
use testbed::rabbitmq::RabbitMq;

/// One PostgreSQL and one RabbitMQ.
pub(crate) struct Servers {
    pub postgres: Postgres,
    pub rabbitmq: RabbitMq,
}

impl Servers {
    fn start(vhosts: usize) -> Self {
        Self::with(RabbitMq::start(vhosts).expect("RabbitMQ starts"))
    }

    /// Servers of one test, whose RabbitMQ serves its metrics.
    pub(crate) fn with_metrics() -> Self {
        Self::with(RabbitMq::start_with_metrics(1).expect("RabbitMQ starts"))
    }

    fn with(rabbitmq: RabbitMq) -> Self {
        let servers = Self {
            postgres: Postgres::start().expect("PostgreSQL starts"),
            rabbitmq,
        };
        servers.create_database("template", "");
        let url = servers.postgres.url("template");
        let migrated = gridwatch(&["migrate", "--database-url", &url]);
        assert!(migrated.status.success(), "{migrated:?}");
        servers
    }

    /// Creates a database without tables and returns its URL.
    pub(crate) fn empty_database(&self) -> String {
        self.create_database(&unique_name("empty"), "")
    }

    /// Creates a database with all tables and returns its URL.
    pub(crate) fn migrated_database(&self) -> String {
        self.create_database(&unique_name("site"), "TEMPLATE template")
    }

    fn create_database(&self, name: &str, options: &str) -> String {
        let server = self.postgres.url("postgres");
        let statement = format!("CREATE DATABASE {name} {options}");
        block_on(|| async {
            let client = connect(&server).await;
            client.batch_execute(&statement).await.unwrap();
        });
        self.postgres.url(name)
    }
}

fn unique_name(prefix: &str) -> String {
    static DATABASES: AtomicUsize = AtomicUsize::new(0);
    format!("{prefix}{}", DATABASES.fetch_add(1, Ordering::Relaxed))
}

/// Servers that no test stops.
pub(crate) static SHARED: LazyLock<Servers> = LazyLock::new(|| Servers::start(64));

/// Servers that tests stop, one test at a time.
pub(crate) static FRAGILE: LazyLock<tokio::sync::Mutex<Servers>> =
    LazyLock::new(|| tokio::sync::Mutex::new(Servers::start(8)));

/// The binary under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gridwatch"))
}

/// Runs a command of the binary and waits until it has exited.
pub(crate) fn gridwatch(arguments: &[&str]) -> Output {
    Command::new(program())
        .args(arguments)
        .output()
        .expect("the binary runs")
}

/// Runs a future to completion on its own thread and runtime, so that synchronous code which is
/// called from a runtime can wait for it.
pub(crate) fn block_on<F>(start: impl FnOnce() -> F + Send) -> F::Output
where
    F: Future<Output: Send>,
{
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(start())
    };
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Connects to a database; an error fails the test.
pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    try_connect(url).await.unwrap()
}

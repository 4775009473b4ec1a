//! For tests only: a PostgreSQL server for the test binary, and a database for each test.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testbed::postgres::Postgres;
use tokio::sync::OnceCell;

use crate::{Client, Database, Pool, migrations};

/// Ends a test that hangs; far beyond what any condition needs.
pub const LIMIT: Duration = Duration::from_secs(30);

static SERVER: LazyLock<Postgres> = LazyLock::new(|| Postgres::start().expect("PostgreSQL starts"));
static TEMPLATE: OnceCell<()> = OnceCell::const_new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// The server, which starts with the first test that uses it and ends with the process.
pub fn server() -> &'static Postgres {
    &SERVER
}

/// Creates a database with all tables and returns its URL.
pub async fn create_database() -> String {
    TEMPLATE.get_or_init(create_template).await;
    create_from("template").await
}

/// Creates a database without tables and returns its URL.
pub async fn create_empty_database() -> String {
    create_from("template0").await
}

async fn create_from(template: &str) -> String {
    let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let admin = connect(&SERVER.url("postgres")).await;
    let statement = format!("CREATE DATABASE {name} TEMPLATE {template}");
    admin.batch_execute(&statement).await.unwrap();
    SERVER.url(&name)
}

async fn create_template() {
    let admin = connect(&SERVER.url("postgres")).await;
    let statement = "CREATE DATABASE template";
    admin.batch_execute(statement).await.unwrap();
    let mut client = connect(&SERVER.url("template")).await;
    migrations::run(&mut client).await.unwrap();
}

/// Connects to the database of a URL.
pub async fn connect(url: &str) -> Client {
    let database: Database = url.parse().unwrap();
    database.connect().await.unwrap()
}

/// A pool of connections to the database of a URL, which are opened when they are first needed.
pub fn pool(url: &str, size: usize) -> Pool {
    let database: Database = url.parse().unwrap();
    database.pool(size).unwrap()
}

//! A site: one deployment under test, with its own database and virtual host.
//!
//! In: requests to its front end and messages on its queue. Out: rows in its database. When a site
//! is dropped, it asserts that the books balance (see [`super::assertions`]) and kills its
//! processes. When a test fails, it prints the logs of its processes and of the servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use testbed::faulty_proxy::FaultyProxy;
use testbed::node::tail;
use testbed::process::Process;
use testbed::wait::until_async;

use super::{
    Client, JSON, LIMIT, Response, SHARED, Servers, block_on, connect, http_client, post_readings,
    program,
};

/// What a process of a site does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    FrontEnd,
    Worker,
}

/// A database, a virtual host, and the processes of one test.
pub(crate) struct Site {
    pub database_url: String,
    /// The URL of the broker, without the proxy.
    pub amqp_url: String,
    pub ingest: Option<Process>,
    pub worker: Option<Process>,
    /// The address of the front end.
    pub listen: String,
    /// The program that is started as front end.
    pub front_end_program: PathBuf,
    pub client: Client,
    /// How long the site waits, when it is dropped, until the books balance.
    pub books_limit: Duration,
    pub(super) front_ends_started: usize,
    pub(super) workers_started: usize,
    /// Whether a worker ended after the queue was found empty.
    pub(super) queue_drained: bool,
    other_front_ends: Vec<Process>,
    broker_address: String,
    proxy: Option<Arc<FaultyProxy>>,
    /// The role whose processes connect to the broker through the proxy.
    proxied: Option<Role>,
    /// Why the books of this site cannot balance.
    unbalanced: Option<&'static str>,
    server_logs: [PathBuf; 2],
    /// Last, so that the processes can print their logs when a test fails.
    pub directory: tempfile::TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        let balance = if panicking || self.unbalanced.is_some() {
            Ok(())
        } else {
            block_on(|| self.wait_for_books())
        };
        if panicking || balance.is_err() {
            for log in &self.server_logs {
                eprintln!("--- {}\n{}", log.display(), tail(log));
            }
        }
        if let Err(error) = balance {
            panic!("{error:#}");
        }
    }
}

/// Construction.
impl Site {
    /// A site on the shared servers, without processes.
    pub(crate) fn new() -> Self {
        Self::on_servers(&SHARED)
    }

    /// A site on these servers, without processes.
    pub(crate) fn on_servers(servers: &Servers) -> Self {
        Self {
            server_logs: [
                servers.postgres.directory().join("log"),
                servers.rabbitmq.directory().join("log"),
            ],
            directory: tempfile::tempdir().unwrap(),
            database_url: servers.migrated_database(),
            amqp_url: servers.rabbitmq.url(&servers.rabbitmq.vhost().unwrap()),
            ingest: None,
            worker: None,
            listen: String::new(),
            front_end_program: program().to_owned(),
            client: http_client(),
            books_limit: LIMIT,
            front_ends_started: 0,
            workers_started: 0,
            queue_drained: false,
            other_front_ends: Vec::new(),
            broker_address: servers.rabbitmq.address(),
            proxy: None,
            proxied: None,
            unbalanced: None,
        }
    }

    /// A site with a front end that registers unknown devices, and a worker.
    pub(crate) fn running() -> Self {
        let mut site = Self::new();
        site.start_ingest(&["--unknown-devices", "register"]);
        site.start_worker(&[]);
        site
    }

    /// Uses another database.
    pub(crate) fn with_database(mut self, url: String) -> Self {
        self.database_url = url;
        self
    }

    /// Puts a faulty proxy between the broker and the processes of one role. Processes that were
    /// started before keep their connections.
    pub(crate) async fn behind_proxy(mut self, role: Role) -> Self {
        let proxy = FaultyProxy::start(self.broker_address.clone()).await;
        self.proxy = Some(Arc::new(proxy.unwrap()));
        self.proxied = Some(role);
        self
    }

    /// Connects the processes that are started from now on to the broker directly.
    pub(crate) fn bypass_proxy(&mut self) {
        self.proxied = None;
    }

    /// The proxy of [`Site::behind_proxy`].
    pub(crate) fn proxy(&self) -> Arc<FaultyProxy> {
        self.proxy.clone().expect("the site has a proxy")
    }

    /// Declares that the books of this site cannot balance, because `reason`.
    pub(crate) fn books_cannot_balance(&mut self, reason: &'static str) {
        self.unbalanced = Some(reason);
    }
}

/// Processes.
impl Site {
    /// The URL of the broker for processes of this role.
    pub(crate) fn amqp_url_for(&self, role: Role) -> String {
        match &self.proxy {
            Some(proxy) if self.proxied == Some(role) => {
                let proxy = proxy.address().to_string();
                self.amqp_url.replace(&self.broker_address, &proxy)
            }
            _ => self.amqp_url.clone(),
        }
    }

    /// Starts the front end with these further flags and waits until it is ready.
    pub(crate) fn start_ingest(&mut self, more: &[&str]) {
        let (process, listen) = self.start_front_end(more);
        self.ingest = Some(process);
        self.listen = listen;
    }

    /// Starts one more front end and returns its address.
    pub(crate) fn start_another_ingest(&mut self, more: &[&str]) -> String {
        let (process, listen) = self.start_front_end(more);
        self.other_front_ends.push(process);
        listen
    }

    fn start_front_end(&mut self, more: &[&str]) -> (Process, String) {
        let (listen, admin) = (free_address(), free_address());
        let amqp = self.amqp_url_for(Role::FrontEnd);
        let arguments = [
            "ingest-api",
            "--listen",
            &listen,
            "--admin",
            &admin,
            "--amqp-url",
            &amqp,
            "--database-url",
            &self.database_url,
        ];
        let arguments = [&arguments, more].concat();
        let program = &self.front_end_program;
        let mut process =
            Process::start(program, &arguments, &admin, self.directory.path()).unwrap();
        process.wait_ready();
        self.front_ends_started += 1;
        (process, listen)
    }

    /// Starts the worker with these further flags and waits until it is ready.
    pub(crate) fn start_worker(&mut self, more: &[&str]) {
        let admin = free_address();
        let amqp = self.amqp_url_for(Role::Worker);
        let arguments = [
            "worker",
            "--admin",
            &admin,
            "--amqp-url",
            &amqp,
            "--database-url",
            &self.database_url,
        ];
        let arguments = [&arguments, more].concat();
        let mut process =
            Process::start(program(), &arguments, &admin, self.directory.path()).unwrap();
        process.wait_ready();
        self.workers_started += 1;
        self.queue_drained = false;
        self.worker = Some(process);
    }

    /// The front end.
    pub(crate) fn ingest(&self) -> &Process {
        self.ingest.as_ref().expect("a front end was started")
    }

    /// The worker.
    pub(crate) fn worker(&self) -> &Process {
        self.worker.as_ref().expect("a worker was started")
    }

    /// Kills the front end; its counters are lost.
    pub(crate) fn kill_ingest(&mut self) {
        kill(self.ingest.take().expect("a front end was started"));
    }

    /// Kills the worker; its counters are lost.
    pub(crate) fn kill_worker(&mut self) {
        kill(self.worker.take().expect("a worker was started"));
    }

    pub(super) fn running_front_ends(&self) -> Vec<&Process> {
        self.ingest.iter().chain(&self.other_front_ends).collect()
    }

    /// Ends the worker, which returns what it has not acknowledged to the queue, and asserts that
    /// the queue is empty.
    pub(crate) async fn assert_all_acknowledged(&mut self) {
        let mut worker = self.worker.take().expect("a worker was started");
        let status = worker.terminate().unwrap();
        assert!(status.success(), "{status}");
        let unacknowledged = self.queue_length("gridwatch.readings").await;
        assert_eq!(unacknowledged, 0, "messages were not acknowledged");
        self.queue_drained = true;
    }
}

/// HTTP.
impl Site {
    /// Sends `POST /v1/readings`, with a query string and headers.
    pub(crate) async fn send(
        &self,
        query: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response {
        post_readings(&self.client, &self.listen, query, headers, body)
            .await
            .expect("the front end responds")
    }

    /// Sends readings as JSON.
    pub(crate) async fn post(&self, body: Value) -> Response {
        self.send("", &[JSON], body.to_string()).await
    }
}

/// The database.
impl Site {
    /// A new connection to the database.
    pub(crate) async fn sql(&self) -> tokio_postgres::Client {
        connect(&self.database_url).await
    }

    /// Runs statements.
    pub(crate) async fn execute(&self, statements: &str) {
        self.sql().await.batch_execute(statements).await.unwrap();
    }

    /// The first column of the first row.
    pub(crate) async fn query_int(&self, query: &str) -> i64 {
        self.sql().await.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Waits until at least this many readings are in the ledger.
    pub(crate) async fn wait_in_ledger(&self, readings: i64) {
        let sql = self.sql().await;
        let what = format!("{readings} readings are in the ledger");
        until_async(&what, LIMIT, async || {
            let row = sql
                .query_one("SELECT coalesce(sum(readings), 0)::bigint FROM batch", &[])
                .await
                .unwrap();
            row.get::<_, i64>(0) >= readings
        })
        .await;
    }

    /// Waits until a transaction waits for a lock on this table.
    pub(crate) async fn wait_for_lock_on(&self, table: &str) {
        let waiting = format!(
            "SELECT count(*) FROM pg_locks \
             WHERE NOT granted AND relation = '{table}'::regclass"
        );
        let what = format!("a transaction waits for a lock on {table}");
        until_async(&what, LIMIT, async || self.query_int(&waiting).await == 1).await;
    }
}

/// The broker.
impl Site {
    /// The number of messages in a queue that are ready for delivery.
    pub(crate) async fn queue_length(&self, queue: &str) -> u32 {
        let options = lapin::options::QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let connection = self.amqp().await;
        let channel = connection.create_channel().await.unwrap();
        let queue = channel
            .queue_declare(queue.into(), options, Default::default())
            .await
            .unwrap();
        let count = queue.message_count();
        close(&connection).await;
        count
    }

    /// A new connection to the broker.
    pub(crate) async fn amqp(&self) -> lapin::Connection {
        lapin::Connection::connect(&self.amqp_url, lapin::ConnectionProperties::default())
            .await
            .expect("RabbitMQ accepts connections")
    }

    /// Publishes a message to the queue, as another producer does.
    pub(crate) async fn publish(&self, payload: &[u8]) {
        let connection = self.amqp().await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(Default::default()).await.unwrap();
        let confirm = channel.basic_publish(
            "".into(),
            "gridwatch.readings".into(),
            Default::default(),
            payload,
            Default::default(),
        );
        assert!(confirm.await.unwrap().await.unwrap().is_ack());
        close(&connection).await;
    }
}

fn kill(mut process: Process) {
    process.signal("KILL").unwrap();
    process.wait_exit().unwrap();
}

async fn close(connection: &lapin::Connection) {
    connection
        .close(200, "closed by the test".into())
        .await
        .unwrap();
}

/// An address of loopback that is free now.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", testbed::free_port().unwrap())
}

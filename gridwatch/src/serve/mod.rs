//! The long-running commands: which sink, which source and which database each of them uses.
//!
//! A command opens its parts, puts them into a [`Deployment`], and runs it. The order of shutdown
//! is written once, in [`Deployment::run`].

pub(crate) mod ingest_api;
mod parts;
mod process;
pub(crate) mod query_api;
pub(crate) mod standalone;
pub(crate) mod worker;

use std::sync::Arc;

use ::ingest_api as front_end;
use ::query_api::Access;
use anyhow::Context as _;
use service::openapi;
use store::Pool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use transport::{Sink, Source};

use self::parts::{OpenSpool, Queue};
use self::process::Process;
use crate::embedded::Embedded;
use crate::migrate;

/// A front end and what it needs.
pub(crate) struct FrontEnd {
    config: front_end::Config,
    listener: TcpListener,
    sink: Arc<dyn Sink>,
}

/// A worker and what it needs.
pub(crate) struct Worker {
    config: ::worker::Config,
    source: Box<dyn Source>,
    /// Whether it creates the tables, or updates them, before it starts.
    migrate: bool,
}

/// The parts of one process. Those that a deployment mode does not have are `None`.
pub(crate) struct Deployment {
    front_end: Option<FrontEnd>,
    worker: Option<Worker>,
    queue: Option<Queue>,
    spool: Option<OpenSpool>,
    pool: Pool,
    /// Connections of the read side, and which of its requests are accepted, if it is on the port
    /// of the front end.
    queries: Option<(Pool, Access)>,
    /// Connections of background work, which ends with the front end, if this process does it. Also
    /// a process without queries may do it: another one may have created jobs.
    background: Option<Pool>,
    embedded: Option<Embedded>,
}

impl Deployment {
    /// Runs until the stop signal or a fatal error, then shuts down in this order:
    ///
    /// 1. the front end: unready, no new connections, requests in flight get their responses;
    /// 2. the worker: no new deliveries, open transactions are committed and acknowledged, the rest
    ///    returns to the queue;
    /// 3. the queue: the drain of the spool and the connection of the sink;
    /// 4. the spool: everything is synced;
    /// 5. the pools and the embedded database;
    /// 6. the admin port, so that the shutdown can be observed.
    ///
    /// The worker stops after the front end, because in direct mode it has to store what the front
    /// end accepts last.
    pub(crate) async fn run(self, process: Process) -> anyhow::Result<()> {
        let context = process.context();
        let worker_stop = match &self.front_end {
            Some(_) => CancellationToken::new(),
            None => context.stop.clone(),
        };
        let working = self.worker.map(|worker| {
            let (context, pool) = (context.clone(), self.pool.clone());
            let worker_stop = worker_stop.clone();
            tokio::spawn(async move {
                // When the worker ends, also by a panic, nothing is stored any more, so that
                // nothing must be accepted.
                let _stop = context.stop.clone().drop_guard();
                let context = context.with_stop(worker_stop);
                if worker.migrate && !migrate::wait(&context, &pool).await {
                    return Ok(());
                }
                ::worker::run(context, worker.config, worker.source, pool).await
            })
        });
        if let Some(FrontEnd {
            config,
            listener,
            sink,
        }) = self.front_end
        {
            let pool = self.pool.clone();
            let more = match self.queries.clone() {
                None => openapi::routes(&[front_end::openapi::api()]),
                Some((queries, access)) => {
                    let apis = [front_end::openapi::api(), ::query_api::openapi::api()];
                    ::query_api::routes_until(context.stop.clone(), queries, access)
                        .merge(openapi::routes(&apis))
                }
            };
            let serving = front_end::run(context.clone(), config, listener, sink, pool, more);
            match self.background.clone() {
                None => serving.await,
                Some(background) => {
                    let working = ::query_api::run_background_work(context.clone(), background);
                    tokio::join!(serving, working);
                }
            }
            worker_stop.cancel();
        }
        let worked = match working {
            None => Ok(()),
            Some(working) => working.await.context("the worker panicked").flatten(),
        };
        if let Some(queue) = self.queue {
            queue.close().await;
        }
        let spooled = match self.spool {
            None => Ok(()),
            Some(spool) => spool.close().await,
        };
        let queries = self.queries.into_iter().map(|(queries, _)| queries);
        for pool in queries.chain(self.background) {
            pool.close();
        }
        self.pool.close();
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
        process.close().await;
        worked.and(spooled)
    }
}

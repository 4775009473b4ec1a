//! `gridwatch worker`: a source on RabbitMQ and a database.

use service::health::Component;
use transport::amqp::AmqpSource;

use super::parts::WORKER_STATEMENT_TIMEOUT;
use super::process::Process;
use super::{Deployment, Worker};
use crate::config;

/// Runs the command.
pub(crate) async fn run(arguments: config::Worker) -> anyhow::Result<()> {
    let config::Worker { writer, grace, .. } = &arguments;
    let broker = arguments.amqp.parse()?;
    let database = arguments
        .database
        .parse("gridwatch worker", WORKER_STATEMENT_TIMEOUT)?;
    let components = [Component::Broker, Component::Database];
    let process = Process::start(&arguments.admin, &components).await?;
    let pool = database.pool(writer.connections())?;
    let health = process.context().health.component(Component::Broker);
    let source = AmqpSource::new(broker, writer.prefetch, health);
    let deployment = Deployment {
        front_end: None,
        worker: Some(Worker {
            config: writer.config(*grace),
            source: Box::new(source),
            migrate: false,
        }),
        queue: None,
        spool: None,
        pool,
        queries: None,
        background: None,
        embedded: None,
    };
    deployment.run(process).await
}

//! Worker and PostgreSQL: transactions, outcomes, and the state of the database.

use schema::clock::Stage;
use schema::metric;

use super::{HALF, THIRD, process};
use crate::dashboard::{Dashboard, Kind, MAX_ROWS, Panel};
use crate::promql::{by_instance, heat_map, quantile, rate, rate_by, stage};

/// The id in links.
pub const UID: &str = "gridwatch-worker";

pub(super) fn dashboard() -> Dashboard {
    let mut panels = worker();
    panels.extend(process::panels(metric::WORKER_UNSETTLED));
    panels.extend(postgres());
    Dashboard {
        uid: UID,
        title: "Gridwatch: worker and PostgreSQL",
        description: "Transactions, outcomes of readings, and the state of the database.",
        from: "now-1h",
        refresh: "10s",
        variables: Vec::new(),
        panels,
    }
}

fn worker() -> Vec<Panel> {
    let lines = |title, unit, description| Panel::new(title, Kind::Lines, unit, THIRD, description);
    vec![
        lines(
            "Outcomes",
            "short",
            "Readings per second by what became of them. Duplicate: stored already. Conflict: \
             stored already with another value. Dead letter: PostgreSQL refuses it.",
        )
        .query(rate(metric::PERSISTED), "stored")
        .query(rate(metric::DUPLICATE), "duplicate")
        .query(rate(metric::CONFLICT), "conflict")
        .query(rate(metric::DEAD_LETTERED), "dead letter"),
        lines(
            "Transactions",
            "short",
            "Transactions per second: all, those that met a stored key and used the staging table, \
             and retries after an error of PostgreSQL.",
        )
        .query(rate(metric::TRANSACTIONS), "committed")
        .query(rate(metric::STAGED_TRANSACTIONS), "with the staging table")
        .query(rate(metric::TRANSACTION_RETRIES), "retries"),
        lines(
            "Readings per transaction",
            "short",
            "The more load, the larger the transactions.",
        )
        .query(
            format!(
                "{} / ({} > 0) or 0 * {}",
                rate(metric::PERSISTED),
                rate(metric::TRANSACTIONS),
                rate(metric::PERSISTED)
            ),
            "readings",
        ),
        [(0.5, "p50"), (0.95, "p95"), (0.99, "p99")]
            .into_iter()
            .fold(
                lines("Transaction time", "s", "From BEGIN to COMMIT."),
                |panel, (value, name)| {
                    panel.query(quantile(value, metric::TRANSACTION_SECONDS, ""), name)
                },
            ),
        Panel::new(
            "Transaction time, all",
            Kind::HeatMap,
            "s",
            THIRD,
            "The same, for all transactions.",
        )
        .query(heat_map(metric::TRANSACTION_SECONDS, ""), "{{le}}"),
        Panel::new(
            "Time in the queue",
            Kind::HeatMap,
            "s",
            THIRD,
            "From sending a batch until the worker has it.",
        )
        .query(
            heat_map(metric::STAGE_SECONDS, &stage(Stage::EnqueuedToDequeued)),
            "{{le}}",
        ),
        lines(
            "Readings in the worker",
            "short",
            "Received and not acknowledged.",
        )
        .query(by_instance(metric::WORKER_UNSETTLED), "{{instance}}"),
        lines(
            "Poison messages",
            "short",
            "Messages per second that are not batches, and batches that were stored already.",
        )
        .query(
            rate_by(metric::LABEL_CODE, metric::POISON_MESSAGES),
            "{{code}}",
        )
        .query(rate(metric::REDELIVERED_BATCHES), "stored already"),
        lines(
            "Clock skew",
            "short",
            "Readings per second whose stage ends before it begins, because clocks differ. \
             'measured': the clock of a device is ahead.",
        )
        .query(
            rate_by(metric::LABEL_STAGE, metric::CLOCK_SKEW),
            "{{stage}}",
        ),
    ]
}

fn postgres() -> Vec<Panel> {
    let value = |title, unit, description, sql: &str| {
        Panel::new(title, Kind::Plain, unit, (4, 5), description).sql(sql)
    };
    vec![
        value(
            "Size of the database",
            "bytes",
            "All tables and indexes.",
            "SELECT pg_database_size(current_database()) AS bytes",
        ),
        value(
            "Partitions ahead",
            "short",
            "Days from tomorrow on that have a partition.",
            "SELECT count(*) AS days FROM gridwatch_reading_days() WHERE day > current_date",
        ),
        value(
            "Batches in the ledger",
            "short",
            "As PostgreSQL estimates.",
            "SELECT greatest(reltuples, 0)::bigint AS batches FROM pg_class
             WHERE oid = 'batch'::regclass",
        ),
        value(
            "Rows in the cache",
            "percentunit",
            "Part of the blocks that PostgreSQL found in its memory.",
            "SELECT coalesce(blks_hit::float8 / nullif(blks_hit + blks_read, 0), 1) AS hits
             FROM pg_stat_database WHERE datname = current_database()",
        ),
        value(
            "Oldest transaction",
            "s",
            "A long transaction keeps PostgreSQL from removing old rows.",
            "SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0)::float8 AS seconds
             FROM pg_stat_activity WHERE datname = current_database()",
        ),
        value(
            "Replication lag",
            "bytes",
            "The standby that is furthest behind; 0 without a standby.",
            "SELECT coalesce(max(pg_wal_lsn_diff(sent_lsn, replay_lsn)), 0)::float8 AS bytes
             FROM pg_stat_replication",
        ),
        Panel::new(
            "Largest tables",
            Kind::Table,
            "bytes",
            HALF,
            "Tables and their indexes; the partitions of a table together.",
        )
        .sql(format!(
            "SELECT coalesce(inhparent, c.oid)::regclass::text AS table,
                    sum(pg_total_relation_size(c.oid))::bigint AS bytes
             FROM pg_class c LEFT JOIN pg_inherits ON inhrelid = c.oid
             WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
             GROUP BY 1 ORDER BY 2 DESC LIMIT {MAX_ROWS}"
        )),
        Panel::new(
            "Connections",
            Kind::Table,
            "short",
            HALF,
            "Connections to the database by program and state, and how many of them wait for a \
             lock.",
        )
        .sql(format!(
            "SELECT application_name AS program, coalesce(state, 'background') AS state,
                    count(*) AS connections,
                    count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting
             FROM pg_stat_activity WHERE datname = current_database()
             GROUP BY 1, 2 ORDER BY 3 DESC LIMIT {MAX_ROWS}"
        )),
    ]
}

//! What the marks of roll-ups cost a transaction of the worker.

use std::sync::Arc;
use std::time::Instant;

use schema::batch::Receipt;
use schema::reading::Micros;
use schema::{Batch, Reading, clock};
use store::transaction::{ReceivedBatch, store_batches};
use store::{Database, Object};
use tokio_postgres::Client;

use crate::Arguments;
use crate::client::milliseconds;
use crate::common::load::{BEGIN, SERIES};
use crate::report::{Figure, Goal};
use crate::servers::Servers;

/// Sizes of transactions: batches, and readings of each.
const SIZES: [(usize, usize); 2] = [(50, 1_000), (10, 10)];

/// Interleaved transactions without closed days, and with one that all readings belong to.
pub(crate) async fn measure(
    servers: &Servers,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Figure>> {
    let sql = servers.create_database("marks").await?;
    let database = servers.url("marks").parse::<Database>();
    let database = database.map_err(anyhow::Error::msg)?;
    let pool = database.pool(1)?;
    let client = store::get(&pool).await.map_err(anyhow::Error::msg)?;
    let mut figures = Vec::new();
    let mut next = 0;
    for (batches, readings) in SIZES {
        let size = format!("{batches} x {readings} readings");
        println!("marks: {} transactions of {size}", arguments.transactions);
        let mut open = Vec::new();
        let mut closed = Figure::new(
            format!("transaction, a closed day, {size}"),
            "ms",
            Goal::None,
        );
        for round in 0..=arguments.transactions {
            let mut times = [0.0; 2];
            // Which one is first changes with the round.
            for is_closed in [round % 2 == 0, round % 2 == 1] {
                let change = match is_closed {
                    true => "INSERT INTO rollup_day (day) VALUES ('2026-11-01')",
                    false => "TRUNCATE rollup_day, rollup_mark",
                };
                sql.batch_execute("TRUNCATE rollup_day, rollup_mark")
                    .await?;
                sql.batch_execute(change).await?;
                let received = receive(batches, readings, &mut next);
                times[usize::from(is_closed)] = store(&client, &received).await?;
            }
            // The first round prepares statements.
            if round > 0 {
                closed.add_round(times[0], times[1]);
                open.push(times[0]);
            }
        }
        figures.push(closed);
        sql.batch_execute("TRUNCATE rollup_day, rollup_mark")
            .await?;
        // Not in one string with others, which would be a transaction.
        sql.batch_execute("VACUUM ANALYZE batch").await?;
        figures.push(returning(&sql, &size, batches, &open, arguments).await?);
    }
    drop(client);
    pool.close();
    servers.drop_database("marks").await?;
    Ok(figures)
}

/// New batches. Readings are in the order in which a fleet sends them.
fn receive(batches: usize, readings: usize, next: &mut usize) -> Vec<ReceivedBatch> {
    let now = clock::now();
    let mut received = Vec::with_capacity(batches);
    for _ in 0..batches {
        let mut batch = Batch {
            enqueued_at: now,
            ..Batch::new()
        };
        batch.receipts.push(Receipt {
            received_at: now,
            count: readings as u32,
        });
        for _ in 0..readings {
            batch.push(Reading {
                series_id: (*next % SERIES) as i32 + 1,
                measured_at: BEGIN + (*next / SERIES) as Micros * 100_000,
                value: *next as f64,
            });
            *next += 1;
        }
        received.push(ReceivedBatch {
            batch: Arc::new(batch),
            dequeued_at: now,
        });
    }
    received
}

async fn store(client: &Object, received: &[ReceivedBatch]) -> anyhow::Result<f64> {
    let started = Instant::now();
    store_batches(client, received, &[], false, &mut Vec::new()).await?;
    Ok(milliseconds(started.elapsed()))
}

/// The statement that asks for closed days, and the same without the question. The limit is the
/// transaction without the question.
async fn returning(
    sql: &Client,
    size: &str,
    batches: usize,
    transactions: &[f64],
    arguments: &Arguments,
) -> anyhow::Result<Figure> {
    let update = format!(
        "UPDATE batch SET stored = readings, persisted_at = clock_timestamp()
         FROM (SELECT id FROM batch ORDER BY id DESC LIMIT {batches}) AS entry
         WHERE batch.id = entry.id"
    );
    let asking = format!(
        "{update} RETURNING EXISTS (
             SELECT FROM rollup_day WHERE day BETWEEN (first_measured AT TIME ZONE 'UTC')::date
                                              AND (last_measured AT TIME ZONE 'UTC')::date)"
    );
    let statements = [sql.prepare(&update).await?, sql.prepare(&asking).await?];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..=arguments.transactions {
        for (statement, times) in statements.iter().zip(&mut times) {
            // Rolled back: what it costs without the commit, which both have.
            sql.batch_execute("BEGIN").await?;
            let started = Instant::now();
            sql.query(statement, &[]).await?;
            times.push(milliseconds(started.elapsed()));
            sql.batch_execute("ROLLBACK").await?;
        }
    }
    let [without, with] = times.map(|times| loadtest::statistics::median(&times));
    println!("  {size}: the statement {without:.3} ms, with the question {with:.3} ms");
    let name = format!("transaction, no closed day, {size}");
    let mut figure = Figure::new(name, "ms", Goal::RatioAtMost(1.03));
    for transaction in transactions {
        figure.add_round(transaction - (with - without), *transaction);
    }
    Ok(figure)
}

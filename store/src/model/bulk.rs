//! Creating many devices at once: COPY into a temporary table, and one statement for each table.
//!
//! In: rows, encoded as they arrive, so that they are in memory once. Out: all devices and their
//! series are created, or nothing is, and every row that cannot be created is reported.

use std::fmt::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use deadpool_postgres::Transaction;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use service::FieldError;
use tokio_postgres::Error;

use super::{Request, Resource, WriteError, idempotency};
use crate::Pool;
use crate::copy::header;
use crate::reads::connection;

/// Upper bound on the errors that are reported.
const MAX_ERRORS: i64 = 100;
/// Bytes that are written to the connection at a time.
const CHUNK: usize = 128 * 1024;

/// The statements may take longer than those of other requests.
const CREATE: &str = "
    SET LOCAL statement_timeout = '60s';
    CREATE TEMPORARY TABLE bulk (line integer, device text, document jsonb) ON COMMIT DROP";

const COPY: &str = "COPY bulk (line, device, document) FROM STDIN (FORMAT binary)";

const ERRORS: &str = "
    SELECT line, '/device', 'device ''' || device || ''' is in an earlier line too'
    FROM (SELECT line, device, row_number() OVER (PARTITION BY device ORDER BY line) FROM bulk)
         AS numbered (line, device, number)
    WHERE number > 1
    UNION ALL
    SELECT line, '/device', 'device ''' || device || ''' exists already'
    FROM bulk JOIN device d ON d.external_id = bulk.device
    UNION ALL
    SELECT line, '/' || field, 'no ' || field || ' ''' || id || ''' exists'
    FROM (SELECT line, 'component', document ->> 'component' FROM bulk
          WHERE document ->> 'component' IS NOT NULL
            AND NOT EXISTS (SELECT FROM component
                            WHERE id = (bulk.document ->> 'component')::uuid)
          UNION ALL
          SELECT line, 'type', document ->> 'type' FROM bulk
          WHERE document ->> 'type' IS NOT NULL
            AND NOT EXISTS (SELECT FROM catalog_type
                            WHERE id = (bulk.document ->> 'type')::uuid))
         AS missing (line, field, id)
    ORDER BY 1, 2 LIMIT $1";

const CREATE_SERIES: &str = "
    INSERT INTO series (device_id, metric, unit, kind, rollover, updated_by)
    SELECT d.id, new.metric, new.unit, new.kind, new.rollover, $1
    FROM bulk JOIN device d ON d.external_id = bulk.device
    CROSS JOIN LATERAL jsonb_to_recordset(bulk.document -> 'series')
        AS new (metric text, unit text, kind text, rollover float8)
    ORDER BY bulk.device, new.metric";

const RECORD: &str = "
    INSERT INTO change (actor, entity, entity_id, action, after)
    SELECT $1, 'device', device, 'create', document FROM bulk ORDER BY line";

/// Devices to create.
#[derive(Debug)]
pub struct Devices {
    rows: BytesMut,
    count: usize,
}

impl Default for Devices {
    fn default() -> Self {
        let mut rows = BytesMut::new();
        header(&mut rows);
        Self { rows, count: 0 }
    }
}

impl Devices {
    /// Adds a device. The document has every field of [`Resource::Device`], and `series`, a list
    /// whose entries have every field of [`Resource::Series`]. `line` is the number that errors
    /// have.
    pub fn push(&mut self, line: usize, name: &str, document: &Value) {
        let document = document.to_string();
        self.rows.put_i16(3);
        self.rows.put_i32(4);
        self.rows.put_i32(i32::try_from(line).unwrap_or(i32::MAX));
        self.rows.put_i32(length(name.len()));
        self.rows.put_slice(name.as_bytes());
        self.rows.put_i32(length(document.len() + 1));
        // The version of the binary format of jsonb.
        self.rows.put_u8(1);
        self.rows.put_slice(document.as_bytes());
        self.count += 1;
    }

    /// Number of devices.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no device.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// Creates devices and their series. Returns the number of each.
///
/// # Errors
/// [`WriteError`]; nothing was created. [`WriteError::Invalid`] has the lines in its errors.
pub async fn create(pool: &Pool, devices: Devices, request: &Request) -> Result<Value, WriteError> {
    let mut client = connection(pool).await?;
    let transaction = client.transaction().await?;
    if let Some(first) = idempotency::claim(&transaction, request).await? {
        return Ok(first);
    }
    transaction.batch_execute(CREATE).await?;
    copy(&transaction, devices).await?;
    transaction.batch_execute("ANALYZE bulk").await?;
    let rows = transaction.query(ERRORS, &[&MAX_ERRORS]).await?;
    if !rows.is_empty() {
        let error = |row: &tokio_postgres::Row| FieldError {
            line: usize::try_from(row.get::<_, i32>(0)).ok(),
            pointer: row.get(1),
            reason: row.get(2),
        };
        return Err(WriteError::Invalid(rows.iter().map(error).collect()));
    }
    let created = transaction
        .execute(&create_devices(), &[&request.actor])
        .await?;
    let series = transaction
        .execute(CREATE_SERIES, &[&request.actor])
        .await?;
    transaction.execute(RECORD, &[&request.actor]).await?;
    let response = json!({ "created": { "devices": created, "series": series } });
    idempotency::store(&transaction, request, &response).await?;
    transaction.commit().await?;
    Ok(response)
}

fn create_devices() -> String {
    let (mut names, mut values, mut record) = (String::new(), String::new(), String::new());
    for column in Resource::Device.columns() {
        let comma = if record.is_empty() { "" } else { ", " };
        let _ = write!(names, "{}, ", column.name);
        let _ = write!(values, "new.\"{}\", ", column.field);
        let _ = write!(record, "{comma}\"{}\" {}", column.field, column.sql_type);
    }
    // In the order of names, as in a registration, so that the two cannot deadlock.
    format!(
        "INSERT INTO device ({names} updated_by) SELECT {values} $1
         FROM bulk, jsonb_to_record(bulk.document) AS new ({record}) ORDER BY bulk.device"
    )
}

async fn copy(transaction: &Transaction<'_>, devices: Devices) -> Result<(), Error> {
    let mut rows = devices.rows;
    rows.put_i16(-1);
    let mut rows = rows.freeze();
    let sink = transaction.copy_in::<_, Bytes>(COPY).await?;
    let mut sink = std::pin::pin!(sink);
    while !rows.is_empty() {
        let chunk = rows.split_to(rows.len().min(CHUNK));
        sink.feed(chunk).await?;
    }
    sink.finish().await?;
    Ok(())
}

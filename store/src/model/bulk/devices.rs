//! Devices and their series, from the rows of `bulk`.

use deadpool_postgres::Transaction;
use serde_json::{Map, Value, json};

use super::super::{Resource, WriteError};
use super::{check, created, insert};

/// Leaves out the devices that exist.
pub(super) const SKIP: &str = "DELETE FROM bulk USING device d WHERE d.external_id = bulk.key";

const ERRORS: &str = "
    SELECT line, '/device', 'device ''' || device || ''' is in an earlier line too'
    FROM (SELECT line, key, row_number() OVER (PARTITION BY key ORDER BY line) FROM bulk)
         AS numbered (line, device, number)
    WHERE number > 1
    UNION ALL
    SELECT line, '/device', 'device ''' || key || ''' exists already'
    FROM bulk JOIN device d ON d.external_id = bulk.key
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
    FROM bulk JOIN device d ON d.external_id = bulk.key
    CROSS JOIN LATERAL jsonb_to_recordset(bulk.document -> 'series')
        AS new (metric text, unit text, kind text, rollover float8)
    ORDER BY bulk.key, new.metric";

const RECORD: &str = "
    INSERT INTO change (actor, entity, entity_id, action, after)
    SELECT $1, 'device', key, 'create', document FROM bulk ORDER BY line";

pub(super) async fn create(
    transaction: &Transaction<'_>,
    actor: &str,
) -> Result<Map<String, Value>, WriteError> {
    check(transaction, ERRORS).await?;
    // In the order of names, as in a registration, so that the two cannot deadlock.
    let sql = insert(Resource::Device, "bulk", None, "bulk.key");
    let devices = transaction.execute(&sql, &[&actor]).await?;
    let series = transaction.execute(CREATE_SERIES, &[&actor]).await?;
    transaction.execute(RECORD, &[&actor]).await?;
    Ok(created(json!({ "devices": devices, "series": series })))
}

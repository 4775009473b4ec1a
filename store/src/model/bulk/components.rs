//! Components, from the rows of `bulk`. A parent is a component that exists, or another row.
//!
//! The rules are those of [`super::super::component`], for all rows at once. The caller makes sure
//! that the parents within the rows have no cycle and that no key is there twice.

use deadpool_postgres::Transaction;
use serde_json::{Map, Value, json};

use super::super::{Resource, WriteError, component};
use super::{check, created, insert};

/// Leaves out the components that exist.
pub(super) const SKIP: &str = "DELETE FROM bulk USING component c WHERE c.id = bulk.key::uuid";

const NODES: &str = "
    CREATE TEMPORARY TABLE node ON COMMIT DROP AS
    SELECT line, key::uuid AS id, document ->> 'kind' AS kind,
           (document ->> 'parent')::uuid AS parent, (document ->> 'customer')::uuid AS customer,
           document
    FROM bulk;
    ANALYZE node";

/// What the checks read stays as it is until the end of the transaction. Rows are locked in the
/// order of their keys, so that two requests cannot deadlock.
const LOCK_KINDS: &str = "
    SELECT FROM kind WHERE name IN (SELECT kind FROM node) ORDER BY name FOR KEY SHARE";
const LOCK_PARENTS: &str = "
    SELECT FROM component WHERE id IN (SELECT parent FROM node) ORDER BY id FOR NO KEY UPDATE";

const ERRORS: &str = "
    WITH rule AS (
        SELECT k.name AS kind, r ->> 'kind' AS parent_kind, (r ->> 'max')::bigint AS max
        FROM kind k CROSS JOIN LATERAL jsonb_array_elements(k.parents) AS r
        WHERE k.name IN (SELECT kind FROM node)),
    kinds AS (SELECT kind, string_agg(parent_kind, ' or ') AS parents FROM rule GROUP BY kind),
    placed AS (
        SELECT node.line, node.kind, node.parent, kinds.parents,
               coalesce(other.kind, c.kind) AS parent_kind
        FROM node LEFT JOIN kinds ON kinds.kind = node.kind
        LEFT JOIN node other ON other.id = node.parent
        LEFT JOIN component c ON c.id = node.parent)
    SELECT line, '/id', 'component ''' || node.id || ''' exists already'
    FROM node JOIN component c ON c.id = node.id
    UNION ALL
    SELECT line, '/kind', 'no kind ''' || kind || ''' exists; see /v1/kinds'
    FROM node WHERE NOT EXISTS (SELECT FROM kind k WHERE k.name = node.kind)
    UNION ALL
    SELECT line, '/customer', 'no customer ''' || customer || ''' exists'
    FROM node WHERE customer IS NOT NULL
                AND NOT EXISTS (SELECT FROM customer c WHERE c.id = node.customer)
    UNION ALL
    SELECT line, '/parent',
           CASE WHEN parent IS NULL
                THEN 'a component of kind ' || kind || ' needs a parent: a ' || parents
                WHEN parents IS NULL
                THEN 'a component of kind ' || kind || ' is a root: it has no parent'
                WHEN parent_kind IS NULL
                THEN 'no component ''' || parent || ''' exists'
                ELSE 'the parent of a component of kind ' || kind || ' is a ' || parents
                     || ', and ''' || parent || ''' is of kind ' || parent_kind END
    FROM placed
    WHERE (parent IS NULL) <> (parents IS NULL)
       OR parent IS NOT NULL
          AND NOT EXISTS (SELECT FROM rule WHERE rule.kind = placed.kind
                                             AND rule.parent_kind = placed.parent_kind)
    UNION ALL
    SELECT line, '/parent', '''' || parent || ''' may have at most ' || max
                            || ' components of kind ' || kind
    FROM (SELECT placed.line, placed.parent, placed.kind, rule.max,
                 row_number() OVER (PARTITION BY placed.parent, placed.kind
                                    ORDER BY placed.line) AS number
          FROM placed JOIN rule ON rule.kind = placed.kind
                               AND rule.parent_kind = placed.parent_kind
          WHERE rule.max IS NOT NULL) AS numbered
    WHERE number + (SELECT count(*) FROM component c
                    WHERE c.parent = numbered.parent AND c.kind = numbered.kind) > max
    ORDER BY 1, 2 LIMIT $1";

/// The depth of each parent that exists, and from there down.
const TOO_DEEP: &str = "
    WITH RECURSIVE path (id, parent, depth) AS (
        SELECT c.id, c.parent, 1 FROM component c WHERE c.id IN (SELECT parent FROM node)
        UNION ALL
        SELECT path.id, c.parent, depth + 1 FROM path JOIN component c ON c.id = path.parent
        WHERE depth < 64),
    above AS (SELECT id, max(depth) AS depth FROM path GROUP BY id),
    level (id, line, depth) AS (
        SELECT node.id, node.line, coalesce(above.depth, 0) + 1
        FROM node LEFT JOIN above ON above.id = node.parent
        WHERE NOT EXISTS (SELECT FROM node other WHERE other.id = node.parent)
        UNION ALL
        SELECT node.id, node.line, level.depth + 1
        FROM level JOIN node ON node.parent = level.id WHERE level.depth <= 32)
    SELECT line, '/parent', 'the component would be at depth ' || depth || ', and the limit is 32'
    FROM level WHERE depth > 32 ORDER BY 1 LIMIT $1";

const RECORD: &str = "
    INSERT INTO change (actor, entity, entity_id, action, after)
    SELECT $1, 'component', id::text, 'create', jsonb_build_object('id', id) || document
    FROM node ORDER BY line";

pub(super) async fn create(
    transaction: &Transaction<'_>,
    actor: &str,
) -> Result<Map<String, Value>, WriteError> {
    component::lock_tree(transaction).await?;
    transaction.batch_execute(NODES).await?;
    transaction.execute(LOCK_KINDS, &[]).await?;
    transaction.execute(LOCK_PARENTS, &[]).await?;
    check(transaction, ERRORS).await?;
    check(transaction, TOO_DEEP).await?;
    let sql = insert(
        Resource::Component,
        "node",
        Some(("id", "node.id")),
        "node.line",
    );
    let components = transaction.execute(&sql, &[&actor]).await?;
    transaction.execute(RECORD, &[&actor]).await?;
    Ok(created(json!({ "components": components })))
}

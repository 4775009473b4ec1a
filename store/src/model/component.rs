//! The rules of the tree of components, which kinds define.
//!
//! A kind says which kinds of parents its components may have, and how many of them a parent may
//! have. The row of the parent is locked while its children are counted, so that two requests
//! cannot both create the last one. That a parent has at least `min` children cannot be required
//! when it is created; [`missing_children`] reports it.

use deadpool_postgres::{GenericClient, Transaction};
use serde_json::{Value, json};
use tokio_postgres::Error;
use uuid::Uuid;

use super::{WriteError, invalid, parse};
use crate::reads::ReadError;

/// Upper bound on the depth of the tree.
const MAX_DEPTH: i64 = 32;

/// The kind of a component, its depth, and whether it is below another one.
const PARENT: &str = "
    WITH RECURSIVE path (id, parent, depth) AS (
        SELECT id, parent, 1 FROM component WHERE id = $1
        UNION ALL
        SELECT c.id, c.parent, depth + 1 FROM path JOIN component c ON c.id = path.parent
        WHERE depth < 64)
    SELECT (SELECT kind FROM component WHERE id = $1), max(depth)::bigint,
           coalesce(bool_or(id = $2), false)
    FROM path";

/// The number of levels of a component and what is below it; 1 for one that is created.
const HEIGHT: &str = "
    WITH RECURSIVE subtree (id, height) AS (
        SELECT $1::uuid, 1
        UNION ALL
        SELECT c.id, height + 1 FROM subtree JOIN component c ON c.parent = subtree.id
        WHERE height < 64)
    SELECT max(height)::bigint FROM subtree";

const SIBLINGS: &str = "
    SELECT count(*) FROM component WHERE parent = $1 AND kind = $2 AND id <> $3";

/// The components of the kind `$1` whose parents the rules `$2` do not allow, by kind of parent.
const MISPLACED: &str = "
    SELECT p.kind, count(*) FROM component c LEFT JOIN component p ON p.id = c.parent
    WHERE c.kind = $1
      AND NOT CASE WHEN p.id IS NULL THEN $2::text::jsonb = '[]'
                   ELSE $2::text::jsonb @> jsonb_build_array(jsonb_build_object('kind', p.kind))
              END
    GROUP BY p.kind ORDER BY count(*) DESC LIMIT 1";

/// A parent that has more components of the kind `$1` than the rules `$2` allow.
const CROWDED: &str = "
    SELECT p.id, count(*), (rule ->> 'max')::bigint
    FROM component c JOIN component p ON p.id = c.parent
    JOIN jsonb_array_elements($2::text::jsonb) AS rule ON rule ->> 'kind' = p.kind
    WHERE c.kind = $1
    GROUP BY p.id, rule HAVING count(*) > (rule ->> 'max')::bigint
    ORDER BY count(*) DESC LIMIT 1";

const MISSING: &str = "
    SELECT child.name, (rule ->> 'min')::bigint,
           (SELECT count(*) FROM component c WHERE c.parent = $2 AND c.kind = child.name)
    FROM kind child CROSS JOIN LATERAL jsonb_array_elements(child.parents) AS rule
    WHERE rule ->> 'kind' = $1 AND (rule ->> 'min')::bigint > 0
    ORDER BY child.name";

fn uuid(value: &Value) -> Option<Uuid> {
    value.as_str().and_then(|text| text.parse().ok())
}

/// Makes changes of the tree take turns: two moves at the same time could make each component the
/// parent of the other. The lock comes before those of rows, so that two changes cannot deadlock.
pub(super) async fn lock_tree(transaction: &Transaction<'_>) -> Result<(), Error> {
    let lock = "SELECT pg_advisory_xact_lock(hashtext('gridwatch.tree'))";
    transaction.execute(lock, &[]).await?;
    Ok(())
}

/// Checks that the kind of a component allows its parent.
pub(super) async fn check_parent(
    transaction: &Transaction<'_>,
    key: &[String],
    before: Option<&Value>,
    value: &Value,
) -> Result<(), WriteError> {
    if before.is_some_and(|before| before["parent"] == value["parent"]) {
        return Ok(());
    }
    let id = key.first().and_then(|id| id.parse::<Uuid>().ok());
    let id = id.unwrap_or_default();
    let kind = value["kind"].as_str().unwrap_or_default();
    let sql = "SELECT parents::text FROM kind WHERE name = $1 FOR SHARE";
    let Some(row) = transaction.query_opt(sql, &[&kind]).await? else {
        return Err(invalid("/kind", format!("no kind '{kind}' exists")));
    };
    let rules = parse(row.get(0))?;
    let rules = rules.as_array().map_or(&[][..], Vec::as_slice);
    let kinds = rules.iter().filter_map(|rule| rule["kind"].as_str());
    let kinds = kinds.collect::<Vec<_>>().join(" or ");
    let wrong = |reason: String| Err(invalid("/parent", reason));
    let parent = match (uuid(&value["parent"]), rules.is_empty()) {
        (None, true) => return Ok(()),
        (None, false) => {
            return wrong(format!(
                "a component of kind {kind} needs a parent: a {kinds}"
            ));
        }
        (Some(_), true) => {
            return wrong(format!(
                "a component of kind {kind} is a root: it has no parent"
            ));
        }
        (Some(parent), false) => parent,
    };
    let lock = "SELECT FROM component WHERE id = $1 FOR NO KEY UPDATE";
    if transaction.query_opt(lock, &[&parent]).await?.is_none() {
        return wrong(format!("no component '{parent}' exists"));
    }
    let row = transaction.query_one(PARENT, &[&parent, &id]).await?;
    let (parent_kind, depth, is_below): (String, i64, bool) = (row.get(0), row.get(1), row.get(2));
    let Some(rule) = rules.iter().find(|rule| rule["kind"] == parent_kind) else {
        return wrong(format!(
            "the parent of a component of kind {kind} is a {kinds}, and '{parent}' is of kind \
             {parent_kind}"
        ));
    };
    if is_below {
        return wrong(format!(
            "'{parent}' is this component, or a component below it"
        ));
    }
    let height: i64 = transaction.query_one(HEIGHT, &[&id]).await?.get(0);
    if depth + height > MAX_DEPTH {
        return wrong(format!(
            "'{parent}' is at depth {depth}, and this component has {height} levels with those \
             below it; the tree has at most {MAX_DEPTH}"
        ));
    }
    let siblings = transaction
        .query_one(SIBLINGS, &[&parent, &kind, &id])
        .await?;
    match rule["max"].as_i64() {
        Some(max) if siblings.get::<_, i64>(0) >= max => wrong(format!(
            "'{parent}' already has {max} components of kind {kind}, the most that it may have"
        )),
        _ => Ok(()),
    }
}

/// Checks that the components of a kind, whose row is locked, are where its new rules allow them.
pub(super) async fn check_rules(
    transaction: &Transaction<'_>,
    before: &Value,
    value: &Value,
) -> Result<(), WriteError> {
    if before["parents"] == value["parents"] {
        return Ok(());
    }
    let wrong = |reason: String| Err(invalid("/parents", reason));
    let kind = value["name"].as_str().unwrap_or_default();
    let rules = value["parents"].to_string();
    if let Some(row) = transaction.query_opt(MISPLACED, &[&kind, &rules]).await? {
        let (parent, count): (Option<String>, i64) = (row.get(0), row.get(1));
        let components = match count {
            1 => "1 component".into(),
            count => format!("{count} components"),
        };
        let parents = match parent {
            Some(parent) => format!("below a component of kind {parent}"),
            None => "without a parent".into(),
        };
        return wrong(format!(
            "{components} of kind {kind} could not stay {parents}; move or delete them first"
        ));
    }
    if let Some(row) = transaction.query_opt(CROWDED, &[&kind, &rules]).await? {
        let (parent, count, max): (Uuid, i64, i64) = (row.get(0), row.get(1), row.get(2));
        return wrong(format!(
            "'{parent}' has {count} components of kind {kind}, and the most that it may have \
             would be {max}; move or delete some first"
        ));
    }
    Ok(())
}

/// Kinds of which a component has fewer children than it needs.
pub(super) async fn missing_children(
    client: &impl GenericClient,
    component: &Value,
) -> Result<Value, ReadError> {
    let kind = component["kind"].as_str().unwrap_or_default();
    let id = uuid(&component["id"]).unwrap_or_default();
    let statement = client.prepare_cached(MISSING).await?;
    let rows = client.query(&statement, &[&kind, &id]).await?;
    let missing = rows.iter().filter_map(|row| {
        let (kind, min, count): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        (count < min).then(|| json!({ "kind": kind, "min": min, "count": count }))
    });
    Ok(missing.collect())
}

//! `gridwatch import --kind sprockets`: types of sprockets for the catalogue.
//!
//! In: `{"sprockets": [{"teeth", "pitch_diameter", …}, …]}`. Out: a type of category `sprocket` for
//! each entry, named after its position. Entries that are alike are types of their own. A type that
//! has the name and the attributes of an entry is that entry, so that importing again creates
//! nothing.

use serde_json::{Value, json};

use super::Attempt;
use super::model::{self, Document};
use crate::UsageError;
use crate::config::Import;
use crate::query_client::QueryApi;

const CATEGORY: &str = "sprocket";

/// Imports the file. The attempt has what was created, also after a failure.
pub(super) async fn import(arguments: &Import, attempt: &mut Attempt) -> anyhow::Result<()> {
    let api = QueryApi::new("--query-url", arguments.query_url())?;
    let document = Document::read(arguments.file())?;
    let sprockets = sprockets(&document)?;
    attempt.begin(arguments).await;
    for (index, attributes) in sprockets.iter().enumerate() {
        let name = format!("{CATEGORY}-{}", index + 1);
        let body = json!({ "category": CATEGORY, "name": name, "attributes": attributes });
        let filters = [("category", CATEGORY), ("name", name.as_str())];
        let is_it = |found: &Value| {
            found["name"] == body["name"] && is_equal(&found["attributes"], attributes)
        };
        let found = model::find_in_list(&api, "types", &filters, is_it).await?;
        attempt.counts.types.add(match found {
            Some(found) => (found, false),
            None => {
                let key = document.key(&name);
                (model::create(&api, "/types", &key, &body).await?, true)
            }
        });
        attempt.summary.accepted += 1;
    }
    Ok(())
}

/// The entries of the file.
fn sprockets(document: &Document) -> Result<&Vec<Value>, UsageError> {
    let entries = document.json["sprockets"].as_array().ok_or_else(|| {
        document.wrong(
            "/sprockets",
            "expected an array with an object for each sprocket",
        )
    })?;
    match entries.iter().position(|entry| !entry.is_object()) {
        Some(index) => {
            let pointer = format!("/sprockets/{index}");
            Err(document.wrong(
                &pointer,
                "expected an object with the measures of a sprocket",
            ))
        }
        None => Ok(entries),
    }
}

/// Whether two values are equal; 6 and 6.0 are the same number.
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(name, a): (&String, &Value)| b.get(name).is_some_and(|b| is_equal(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}

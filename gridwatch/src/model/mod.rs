//! The model on the command line: lists as tables, and one document with all of its fields.
//!
//! In: filters, or the key of a document. Out: what the query API responds with, as lines of a
//! table or as JSON. A list is printed page by page: memory does not depend on its length. With
//! `--watch` the same is printed again and again, until Ctrl-C.

mod commands;
mod documents;
mod fields;
mod table;
mod watch;

use std::io::{BufWriter, Write as _};

use anyhow::Context as _;
use serde::Deserialize;

pub(crate) use self::commands::{components, devices, series, targets};
use self::documents::Document;
pub(crate) use self::documents::Import;
use self::table::Table;
pub(crate) use self::watch::watch;
use crate::query_client::{QueryApi, QueryError};

/// Documents of a page.
const PAGE: &str = "1000";

/// Filters of a list, as parameters of the query API.
pub(crate) type Filters = Vec<(&'static str, Option<String>)>;

/// A page, as text of JSON: the member with the documents has another name in each list.
#[derive(Deserialize)]
struct Page<T> {
    #[serde(
        alias = "components",
        alias = "devices",
        alias = "series",
        alias = "targets",
        alias = "imports"
    )]
    documents: Vec<T>,
    next: Option<String>,
}

/// Prints a list.
pub(crate) async fn list<T: Document>(
    api: &QueryApi,
    path: &str,
    filters: &Filters,
    json: bool,
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout());
    let mut table: Option<Table> = None;
    let mut separator = "[\n";
    let mut next: Option<String> = None;
    loop {
        let mut parameters = vec![("limit", PAGE)];
        let given = filters.iter();
        parameters.extend(given.filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        parameters.extend(next.as_deref().map(|next| ("next", next)));
        let response = api.get(path, &parameters).await;
        let response = response.map_err(QueryError::of_command)?;
        let page: Page<T> = serde_json::from_slice(&response.body)
            .with_context(|| format!("{} did not respond with {}", api.url(), T::LIST))?;
        if json {
            for document in &page.documents {
                write!(out, "{separator}{}", serde_json::to_string(document)?)?;
                separator = ",\n";
            }
        } else {
            let rows: Vec<Vec<String>> = page.documents.iter().map(T::cells).collect();
            let is_first = table.is_none();
            let table = table.get_or_insert_with(|| Table::new(T::HEADER, &rows));
            if is_first {
                writeln!(out, "{}", table.line(T::HEADER))?;
            }
            for row in &rows {
                writeln!(out, "{}", table.line(row))?;
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    if json {
        let end = if separator == "[\n" { "[]" } else { "\n]" };
        writeln!(out, "{end}")?;
    }
    out.flush()?;
    Ok(())
}

/// Prints a document.
pub(crate) async fn show<T: Document>(
    api: &QueryApi,
    path: &str,
    json: bool,
) -> anyhow::Result<()> {
    let response = api.get(path, &[]).await;
    let response = response.map_err(QueryError::of_command)?;
    let document: T = serde_json::from_slice(&response.body)
        .with_context(|| format!("{} did not respond with a document", api.url()))?;
    let text = match json {
        true => serde_json::to_string_pretty(&document)?,
        false => fields::lines(&serde_json::to_string(&document)?)?.join("\n"),
    };
    Ok(crate::output::print(text)?)
}

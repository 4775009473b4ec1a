//! `gridwatch components`: the components of the model, from the command line.
//!
//! In: filters. Out: every component that passes them, in pages of the query API, as lines of a
//! table or as JSON. Memory does not depend on their number.

use std::io::{BufWriter, Write as _};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::config::{Components, ComponentsCommand, ListComponents};
use crate::query_client::{QueryApi, QueryError};

/// Components of a page.
const PAGE: &str = "5000";

/// What is printed of a component.
#[derive(Debug, Serialize, Deserialize)]
struct Component {
    id: String,
    kind: String,
    name: String,
    parent: Option<String>,
    effective_time_zone: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Page {
    components: Vec<Component>,
    next: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(arguments: Components) -> anyhow::Result<()> {
    let ComponentsCommand::List(arguments) = arguments.command;
    match list(&arguments).await {
        // The program that reads the output has what it needs.
        Err(error) if crate::is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

async fn list(arguments: &ListComponents) -> anyhow::Result<()> {
    let api = QueryApi::new("--url", &arguments.query.url)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    if arguments.json {
        write!(out, "[")?;
    } else {
        writeln!(out, "{:<36}  {:<16}  {:<36}  NAME", "ID", "KIND", "PARENT")?;
    }
    let mut separator = "\n";
    let mut next: Option<String> = None;
    loop {
        let mut parameters = vec![("limit", PAGE)];
        parameters.extend(arguments.kind.as_deref().map(|kind| ("kind", kind)));
        parameters.extend(arguments.text.as_deref().map(|text| ("text", text)));
        parameters.extend(next.as_deref().map(|next| ("next", next)));
        let response = api.get("/components", &parameters).await;
        let response = response.map_err(QueryError::of_command)?;
        let page: Page = serde_json::from_slice(&response.body)
            .with_context(|| format!("{} did not respond with components", arguments.query.url))?;
        for component in &page.components {
            if arguments.json {
                write!(out, "{separator}{}", serde_json::to_string(component)?)?;
                separator = ",\n";
            } else {
                let Component { id, kind, name, .. } = component;
                let parent = component.parent.as_deref().unwrap_or("-");
                writeln!(out, "{id:<36}  {kind:<16}  {parent:<36}  {name}")?;
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    if arguments.json {
        writeln!(out, "\n]")?;
    }
    out.flush()?;
    Ok(())
}

//! Rows that are components. A row may have `id`, a UUID that the client chooses, and instead of
//! `parent` a `parent_name`, the name of an earlier row. A parent is a component that exists, or an
//! earlier row, so that the rows have no cycle.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};
use service::ApiError;
use store::model;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::super::Model;
use super::super::definition::{COMPONENT, KIND};
use super::super::fields::Absent::Null;
use super::super::fields::{self, Field, Rule, error};
use super::Row;
use crate::error::api_error;

const ID: &str = "id";
const PARENT_NAME: &str = "parent_name";
pub(super) const MORE_FIELDS: &[&str] = &[ID, PARENT_NAME];

const FIELDS: [Field; 2] = [
    Field::new(ID, Rule::Uuid, Null),
    Field::new(PARENT_NAME, Rule::Text(256), Null),
];

/// Upper bound on the kinds of a request, which are kept while it is read.
const MAX_KINDS: usize = 256;

/// What is known of the earlier rows.
pub(super) struct Reader {
    model: Arc<Model>,
    ids: HashSet<Uuid>,
    /// The id of each name; none if several rows have it.
    names: HashMap<String, Option<Uuid>>,
    /// Parents that were not among the earlier rows, with the first line that has each.
    awaited: HashMap<Uuid, usize>,
    kinds: HashMap<String, Value>,
}

impl Reader {
    pub(super) fn new(model: Arc<Model>) -> Self {
        Self {
            model,
            ids: HashSet::new(),
            names: HashMap::new(),
            awaited: HashMap::new(),
            kinds: HashMap::new(),
        }
    }

    /// A component with every field. Runs outside of the runtime: it reads each kind once.
    pub(super) fn read(&mut self, line: usize, row: Value) -> Row {
        let mut map = fields::object(row).map_err(ApiError::InvalidBody)?;
        let more: Map<String, Value> = MORE_FIELDS
            .iter()
            .filter_map(|name| map.remove_entry(*name))
            .collect();
        let (more, component) = (fields::read(&FIELDS, &[], more), COMPONENT.read(map, &[]));
        let (more, mut component) = match (more, component) {
            (Ok(more), Ok(component)) => (more, component),
            (more, component) => {
                let errors = [more.err(), component.err()].into_iter().flatten();
                return Err(ApiError::InvalidBody(errors.flatten().collect()));
            }
        };
        self.check_attributes(&component)?;
        if let Some(name) = more[PARENT_NAME].as_str() {
            component.insert("parent".into(), self.parent(name, &component)?);
        }
        let parent = uuid(&component["parent"]);
        if let Some(parent) = parent.filter(|parent| !self.ids.contains(parent)) {
            self.awaited.entry(parent).or_insert(line);
        }
        let id = uuid(&more[ID]).unwrap_or_else(Uuid::now_v7);
        if !self.ids.insert(id) {
            return Err(refusal(
                "/id",
                format!("an earlier row has the id '{id}' too"),
            ));
        }
        if let Some(child) = self.awaited.get(&id) {
            let reason = format!("row {child} has it as its parent; a parent comes before");
            return Err(refusal("/id", reason));
        }
        let name = component["name"].as_str().unwrap_or_default().to_owned();
        let named = self.names.entry(name).and_modify(|named| *named = None);
        named.or_insert(Some(id));
        Ok((id.to_string(), Value::Object(component)))
    }

    fn parent(&self, name: &str, component: &Map<String, Value>) -> Result<Value, ApiError> {
        let reason = match self.names.get(name) {
            _ if !component["parent"].is_null() => "give parent or parent_name, not both".into(),
            Some(Some(id)) => return Ok(id.to_string().into()),
            Some(None) => format!("several earlier rows have the name '{name}'; use id and parent"),
            None => format!("no earlier row has the name '{name}'"),
        };
        Err(refusal("/parent_name", reason))
    }

    /// Checks attributes against the schema of their kind.
    fn check_attributes(&mut self, component: &Map<String, Value>) -> Result<(), ApiError> {
        let name = component["kind"].as_str().unwrap_or_default();
        if !self.kinds.contains_key(name) {
            if self.kinds.len() == MAX_KINDS {
                let reason = format!("a request has at most {MAX_KINDS} kinds; split it");
                return Err(refusal("/kind", reason));
            }
            let key = [name.to_owned()];
            let kind =
                Handle::current().block_on(model::get(&self.model.pool, KIND.resource, &key));
            let kind = kind.map_err(|error| api_error(&error))?;
            self.kinds.insert(name.to_owned(), kind.unwrap_or_default());
        }
        match &self.kinds[name] {
            // Creating the rows reports every kind that does not exist.
            Value::Null => Ok(()),
            kind => {
                let checked = self.model.validators.check(kind, &component["attributes"]);
                checked.map_err(ApiError::InvalidBody)
            }
        }
    }
}

fn refusal(pointer: &str, reason: String) -> ApiError {
    ApiError::InvalidBody(vec![error(pointer, reason)])
}

fn uuid(value: &Value) -> Option<Uuid> {
    value.as_str().and_then(|text| text.parse().ok())
}

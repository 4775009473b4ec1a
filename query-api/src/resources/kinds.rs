//! What a kind says of its components: their parents, and their attributes as a JSON Schema.
//!
//! In: rules and a schema that a client wrote. Out: the rules in their normal form, and a
//! validator, compiled once for each version of a kind. A schema cannot refer to other documents,
//! and its patterns are matched in linear time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use service::FieldError;

use super::fields::{Absent, Field, Rule, error, object, read, shorten};

/// Upper bound on the bytes of a schema.
const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Upper bound on the validators in memory.
const MAX_VALIDATORS: usize = 256;
/// Upper bound on the errors of one value.
const MAX_ERRORS: usize = 100;

/// The validators that have been compiled, by the name and the version of their kind.
#[derive(Debug, Default)]
pub(crate) struct Validators {
    compiled: Mutex<HashMap<String, (i64, Arc<Validator>)>>,
}

/// Compiles a schema. The error is a sentence.
pub(crate) fn compile(schema: &Value) -> Result<Validator, String> {
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(format!("a schema has at most {MAX_SCHEMA_BYTES} bytes"));
    }
    let options = jsonschema::options()
        .offline()
        .with_pattern_options(PatternOptions::regex());
    let compiled = options.build(schema);
    compiled.map_err(|error| {
        let at = error.instance_path().to_string();
        let at = if at.is_empty() {
            String::new()
        } else {
            format!(" at {at}")
        };
        format!("this is not a valid JSON Schema{at}: {error}")
    })
}

impl Validators {
    /// Checks the attributes of a component against its kind.
    pub(crate) fn check(&self, kind: &Value, attributes: &Value) -> Result<(), Vec<FieldError>> {
        let validator = self
            .validator(kind)
            .map_err(|reason| vec![error("/kind", reason)])?;
        let errors: Vec<FieldError> = validator
            .iter_errors(attributes)
            .take(MAX_ERRORS)
            .map(|found| {
                let value = shorten(found.instance());
                let pointer = format!("/attributes{}", found.instance_path());
                error(pointer, found.masked_with(value).to_string())
            })
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn validator(&self, kind: &Value) -> Result<Arc<Validator>, String> {
        let name = kind["name"].as_str().unwrap_or_default();
        let version = kind["version"].as_i64().unwrap_or_default();
        {
            let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((own, validator)) = compiled.get(name)
                && *own == version
            {
                return Ok(validator.clone());
            }
        }
        let validator = Arc::new(compile(&kind["attributes"])?);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= MAX_VALIDATORS {
            compiled.clear();
        }
        compiled.insert(name.to_owned(), (version, validator.clone()));
        Ok(validator)
    }
}

/// Upper bound on the kinds of parents of a kind.
const MAX_PARENTS: usize = 32;

const PARENT: [Field; 3] = [
    Field::new("kind", Rule::Slug, Absent::Refused),
    Field::new("min", Rule::Number(0.0, 1e9), Absent::Null),
    Field::new("max", Rule::Number(1.0, 1e9), Absent::Null),
];

/// The rules for the parents of a kind.
pub(super) fn read_parents(value: Value, at: &str, errors: &mut Vec<FieldError>) -> Value {
    let Value::Array(items) = value else {
        return Value::Null;
    };
    if items.len() > MAX_PARENTS {
        let reason = format!("a kind has at most {MAX_PARENTS} kinds of parents");
        errors.push(error(at, reason));
        return Value::Null;
    }
    let mut rules: Vec<Value> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let at = format!("{at}/{index}");
        let rule = object(item).and_then(|map| read(&PARENT, &[], map));
        let mut rule = match rule {
            Ok(rule) => rule,
            Err(own) => {
                errors.extend(own.into_iter().map(|own| FieldError {
                    pointer: format!("{at}{}", own.pointer),
                    ..own
                }));
                continue;
            }
        };
        let is_whole = |name: &str| rule[name].is_null() || rule[name].is_i64();
        if !is_whole("min") || !is_whole("max") {
            errors.push(error(&at, "min and max are whole numbers"));
        }
        if rule["min"].is_null() {
            rule.insert("min".into(), 0.into());
        }
        if rule["max"]
            .as_i64()
            .is_some_and(|max| rule["min"].as_i64() > Some(max))
        {
            errors.push(error(&at, "min is greater than max"));
        }
        if rules.iter().any(|other| other["kind"] == rule["kind"]) {
            errors.push(error(format!("{at}/kind"), "this kind is listed twice"));
        }
        rules.push(Value::Object(rule));
    }
    Value::Array(rules)
}

//! What a kind says of its components: their parents, and their attributes as a JSON Schema.
//!
//! In: rules and a schema that a client wrote. Out: the rules in their normal form, and a
//! validator, compiled once for each version of a kind. What a validation may cost is bounded by
//! [`check_cost`]; its patterns are matched in linear time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use service::FieldError;

use super::fields::{Absent, Field, Rule, error, object, read, shorten};

/// Upper bound on the bytes of a schema.
const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Upper bound on the depth of a schema with what it refers to: each object is a level.
const MAX_SCHEMA_DEPTH: usize = 16;
/// Upper bound on the objects of a schema, each counted once for each reference to it. No value in
/// an instance is checked against more subschemas than that.
const MAX_SUBSCHEMAS: usize = 1_000;
/// Upper bound on the patterns of a schema.
const MAX_PATTERNS: usize = 16;
/// Upper bound on the memory of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 512 * 1024;
/// Upper bound on the cache for matching a pattern.
const MAX_CACHE_BYTES: usize = 128 * 1024;
/// Upper bound on the validators in memory.
const MAX_VALIDATORS: usize = 32;
/// Upper bound on the characters of a reason, which may repeat a part of the schema.
const MAX_REASON_CHARS: usize = 500;
/// The dialects in which no other keyword than those of [`REFUSED`] names a part of a schema.
const DIALECTS: [&str; 4] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
];
/// Keywords that would make a reference mean something else than a place in this document.
const REFUSED: [&str; 7] = [
    "$id",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$vocabulary",
];
/// Upper bound on the errors of one value.
const MAX_ERRORS: usize = 100;

/// The validators that have been compiled, by the name and the version of their kind.
#[derive(Debug, Default)]
pub(crate) struct Validators {
    compiled: Mutex<HashMap<String, (i64, Arc<Validator>)>>,
}

/// Compiles a schema. The error is a sentence.
pub(crate) fn compile(schema: &Value) -> Result<Validator, String> {
    check_cost(schema)?;
    let patterns = PatternOptions::regex()
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_CACHE_BYTES);
    let options = jsonschema::options()
        .offline()
        .should_validate_formats(false)
        .with_pattern_options(patterns);
    let compiled = options.build(schema);
    compiled.map_err(|error| {
        let at = error.instance_path().to_string();
        let at = if at.is_empty() {
            String::new()
        } else {
            format!(" at {at}")
        };
        if at.ends_with("/pattern") || at.contains("/patternProperties") {
            return format!(
                "the pattern{at} is not supported; it is a regular expression without look-around \
                 and back-references, and its compiled form has at most {MAX_PATTERN_BYTES} bytes"
            );
        }
        let reason = error.to_string();
        let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
        format!("this is not a valid JSON Schema{at}: {reason}")
    })
}

/// Refuses a schema that could take long to compile, or to check an instance against. It is
/// walked as a validator walks it, into what it refers to; a schema that refers to itself has no
/// end.
fn check_cost(schema: &Value) -> Result<(), String> {
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(format!("a schema has at most {MAX_SCHEMA_BYTES} bytes"));
    }
    let mut cost = Cost {
        root: schema,
        open: Vec::new(),
        subschemas: 0,
        patterns: 0,
    };
    cost.add(schema, 0)
}

struct Cost<'a> {
    root: &'a Value,
    /// The references on the way to the current place.
    open: Vec<&'a str>,
    subschemas: usize,
    patterns: usize,
}

impl<'a> Cost<'a> {
    fn add(&mut self, value: &'a Value, depth: usize) -> Result<(), String> {
        let map = match value {
            Value::Array(items) => {
                return items.iter().try_for_each(|item| self.add(item, depth));
            }
            Value::Object(map) => map,
            _ => return Ok(()),
        };
        self.subschemas += 1;
        if self.subschemas > MAX_SUBSCHEMAS {
            return Err(format!(
                "a schema has at most {MAX_SUBSCHEMAS} objects (subschemas and others), each \
                 counted once for each reference to it"
            ));
        }
        if depth >= MAX_SCHEMA_DEPTH {
            let limit = format!("the depth of a schema is at most {MAX_SCHEMA_DEPTH} objects");
            return Err(limit);
        }
        for (name, item) in map {
            self.patterns += match (name.as_str(), item) {
                ("pattern", Value::String(_)) => 1,
                ("patternProperties", Value::Object(patterns)) => patterns.len(),
                ("$schema", Value::String(dialect))
                    if !DIALECTS.contains(&dialect.trim_end_matches('#')) =>
                {
                    let dialect = shorten(item);
                    return Err(format!(
                        "$schema {dialect} is not one of {}",
                        DIALECTS.join(", ")
                    ));
                }
                (name, Value::String(_)) if REFUSED.contains(&name) => {
                    return Err(format!("{name} is not supported; use $ref with $defs"));
                }
                _ => 0,
            };
            if self.patterns > MAX_PATTERNS {
                return Err(format!("a schema has at most {MAX_PATTERNS} patterns"));
            }
            match item {
                Value::String(reference) if name == "$ref" => self.follow(reference, depth)?,
                item => self.add(item, depth + 1)?,
            }
        }
        Ok(())
    }

    fn follow(&mut self, reference: &'a str, depth: usize) -> Result<(), String> {
        let shown = shorten(&Value::from(reference));
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(format!(
                "$ref {shown} is not a place in this schema; such a place begins with '#'"
            ));
        };
        if self.open.contains(&reference) || pointer.is_empty() {
            return Err(format!("$ref {shown} makes the schema contain itself"));
        }
        let Some(target) = self.root.pointer(pointer) else {
            return Err(format!("$ref {shown} refers to nothing"));
        };
        self.open.push(reference);
        self.add(target, depth + 1)?;
        self.open.pop();
        Ok(())
    }
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
                let reason = found.masked_with(value).to_string();
                error(
                    pointer,
                    reason.chars().take(MAX_REASON_CHARS).collect::<String>(),
                )
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

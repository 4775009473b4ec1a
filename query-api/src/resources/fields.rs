//! The fields of a document, as data: what each of them accepts.
//!
//! In: a JSON object from a client. Out: an object with every field, each in its normal form, or
//! every error with a pointer to its field. A field that is not in the table is an error.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use schema::reading::{MAX_MEASURED_AT, MIN_MEASURED_AT, check_device, check_metric};
use serde_json::{Map, Value, json};
use service::FieldError;
use uuid::Uuid;

use super::kinds;
use crate::time;

/// A field that a client can write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) rule: Rule,
    pub(crate) absent: Absent,
    /// Whether the field keeps its value for good.
    pub(crate) fixed: bool,
}

/// What a field is when it is absent or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// An error.
    Refused,
    /// Null.
    Null,
    /// `{}`
    EmptyObject,
    /// `[]`
    EmptyList,
    /// `true`
    True,
    /// This text.
    Text(&'static str),
}

/// What a field accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// Text of 1 to this many bytes, without control characters.
    Text(usize),
    /// The external id of a device, as in a reading.
    Device,
    /// The name of a metric, as in a reading.
    Metric,
    /// A lower-case letter, followed by lower-case letters, digits, `-` and `_`.
    Slug,
    Uuid,
    Boolean,
    /// A number in a range.
    Number(f64, f64),
    /// A number above 0, and at most this.
    Positive(f64),
    Object,
    TimeZone,
    Date,
    Time,
    OneOf(&'static [&'static str]),
    /// Rules for the parents of a kind.
    Parents,
    /// A JSON Schema.
    Schema,
}

impl Field {
    pub(crate) const fn new(name: &'static str, rule: Rule, absent: Absent) -> Self {
        Self {
            name,
            rule,
            absent,
            fixed: false,
        }
    }

    pub(crate) const fn fixed(name: &'static str, rule: Rule) -> Self {
        Self {
            name,
            rule,
            absent: Absent::Refused,
            fixed: true,
        }
    }
}

/// Upper bound on the errors of a document.
pub(crate) const MAX_ERRORS: usize = 100;

/// An error of a field.
pub(crate) fn error(pointer: impl Into<String>, reason: impl Into<String>) -> FieldError {
    FieldError {
        line: None,
        pointer: pointer.into(),
        reason: reason.into(),
    }
}

/// The object that a body has to be.
pub(crate) fn object(body: Value) -> Result<Map<String, Value>, Vec<FieldError>> {
    match body {
        Value::Object(map) => Ok(map),
        other => {
            let reason = format!("{} is not an object", shorten(&other));
            Err(vec![error("", reason)])
        }
    }
}

/// Reads every field of the table. The fields in `ignored` are left out.
pub(crate) fn read(
    fields: &[Field],
    ignored: &[&str],
    mut map: Map<String, Value>,
) -> Result<Map<String, Value>, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut values = Map::new();
    for field in fields {
        let value = map.remove(field.name).unwrap_or(Value::Null);
        let pointer = pointer(field.name);
        let value = if value.is_null() {
            field.absent.value(&pointer, &mut errors)
        } else {
            field.rule.read(value, &pointer, &mut errors)
        };
        values.insert(field.name.into(), value);
    }
    let unknown = map.keys().filter(|name| !ignored.contains(&name.as_str()));
    let unknown = unknown.take(MAX_ERRORS);
    errors.extend(unknown.map(|name| unknown_field(fields, ignored, name)));
    errors.truncate(MAX_ERRORS);
    if errors.is_empty() {
        Ok(values)
    } else {
        Err(errors)
    }
}

/// The error of a field that is not in the table.
pub(crate) fn unknown_field(fields: &[Field], computed: &[&str], name: &str) -> FieldError {
    if computed.contains(&name) {
        return error(pointer(name), "this field is computed; leave it out");
    }
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    let reason = format!(
        "there is no such field; the fields are {}",
        names.join(", ")
    );
    // A pointer in full would repeat a name of any length.
    error(pointer(&shorten_text(name)), reason)
}

/// The JSON Pointer to a member.
pub(crate) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A value as a message shows it.
pub(crate) fn shorten(value: &Value) -> String {
    shorten_text(&value.to_string())
}

fn shorten_text(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    let start: String = text.chars().take(57).collect();
    format!("{start}...")
}

impl Absent {
    /// What an absent field is.
    pub(crate) fn default_value(self) -> Value {
        self.value("", &mut Vec::new())
    }

    fn value(self, pointer: &str, errors: &mut Vec<FieldError>) -> Value {
        match self {
            Self::Refused => {
                errors.push(error(pointer, "this field is required"));
                Value::Null
            }
            Self::Null => Value::Null,
            Self::EmptyObject => json!({}),
            Self::EmptyList => json!([]),
            Self::True => true.into(),
            Self::Text(text) => text.into(),
        }
    }
}

/// Upper bound on an object of a document. It bounds what a page of a list needs in memory.
const MAX_OBJECT_BYTES: usize = 64 * 1024;

impl Rule {
    /// The value in its normal form, which is how the database returns it.
    fn read(self, value: Value, pointer: &str, errors: &mut Vec<FieldError>) -> Value {
        if matches!(self, Self::Object | Self::Schema) {
            check_texts(&value, pointer, errors);
        }
        let normal = match self {
            Self::Object if value.is_object() => {
                if value.to_string().len() > MAX_OBJECT_BYTES {
                    let reason = format!("an object has at most {MAX_OBJECT_BYTES} bytes");
                    errors.push(error(pointer, reason));
                }
                return value;
            }
            Self::Schema if value.is_object() => {
                if let Err(reason) = kinds::compile(&value) {
                    errors.push(error(pointer, reason));
                }
                return value;
            }
            Self::Parents if value.is_array() => {
                return kinds::read_parents(value, pointer, errors);
            }
            Self::Device | Self::Metric if value.is_string() => {
                let name = value.as_str().unwrap_or_default();
                let checked = match self {
                    Self::Device => check_device(name),
                    _ => check_metric(name),
                };
                if let Err(reason) = checked {
                    errors.push(error(pointer, reason.to_string()));
                }
                return value;
            }
            Self::Boolean if value.is_boolean() => return value,
            Self::Number(..) | Self::Positive(_) => self.number(&value),
            _ => value.as_str().and_then(|text| self.text(text)),
        };
        normal.unwrap_or_else(|| {
            let reason = format!("{} is not {}", shorten(&value), self.expected());
            errors.push(error(pointer, reason));
            Value::Null
        })
    }

    fn number(self, value: &Value) -> Option<Value> {
        let number = value.as_f64()?;
        let accepted = match self {
            Self::Number(min, max) => (min..=max).contains(&number),
            Self::Positive(max) => number > 0.0 && number <= max,
            _ => false,
        };
        // The database writes 10 and not 10.0.
        let is_whole = number.fract() == 0.0 && number.abs() < 1e15;
        let normal = if is_whole {
            json!(number as i64)
        } else {
            json!(number)
        };
        accepted.then_some(normal)
    }

    fn text(self, text: &str) -> Option<Value> {
        let normal = match self {
            Self::Text(max) => {
                let fits = (1..=max).contains(&text.len());
                (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
            }
            Self::Slug => is_slug(text).then(|| text.to_owned()),
            Self::Uuid => text.parse::<Uuid>().ok().map(|id| id.to_string()),
            Self::TimeZone => TimeZone::get(text).ok().map(|_| text.to_owned()),
            Self::Date => text
                .parse::<Date>()
                .ok()
                .filter(|date| text.len() == 10 && date.year() > 0)
                .map(|date| date.to_string()),
            Self::Time => time_text(text),
            Self::OneOf(names) => names.contains(&text).then(|| text.to_owned()),
            _ => None,
        };
        normal.map(Value::String)
    }

    fn expected(self) -> String {
        match self {
            Self::Text(max) => {
                format!("text of 1 to {max} bytes without control characters")
            }
            Self::Device | Self::Metric => "a name, which is text".into(),
            Self::Slug => "a name of at most 64 lower-case letters, digits, '-' and '_', \
                           which starts with a letter"
                .into(),
            Self::Uuid => "a UUID such as 0198c7a4-5b0e-7c3a-9d6e-3f2a1b4c5d6e".into(),
            Self::Boolean => "true or false".into(),
            Self::Number(min, max) if min == f64::MIN && max == f64::MAX => "a number".into(),
            Self::Number(min, max) => format!("a number from {min} to {max}"),
            Self::Positive(max) if max == f64::MAX => "a number above 0".into(),
            Self::Positive(max) => format!("a number above 0 and at most {max}"),
            Self::Object => "an object".into(),
            Self::TimeZone => "an IANA time zone such as Europe/Berlin".into(),
            Self::Date => "a date such as 2026-11-21".into(),
            Self::Time => "a time in RFC 3339 such as 2026-11-21T10:00:00Z".into(),
            Self::OneOf(names) => format!("one of {}", names.join(", ")),
            Self::Parents => {
                r#"a list such as [{"kind": "station", "min": 1, "max": null}]"#.into()
            }
            Self::Schema => "a JSON Schema, which is an object".into(),
        }
    }
}

fn is_slug(text: &str) -> bool {
    let tail = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(tail)
}

/// A time in the form of the database: RFC 3339 in UTC with six decimals.
pub(crate) fn time_text(text: &str) -> Option<String> {
    let micros = time::parse("time", text, &TimeZone::UTC).ok()?;
    if !(MIN_MEASURED_AT..=MAX_MEASURED_AT).contains(&micros) {
        return None;
    }
    Some(format!("{:.6}", time::format(micros)))
}

/// PostgreSQL's JSON cannot hold the character NUL.
fn check_texts(value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if errors.len() >= MAX_ERRORS {
        return;
    }
    match value {
        Value::String(text) if text.contains('\0') => {
            errors.push(error(at, "text with the character U+0000 cannot be stored"));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_texts(item, &format!("{at}/{index}"), errors);
            }
        }
        Value::Object(map) => {
            for (name, item) in map {
                if name.contains('\0') {
                    errors.push(error(
                        at,
                        "a name with the character U+0000 cannot be stored",
                    ));
                }
                check_texts(item, &format!("{at}{}", pointer(name)), errors);
            }
        }
        _ => {}
    }
}

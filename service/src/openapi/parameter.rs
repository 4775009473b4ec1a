//! The parameters of operations.
//!
//! They are constants, so that the code that reads them and the document have one list.

use serde_json::{Value, json};

/// The parameters of an operation, in groups that several operations share.
pub type Declared = &'static [&'static [Parameter]];

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub place: Place,
    /// Whether a request needs it.
    pub required: bool,
    /// Whether it may be repeated.
    pub repeated: bool,
    /// Its values.
    pub accepts: Accepts,
    /// What it means, with its unit and its default.
    pub description: &'static str,
    /// A value. The examples of an operation go together.
    pub example: Option<&'static str>,
}

/// Where a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the path.
    Path,
    /// In the query string.
    Query,
    /// In a header.
    Header,
}

/// The values of a parameter.
#[derive(Debug, Clone, Copy)]
pub enum Accepts {
    /// Any text.
    Text,
    /// Text with at least one character.
    NonEmptyText,
    /// Text that matches a regular expression.
    Pattern(&'static str),
    /// A UUID.
    Uuid,
    /// `true` or `false`.
    Boolean,
    /// A whole number from 1 to this.
    Count(u64),
    /// A number above 0, and at most this.
    Positive(f64),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Several of these, with commas.
    ListOf(&'static [&'static str]),
    /// RFC 3339, a date, or milliseconds since 1970.
    Time,
}

impl Parameter {
    /// A parameter of the query string.
    pub const fn query(name: &'static str, accepts: Accepts, description: &'static str) -> Self {
        Self {
            name,
            place: Place::Query,
            required: false,
            repeated: false,
            accepts,
            description,
            example: None,
        }
    }

    /// A part of the path.
    pub const fn path(
        name: &'static str,
        accepts: Accepts,
        description: &'static str,
        example: &'static str,
    ) -> Self {
        Self {
            place: Place::Path,
            required: true,
            example: Some(example),
            ..Self::query(name, accepts, description)
        }
    }

    /// A header.
    pub const fn header(name: &'static str, accepts: Accepts, description: &'static str) -> Self {
        Self {
            place: Place::Header,
            ..Self::query(name, accepts, description)
        }
    }

    /// The same parameter, which a request needs.
    pub const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    /// The same parameter, which may be repeated.
    pub const fn repeated(self) -> Self {
        Self {
            repeated: true,
            ..self
        }
    }

    /// The same parameter with an example.
    pub const fn example(self, example: &'static str) -> Self {
        Self {
            example: Some(example),
            ..self
        }
    }

    /// The Parameter Object of OpenAPI.
    pub(super) fn json(&self) -> Value {
        let schema = self.accepts.schema();
        let schema = match self.repeated {
            true => json!({ "type": "array", "items": schema, "minItems": 1 }),
            false => schema,
        };
        let place = match self.place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        };
        let mut json = json!({
            "name": self.name, "in": place, "required": self.required,
            "description": self.description, "schema": schema,
        });
        if matches!(self.accepts, Accepts::ListOf(_)) {
            json["style"] = "form".into();
            json["explode"] = false.into();
        }
        if let Some(example) = self.example {
            json["example"] = match (self.repeated, self.accepts) {
                (true, _) => json!([example]),
                (_, Accepts::ListOf(_)) => example.split(',').collect(),
                (_, Accepts::Boolean | Accepts::Count(_) | Accepts::Positive(_)) => {
                    serde_json::from_str(example).unwrap_or(Value::Null)
                }
                _ => example.into(),
            };
        }
        json
    }
}

impl Accepts {
    fn schema(self) -> Value {
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::NonEmptyText => json!({ "type": "string", "minLength": 1 }),
            Self::Pattern(pattern) => json!({ "type": "string", "pattern": pattern }),
            Self::Uuid => json!({ "type": "string", "format": "uuid" }),
            Self::Boolean => json!({ "type": "boolean" }),
            Self::Count(max) => json!({ "type": "integer", "minimum": 1, "maximum": max }),
            Self::Positive(max) => {
                json!({ "type": "number", "exclusiveMinimum": 0, "maximum": max })
            }
            Self::OneOf(names) => json!({ "type": "string", "enum": names }),
            Self::ListOf(names) => json!({
                "type": "array", "items": { "type": "string", "enum": names }, "minItems": 1,
            }),
            Self::Time => json!({
                "anyOf": [
                    { "type": "string", "format": "date-time" },
                    { "type": "string", "format": "date" },
                    { "type": "integer" },
                ],
            }),
        }
    }
}

//! JSON Schemas, in the few forms that the operations need.

use serde_json::{Value, json};

/// An object that has exactly these properties.
pub fn object(properties: Value) -> Value {
    let names = properties.as_object().into_iter().flatten();
    let required: Vec<&String> = names.map(|(name, _)| name).collect();
    json!({
        "type": "object", "required": required, "additionalProperties": false,
        "properties": properties,
    })
}

/// A list.
pub fn list(item: Value) -> Value {
    json!({ "type": "array", "items": item })
}

/// A schema of [`Api::schemas`](super::Api::schemas).
pub fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// What a schema accepts, or null.
pub fn nullable(mut schema: Value) -> Value {
    match schema["type"].as_str() {
        Some(own) if schema.get("enum").is_none() => {
            schema["type"] = json!([own, "null"]);
            schema
        }
        _ => {
            let members = schema.as_object_mut();
            let description = members.and_then(|members| members.remove("description"));
            let mut schema = json!({ "anyOf": [schema, { "type": "null" }] });
            if let Some(description) = description {
                schema["description"] = description;
            }
            schema
        }
    }
}

/// Text.
pub fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

/// A UUID.
pub fn uuid(description: &str) -> Value {
    json!({ "type": "string", "format": "uuid", "description": description })
}

/// An instant in a response.
pub fn time(description: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": description })
}

/// A number.
pub fn number(description: &str) -> Value {
    json!({ "type": "number", "description": description })
}

/// A whole number that is not negative.
pub fn count(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

/// True or false.
pub fn boolean(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

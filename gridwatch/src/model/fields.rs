//! The fields of a document, one on each line, in their order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// The members of a JSON object in their order.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The lines of a document, which is a JSON object.
pub(super) fn lines(json: &str) -> serde_json::Result<Vec<String>> {
    let Members(members) = serde_json::from_str(json)?;
    let widths = members.iter().map(|(name, _)| name.len());
    let width = widths.max().unwrap_or(0);
    let line = |(name, value): &(String, Value)| {
        let text = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        format!("{name:<width$}  {text}")
    };
    Ok(members.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_a_line_in_the_order_of_the_document() {
        let json = r#"{"name": "a", "id": null, "specs": {"b": 1}}"#;
        let expected = ["name   a", "id     -", "specs  {\"b\":1}"];
        assert_eq!(lines(json).unwrap(), expected);
    }
}

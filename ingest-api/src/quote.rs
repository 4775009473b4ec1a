//! Values of a request in messages for people.

/// Upper bound on the characters of a value that a message shows.
const MAX_CHARS: usize = 60;

/// A value in single quotes, shortened.
pub(crate) fn quote(value: &str) -> String {
    let shown: String = value.chars().take(MAX_CHARS).collect();
    let rest = if shown.len() < value.len() { "…" } else { "" };
    format!("'{shown}{rest}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_shortened() {
        assert_eq!(quote(""), "''");
        assert_eq!(quote(&"ä".repeat(60)), format!("'{}'", "ä".repeat(60)));
        assert_eq!(quote(&"ä".repeat(61)), format!("'{}…'", "ä".repeat(60)));
    }
}

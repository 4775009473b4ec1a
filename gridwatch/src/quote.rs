//! Texts of the user in error messages.

/// Longest quoted text in characters.
const MAX_CHARS: usize = 60;

/// A text in quotation marks, without control characters and shortened.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("'");
    for (index, char) in text.chars().enumerate() {
        if index == MAX_CHARS {
            quoted.push('…');
            break;
        }
        if char.is_control() {
            quoted.extend(char.escape_default());
        } else {
            quoted.push(char);
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_short_and_has_no_control_characters() {
        assert_eq!(quote("größe"), "'größe'");
        assert_eq!(quote("a\tb\0"), "'a\\tb\\u{0}'");
        assert_eq!(quote(&"x".repeat(60)), format!("'{}'", "x".repeat(60)));
        assert_eq!(quote(&"x".repeat(61)), format!("'{}…'", "x".repeat(60)));
    }
}

//! Values of a user in messages for people.

/// Upper bound on the characters of a value that a message repeats.
const MAX_CHARS: usize = 60;

/// A value in single quotes, shortened to 60 characters and without control characters.
pub fn quote(value: &str) -> String {
    format!("'{}'", shorten(value))
}

/// A value, shortened to 60 characters and without control characters.
pub fn shorten(value: &str) -> String {
    shorten_to(value, MAX_CHARS)
}

/// The first characters of a value, and "…" if it has more. Control characters are escaped.
pub fn shorten_to(value: &str, max_chars: usize) -> String {
    let mut short = String::new();
    for (index, character) in value.chars().enumerate() {
        if index == max_chars {
            short.push('…');
            break;
        }
        if character.is_control() {
            short.extend(character.escape_default());
        } else {
            short.push(character);
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_value_is_short_and_has_no_control_characters() {
        assert_eq!(quote("größe"), "'größe'");
        assert_eq!(quote("a\tb\0"), "'a\\tb\\u{0}'");
        assert_eq!(shorten("a\nb\u{1b}[1m"), "a\\nb\\u{1b}[1m");
        assert_eq!(shorten(&"ä".repeat(60)), "ä".repeat(60));
        assert_eq!(shorten(&"ä".repeat(61)), format!("{}…", "ä".repeat(60)));
        assert_eq!(shorten_to("abc", 2), "ab…");
    }
}

//! Splitting a JSON array or object at its commas, whether its parts are valid JSON or not.
//!
//! In: bytes that a JSON parser has refused. Out: the range of each part, or where the text cannot
//! be split. The text is read once, in constant memory, at any depth of nesting.
//!
//! A part with an error is separated from its neighbours only where that is unambiguous: brackets
//! must match, and two values must not follow each other without a separator. The second rule
//! refuses a text with a missing quote, because after it the insides of strings would be read as
//! JSON, and JSON as strings.

use std::ops::Range;

/// The brackets of the first levels of nesting are compared; those of deeper levels are counted.
/// A reading has one level.
const COMPARED_LEVELS: u32 = u128::BITS;

/// The offset at which a text cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SplitError(pub usize);

/// The parts of one array or object, in order.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether this is the inside of `{}` and not of `[]`.
    is_object: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    First,
    AfterComma,
    Finished,
}

impl<'a> Parts<'a> {
    /// The parts of the array or object that begins at the offset `open`.
    pub(super) fn new(text: &'a [u8], open: usize) -> Self {
        Self {
            text,
            at: open + 1,
            is_object: text.get(open) == Some(&b'{'),
            state: State::First,
        }
    }

    /// The offset after the closing bracket, when all parts have been returned.
    pub(super) fn end(&self) -> usize {
        self.at
    }

    /// Finds the end of the part at the current offset.
    fn part(&mut self) -> Result<Option<Range<usize>>, SplitError> {
        let start = skip_blanks(self.text, self.at);
        let (mut end, mut depth, mut objects) = (start, 0_u32, 0_u128);
        let mut after_value = false;
        self.at = start;
        loop {
            let at = self.at;
            let byte = *self.text.get(at).ok_or(SplitError(at))?;
            let begins_value = !matches!(byte, b']' | b'}' | b',' | b':');
            if after_value && begins_value {
                return Err(SplitError(at));
            }
            self.at += 1;
            match byte {
                b'[' | b'{' => {
                    if depth < COMPARED_LEVELS {
                        objects = (objects << 1) | u128::from(byte == b'{');
                    }
                    depth += 1;
                }
                b']' | b'}' => {
                    let is_object = match depth {
                        0 => self.is_object,
                        1..=COMPARED_LEVELS => objects & 1 == 1,
                        _ => byte == b'}',
                    };
                    if is_object != (byte == b'}') {
                        return Err(SplitError(at));
                    }
                    if depth == 0 {
                        let is_empty = start == end;
                        if is_empty && self.state == State::AfterComma {
                            return Err(SplitError(at));
                        }
                        self.state = State::Finished;
                        return Ok((!is_empty).then_some(start..end));
                    }
                    if depth <= COMPARED_LEVELS {
                        objects >>= 1;
                    }
                    depth -= 1;
                    after_value = true;
                }
                b',' if depth == 0 => {
                    if start == end {
                        return Err(SplitError(at));
                    }
                    self.state = State::AfterComma;
                    return Ok(Some(start..end));
                }
                b',' | b':' => after_value = false,
                b'"' => {
                    self.at = string_end(self.text, at).ok_or(SplitError(self.text.len()))?;
                    after_value = true;
                }
                _ => {
                    let rest = &self.text[at..];
                    let length = rest.iter().position(|&byte| is_separator(byte));
                    self.at = at + length.unwrap_or(rest.len());
                    after_value = true;
                }
            }
            end = self.at;
            self.at = skip_blanks(self.text, self.at);
        }
    }
}

impl Iterator for Parts<'_> {
    type Item = Result<Range<usize>, SplitError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Finished {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            self.state = State::Finished;
        }
        part.transpose()
    }
}

/// The offset of the first byte from `at` on that is not JSON's white space.
pub(super) fn skip_blanks(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|&&byte| is_blank(byte)).count()
}

/// The offset after the string that begins at `open`, if it has an end.
pub(super) fn string_end(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_separator(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, b'[' | b']' | b'{' | b'}' | b',' | b':' | b'"')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    fn split(text: &str) -> Result<Vec<&str>, usize> {
        let mut parts = Parts::new(text.as_bytes(), 0);
        let split = parts
            .by_ref()
            .map(|part| part.map(|range| &text[range]))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.0)?;
        assert_eq!(parts.end(), text.len());
        Ok(split)
    }

    #[test]
    fn a_malformed_part_is_separated_from_its_neighbours() {
        for (text, parts) in [
            ("[]", &[][..]),
            ("[ \n]", &[]),
            ("[ 1 , NaN,2]", &["1", "NaN", "2"]),
            (
                r#"[{"a":[1,2]}, {"a" : }]"#,
                &[r#"{"a":[1,2]}"#, r#"{"a" : }"#],
            ),
            (r#"["]},[", "\"", '']"#, &[r#""]},[""#, r#""\"""#, "''"]),
            ("[{'a':1,},{,}]", &["{'a':1,}", "{,}"]),
            (r#"{"a":1, "b":[{},{}]}"#, &[r#""a":1"#, r#""b":[{},{}]"#]),
        ] {
            assert_eq!(split(text).unwrap(), parts, "{text}");
        }
    }

    #[test]
    fn a_text_that_can_be_split_in_two_ways_is_not_split() {
        for (text, at) in [
            ("[", 1),
            ("[1,", 3),
            ("[{]", 2),
            ("[1}", 2),
            ("[}]", 1),
            ("[1,]", 3),
            ("[,1]", 1),
            ("[1,,1]", 3),
            ("[1 2]", 3),
            ("[{}{}]", 3),
            (r#"["a]"#, 4),
            (r#"["a\"]"#, 6),
            // A missing quote, and two of them.
            (r#"[{"a":"b},{"a":"b"}]"#, 12),
            (r#"[{"a":"b},{"a":"b},{"a":1}]"#, 12),
        ] {
            assert_eq!(split(text), Err(at), "{text}");
        }
    }

    #[test]
    fn nesting_is_not_limited() {
        for depth in [100, 127, 128, 129, 100_000] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
                let (open, close) = (open.repeat(depth), close.repeat(depth));
                let text = format!("[0,{open}1{close},0]");
                assert_eq!(split(&text).unwrap().len(), 3);
            }
        }
        let mismatched = format!("[{}{{]{}]", "[".repeat(127), "]".repeat(127));
        assert!(split(&mismatched).is_err());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            r#"["\\,:\[\]{}]{0,8}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn valid_json_is_split_as_the_parser_splits_it(
            values in prop::collection::vec(json(), 0..6),
            is_pretty in any::<bool>(),
        ) {
            let value = Value::from(values);
            let text = if is_pretty { format!("{value:#}") } else { value.to_string() };
            let parsed: Vec<&RawValue> = serde_json::from_str(&text).unwrap();
            let parsed: Vec<&str> = parsed.iter().map(|raw| raw.get()).collect();
            prop_assert_eq!(split(&text).unwrap(), parsed);
        }

        #[test]
        fn no_bytes_make_it_panic_and_parts_ascend(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            text in r#"[\[\]{}",:0-9a-z \n\\]{0,100}"#,
        ) {
            for text in [&bytes[..], text.as_bytes()] {
                let mut last = 1;
                for part in Parts::new(text, 0) {
                    let (start, end) = match part {
                        Ok(range) => (range.start, range.end),
                        Err(SplitError(at)) => (at, at),
                    };
                    prop_assert!(last <= start && start <= end && end <= text.len().max(1));
                    last = end;
                }
            }
        }
    }
}

//! `application/x-ndjson`: one JSON object per line. Blank lines are ignored.

use std::io::BufRead as _;
use std::ops::Range;

use service::ApiError;

use super::element::Elements;
use super::{Entries, Format, FormatError, MAX_READINGS};

pub(super) const FORMAT: Format = Format {
    content_type: "application/x-ndjson",
    // Never used: a line that is not JSON is a rejected reading.
    malformed: ApiError::MalformedJson,
    read,
    lines: Some(line_numbers),
    max_entries: |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count() + 1,
};

fn read(body: &[u8]) -> Result<Entries<'_>, FormatError> {
    let mut entries = Entries::new();
    let mut elements = Elements::new(body);
    for (_, line) in lines(body) {
        if entries.len() == MAX_READINGS {
            return Err(FormatError::TooMany);
        }
        entries.push(elements.read(line));
    }
    Ok(entries)
}

fn line_numbers(body: &[u8], indices: &[usize]) -> Vec<usize> {
    let mut lines = lines(body).map(|(number, _)| number);
    let mut next = 0;
    let number = |&index: &usize| {
        let number = lines.nth(index - next);
        next = index + 1;
        number
    };
    indices.iter().map_while(number).collect()
}

/// The lines that are not blank, with their numbers from 1.
fn lines(body: &[u8]) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut rest = body;
    let lines = std::iter::from_fn(move || {
        let start = body.len() - rest.len();
        let length = rest.skip_until(b'\n').ok().filter(|&length| length > 0)?;
        let line = &body[start..start + length];
        let start = start + length - line.trim_ascii_start().len();
        Some(start..start + line.trim_ascii().len())
    });
    (1..).zip(lines).filter(|(_, line)| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use schema::Rejection;

    use super::*;

    const GOOD: &str = r#"{"device": "m", "metric": "p", "value": 1}"#;

    #[test]
    fn each_line_is_a_reading_of_its_own() {
        let body = format!("{GOOD}\r\n\n17\n{GOOD}");
        let entries = read(body.as_bytes()).unwrap();
        let codes: Vec<_> = entries
            .iter()
            .map(|entry| entry.as_ref().err().map(|e| e.0))
            .collect();
        assert_eq!(codes, [None, Some(Rejection::BadReading), None]);
    }

    #[test]
    fn a_byte_that_is_not_utf8_costs_its_line_only() {
        let body = [
            GOOD.as_bytes(),
            b" {\"device\":\"caf\xe9\"}",
            GOOD.as_bytes(),
        ]
        .join(&b'\n');
        let entries = read(&body).unwrap();
        assert!(entries[0].is_ok() && entries[2].is_ok(), "{entries:?}");
        let (rejection, detail) = entries[1].as_ref().unwrap_err();
        assert_eq!(*rejection, Rejection::BadReading);
        assert!(
            detail.contains("0xE9 at line 2, column 16 is not UTF-8"),
            "{detail}"
        );
    }

    #[test]
    fn lines_are_counted_with_blank_ones() {
        let body = b"\n0\n\n \r\n1\n2\n\n3";
        assert_eq!(read(body).unwrap().len(), 4);
        assert_eq!(line_numbers(body, &[0, 1, 2, 3]), [2, 5, 6, 8]);
        assert_eq!(line_numbers(body, &[1, 3]), [5, 8]);
        assert_eq!(line_numbers(body, &[]), [0; 0]);
    }

    #[test]
    fn the_number_of_lines_is_bounded() {
        let body = "0\n".repeat(MAX_READINGS + 1);
        assert_eq!(read(body.as_bytes()), Err(FormatError::TooMany));
    }
}

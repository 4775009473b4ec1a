//! `application/x-ndjson`: one JSON object per line. Empty lines are ignored.

use service::ApiError;

use super::{Entries, Format, FormatError, MAX_READINGS, json, utf8};

pub(super) const FORMAT: Format = Format {
    content_type: "application/x-ndjson",
    // Never used: a line that is not JSON is a rejected reading.
    malformed: ApiError::MalformedJson,
    read,
    max_entries: |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count() + 1,
};

fn read(bytes: &[u8]) -> Result<Entries<'_>, FormatError> {
    let mut entries = Entries::new();
    let mut invalid = 0;
    let lines = utf8(bytes)?.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty()) {
        if entries.len() == MAX_READINGS {
            return Err(FormatError::TooMany);
        }
        entries.push(json::read_reading(line, &mut invalid));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use schema::Rejection;

    use super::*;

    #[test]
    fn each_line_is_a_reading_of_its_own() {
        let good = r#"{"device": "m", "metric": "p", "value": 1}"#;
        let body = format!("{good}\r\n\n17\n{good}");
        let entries = read(body.as_bytes()).unwrap();
        let codes: Vec<_> = entries
            .iter()
            .map(|entry| entry.as_ref().err().map(|e| e.0))
            .collect();
        assert_eq!(codes, [None, Some(Rejection::BadReading), None]);
    }

    #[test]
    fn the_number_of_lines_is_bounded() {
        let body = "0\n".repeat(MAX_READINGS + 1);
        assert_eq!(read(body.as_bytes()), Err(FormatError::TooMany));
    }
}

//! Every form of a time, and that text and numbers agree.

use proptest::prelude::*;
use schema::reading::MAX_MEASURED_AT;

use super::*;

const TEN: Micros = 1_795_168_800_000_000; // 2026-11-20T10:00:00Z

fn parse(json: &str) -> RawTime<'_> {
    serde_json::from_str(json).unwrap()
}

fn resolve(json: &str, precision: Precision) -> Result<Micros, Rejection> {
    parse(json).resolve(precision, 7)
}

fn text(text: &str) -> Result<Micros, Rejection> {
    resolve(&format!("\"{text}\""), Precision::S)
}

#[test]
fn rfc_3339_and_every_precision_are_equivalent() {
    for (json, precision) in [
        ("\"2026-11-20T10:00:00Z\"", Precision::S),
        ("\"2026-11-20T11:30:00.000000+01:30\"", Precision::Ns),
        ("\"2026-11-20T10:00\\u003a00Z\"", Precision::S),
        ("1795168800", Precision::S),
        ("1795168800.0", Precision::S),
        ("17951688e2", Precision::S),
        ("1.7951688E+9", Precision::S),
        ("179516880000e-2", Precision::S),
        ("1795168800000", Precision::Ms),
        ("1795168800000000", Precision::Us),
        ("1795168800000000999", Precision::Ns),
    ] {
        assert_eq!(resolve(json, precision), Ok(TEN), "{json}");
    }
    assert_eq!(resolve("1795168800.25", Precision::S), Ok(TEN + 250_000));
}

#[test]
fn every_form_of_rfc_3339_is_a_time() {
    for same in [
        "2026-11-20t10:00:00z",
        "2026-11-20 10:00:00Z",
        "2026-11-20T10:00:00.0Z",
        "2026-11-20T10:00:00+00:00",
        "2026-11-20T10:00:00-00:00",
        "2026-11-21T09:59:00+23:59",
        "2026-11-19T10:01:00-23:59",
        "2026-11-20T10:00:00.00000000000000000000000000000000000000001Z",
    ] {
        assert_eq!(text(same), Ok(TEN), "{same}");
    }
    assert_eq!(text("9999-12-31T23:59:59.999999999Z"), Ok(MAX_MEASURED_AT));
    assert_eq!(text("9999-12-31T23:59:59Z"), Ok(253_402_300_799_000_000));
    assert_eq!(text("2024-02-29T00:00:00Z"), Ok(1_709_164_800_000_000));
}

#[test]
fn a_time_is_rounded_down_to_microseconds() {
    for (json, precision, expected) in [
        (
            "\"2026-11-20T10:00:00.123456789Z\"",
            Precision::S,
            TEN + 123_456,
        ),
        ("1795168800.123456789", Precision::S, TEN + 123_456),
        ("1795168800123.456789", Precision::Ms, TEN + 123_456),
        ("1795168800123456.789", Precision::Us, TEN + 123_456),
        ("1795168800123456789", Precision::Ns, TEN + 123_456),
        ("1795168800123456789.9", Precision::Ns, TEN + 123_456),
        ("\"1969-12-31T23:59:59.999999999Z\"", Precision::S, -1),
        ("-1", Precision::Ns, -1),
        ("-1e-9", Precision::S, -1),
        ("-1000", Precision::Ns, -1),
        ("-1001", Precision::Ns, -2),
        ("1e-9", Precision::S, 0),
        ("-0.0", Precision::S, 0),
        ("0e999999999999", Precision::S, 0),
        ("1e-999999999999", Precision::S, 0),
        ("-1e-999999999999", Precision::S, -1),
    ] {
        assert_eq!(resolve(json, precision), Ok(expected), "{json}");
    }
}

#[test]
fn an_absent_time_is_the_time_of_receipt() {
    assert_eq!(resolve("null", Precision::S), Ok(7));
}

#[test]
fn a_value_that_is_not_a_time_is_rejected_with_the_value_and_what_to_send() {
    let s = Precision::S;
    for (json, precision, detail) in [
        (
            "\"yesterday\"",
            s,
            "'yesterday' is not a time; send RFC 3339",
        ),
        ("\"\"", s, "'' is not a time"),
        ("\"2026-11-21\"", s, "'2026-11-21' is not a time"),
        (
            "\"20261121T100000Z\"",
            s,
            "'20261121T100000Z' is not a time",
        ),
        ("\"-2026-11-21T10:00:00Z\"", s, "is not a time"),
        ("\" 2026-11-21T10:00:00Z\"", s, "is not a time"),
        ("\"1795168800\"", s, "'1795168800' is a number in quotes"),
        (
            "\"2026-11-21T10:00:00\"",
            s,
            "has no zone: append Z or an offset such as +01:00",
        ),
        ("\"2026-11-21T10:00:00.5\"", s, "has no zone"),
        ("\"2026-11-21T10:00Z\"", s, "has no seconds"),
        ("\"2026-11-21T10:00\"", s, "has no seconds"),
        ("\"2026-11-21T10Z\"", s, "is not a time"),
        (
            "\"2026-11-21T10:00:00+24:00\"",
            s,
            "an offset from -23:59 to +23:59",
        ),
        (
            "\"2026-11-21T10:00:00+01:60\"",
            s,
            "an offset from -23:59 to +23:59",
        ),
        (
            "\"2026-11-21T10:00:00+0100\"",
            s,
            "an offset from -23:59 to +23:59",
        ),
        (
            "\"2026-11-21T10:00:00+01\"",
            s,
            "an offset from -23:59 to +23:59",
        ),
        (
            "\"2026-11-21T10:00:00 CET\"",
            s,
            "an offset from -23:59 to +23:59",
        ),
        (
            "\"2026-11-21T10:00:00Z[UTC]\"",
            s,
            "an offset from -23:59 to +23:59",
        ),
        ("\"2026-11-21T10:00:00.Z\"", s, "a fraction"),
        ("\"2026-11-21T10:00:00,5Z\"", s, "a fraction"),
        (
            "\"2016-12-31T23:59:60Z\"",
            s,
            "leap second, which PostgreSQL cannot store",
        ),
        ("\"2026-11-21T10:00:60.5Z\"", s, "leap second"),
        ("\"2026-11-21T10:00:61Z\"", s, "does not exist"),
        ("\"2026-11-21T24:00:00Z\"", s, "does not exist"),
        ("\"2026-02-29T10:00:00Z\"", s, "does not exist"),
        ("\"2026-13-01T10:00:00Z\"", s, "does not exist"),
        ("\"0000-12-31T10:00:00Z\"", s, "outside the years 1 to 9999"),
        (
            "\"9999-12-31T23:59:59-00:01\"",
            s,
            "outside the years 1 to 9999",
        ),
        ("\"\\ud800\"", s, "is not a time"),
        ("true", s, "'true' is not a time"),
        ("[1]", s, "'[1]' is not a time"),
        ("{}", s, "'{}' is not a time"),
        (
            "1e300",
            s,
            "'1e300' in seconds is outside the years 1 to 9999",
        ),
        ("1e999999999999", s, "outside the years 1 to 9999"),
        (
            "-1e300",
            Precision::Ms,
            "'-1e300' in milliseconds is outside",
        ),
        ("18446744073709551615", s, "outside the years 1 to 9999"),
        (
            "1795168800000",
            s,
            "'1795168800000' looks like milliseconds; add ?precision=ms",
        ),
        (
            "1795168800000000",
            s,
            "looks like microseconds; add ?precision=us",
        ),
        (
            "1795168800000000000",
            s,
            "looks like nanoseconds; add ?precision=ns",
        ),
        (
            "1795168800000000",
            Precision::Ms,
            "looks like microseconds; add ?precision=us",
        ),
    ] {
        assert_eq!(
            resolve(json, precision),
            Err(Rejection::BadTimestamp),
            "{json}"
        );
        let explained = parse(json).explain(precision);
        assert!(
            explained.starts_with("measured_at '") && explained.contains(detail),
            "{json}: {explained}"
        );
    }
    let long = format!("\"{}\"", "x".repeat(10_000));
    assert!(parse(&long).explain(s).len() < 250);
}

#[test]
fn a_time_in_the_input_is_not_larger_than_its_text() {
    // The memory budget for entries counts on it.
    assert_eq!(size_of::<RawTime<'_>>(), size_of::<String>());
}

/// A number of nanoseconds as a decimal number of a unit of `10^digits` nanoseconds.
fn decimal(nanos: i64, digits: u32) -> String {
    let (unit, sign) = (10_u64.pow(digits), if nanos < 0 { "-" } else { "" });
    let (whole, rest) = (nanos.unsigned_abs() / unit, nanos.unsigned_abs() % unit);
    let width = digits as usize;
    if width == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{rest:0width$}")
    }
}

proptest! {
    #[test]
    fn text_and_numbers_of_every_precision_agree(nanos: i64, offset in -1_439_i64..1_440) {
        let expected = nanos.div_euclid(1_000);
        let local = i128::from(nanos) + i128::from(offset) * 60_000_000_000;
        let local = jiff::Timestamp::from_nanosecond(local).unwrap();
        let local = format!("{local:.9}");
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
        let rfc_3339 = format!("{}{sign}{hours:02}:{minutes:02}", local.trim_end_matches('Z'));
        prop_assert_eq!(text(&rfc_3339), Ok(expected), "{}", rfc_3339);
        for (digits, precision) in [
            (9, Precision::S),
            (6, Precision::Ms),
            (3, Precision::Us),
            (0, Precision::Ns),
        ] {
            let number = decimal(nanos, digits);
            prop_assert_eq!(resolve(&number, precision), Ok(expected), "{}", number);
            let scaled = format!("{nanos}E-{digits}");
            prop_assert_eq!(resolve(&scaled, precision), Ok(expected), "{}", scaled);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(any in "\\PC*", near in "[-0-9TtZz:.+ ]{0,40}") {
        for text in [any, near] {
            let raw = RawTime::Text(text.into());
            if raw.resolve(Precision::S, 0).is_err() {
                prop_assert!(raw.explain(Precision::S).starts_with("measured_at "));
            }
        }
    }
}

//! The formats of files, and their names.

use clap::Parser as _;

use super::Case;
use crate::config::{Command, ImportFormat, Settings};
use crate::import::{precision, source};

#[test]
fn a_csv_file_that_names_the_device_and_the_metric_needs_no_flags() {
    let content = "device,metric,time,value\n\"a,b\",p,2026-01-01T00:00:00Z,1.5\n,p,1,2\n";
    let case = Case::without_names(content);
    assert_eq!(
        case.readings(),
        [
            "line 2: {\"device\":\"a,b\",\"metric\":\"p\",\"value\":1.5,\
             \"measured_at\":\"2026-01-01T00:00:00Z\"}",
            "line 3: no_name: column 'device': the name is empty",
        ]
    );
    assert!(
        case.layout()
            .ends_with("the device is column 'device', the metric is column 'metric'")
    );
    let refusal = Case::without_names("time,value\n1,1\n").refusal();
    assert!(refusal.contains("give --device"), "{refusal}");
}

#[test]
fn ndjson_is_read_as_the_front_end_takes_it_and_as_the_query_api_writes_it() {
    let content = r#"{"device":"a","metric":"p","value":1.5,"measured_at":1767225600}
{"device":"a","metric":"p","time":"2026-01-01T00:00:00Z","value":2}
{"device":"a","metric":"p","time":"2026-01-01 01:00:00","value":3}
{"device":"a","metric":"p","value":4}
{"device":"a","metric":"p","time":1,"value":"5"}
{"device":"a","metric":"p","time":1,"value":NaN}
{"metric":"p","time":1,"value":7}
{"device":"a","metric":"p","time":1,"value":8,"quality":1}
{"device":"a","metric":"p","time":"2026-01-01 01:00:00","value":9}
{"end":true,"rows":9,"next":null}
{"end":false,"error":"x"}
"#;
    let flags = ["--format", "ndjson", "--time-zone", "Europe/Berlin"];
    let rows = Case::without_names(content).with(&flags).rows();
    let expected = [
        "1 1767225600 1.5",
        r#"2 "2026-01-01T00:00:00Z" 2"#,
        r#"3 "2026-01-01T00:00:00Z" 3"#,
        "4 no_time: there is no measured_at",
        "5 value_not_finite: the value '\"5\"' is not a number",
        "6 bad_row: the line is not a JSON object",
        "7 no_name: there is no device; give --device",
        "8 bad_row: 'quality' is not a member",
        r#"9 "2026-01-01T00:00:00Z" 9"#,
        "11 bad_row: the export that wrote this file was not completed",
    ];
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
    for (row, expected) in rows.iter().zip(expected) {
        assert!(
            row.starts_with(expected),
            "expected {expected:?}, got {row:?}"
        );
    }
}

#[test]
fn line_protocol_gives_a_reading_for_each_field_that_is_a_number() {
    let content = r#"# DDL
CREATE DATABASE grid
# DML
# CONTEXT-DATABASE: grid
power,host=m\ 1,phase=L\,1 value=1.5,limit=15i 1767225600000000000
my\ power,host=m2 my\=field=2u,ok=true,note="a b, c=d" 1767225600000000001
power,phase=L1 value=3 1767225600000000000
power,host=m1 value=4
power,host=m1
power,host=m1 value=NaN 1
power,host=m1 value 1
power,host=m1 value=1 then
"#;
    let case = Case::without_names(content).with(&["--format", "influx", "--device-tag", "host"]);
    let rows = case.readings();
    let time = 1_767_225_600_000_000_000_i64;
    let reading = |line: u8, device: &str, metric: &str, value: &str, time: i64| {
        format!(
            "line {line}: {}",
            source::reading(device, metric, value, &time.to_string())
        )
    };
    let expected = [
        reading(5, "m 1", "power", "1.5", time),
        reading(5, "m 1", "power_limit", "15", time),
        reading(6, "m2", "my power_my=field", "2", time + 1),
        "line 6: not_a_number: field 'ok': the value is a boolean".into(),
        "line 6: not_a_number: field 'note': the value is text".into(),
        "line 7: no_name: the line has no tag 'host'".into(),
        "line 8: no_time: ".into(),
        "line 9: bad_row: the line has no fields".into(),
        "line 10: value_not_finite: field 'value': 'NaN' is not a finite number".into(),
        "line 11: bad_row: 'value' is not a field with a value".into(),
        "line 12: bad_timestamp: 'then' is not a time".into(),
    ];
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
    for (row, expected) in rows.iter().zip(expected) {
        assert!(
            row.starts_with(&expected),
            "expected {expected:?}, got {row:?}"
        );
    }
    assert_eq!(precision(&case.arguments()), "ns");
    let refusal = Case::without_names(content)
        .with(&["--format", "influx"])
        .refusal();
    assert!(refusal.contains("--device-tag"), "{refusal}");
    let refusal = Case::new("a,b\n").with(&["--device-tag", "host"]).refusal();
    assert!(refusal.contains("--device-tag does not apply"), "{refusal}");
}

#[test]
fn the_format_is_that_of_the_extension_unless_it_is_given() {
    for (file, flags, expected) in [
        ("a.csv", &[][..], ImportFormat::Csv),
        ("a", &[], ImportFormat::Csv),
        ("a.NDJSON", &[], ImportFormat::Ndjson),
        ("a.jsonl", &[], ImportFormat::Ndjson),
        ("a.lp", &[], ImportFormat::Influx),
        ("a.lp", &["--format", "csv"], ImportFormat::Csv),
    ] {
        let arguments = [&["gridwatch", "import", file], flags].concat();
        let Command::Import(import) = Settings::try_parse_from(arguments).unwrap().command else {
            panic!("another command")
        };
        assert_eq!(source::format(&import), expected, "{file}");
    }
}

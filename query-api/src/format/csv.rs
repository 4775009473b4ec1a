//! CSV with a header line (RFC 4180). A value that is not known is empty.

use std::io::Write as _;

use super::{Beside, Columns, Label, Row, Writer, json_value, without_count};
use crate::time;

/// See the module.
#[derive(Default)]
pub(super) struct CsvWriter {
    /// `device,metric,` of the present series, and its period in a comparison.
    names: Vec<u8>,
}

impl Writer for CsvWriter {
    fn start(&mut self, out: &mut Vec<u8>, columns: Columns<'_>) {
        out.extend_from_slice(columns.owner().as_bytes());
        match columns.aggregates {
            None => out.extend_from_slice(b",metric,time,value"),
            Some(aggregates) => {
                out.extend_from_slice(match columns.compared {
                    true => &b",metric,period,start,end,beside,count,coverage"[..],
                    false => b",metric,start,end,count,coverage",
                });
                if columns.combined {
                    out.extend_from_slice(b",contributing,of");
                }
                for aggregate in without_count(aggregates) {
                    out.push(b',');
                    out.extend_from_slice(aggregate.name().as_bytes());
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn series(&mut self, _: &mut Vec<u8>, label: Label<'_>) {
        self.names.clear();
        for name in [label.name, label.metric].into_iter().chain(label.period) {
            field(&mut self.names, name);
            self.names.push(b',');
        }
    }

    fn row(&mut self, out: &mut Vec<u8>, row: Row<'_>) {
        out.extend_from_slice(&self.names);
        match row {
            Row::Point(point) => {
                let _ = write!(out, "{},", time::format(point.time));
                json_value(out, &point.value);
            }
            Row::Bucket(bucket, aggregates, beside) => {
                let (from, to) = (bucket.range.from, bucket.range.to);
                let _ = write!(out, "{},{},", time::format(from), time::format(to));
                if let Some(Beside(beside)) = beside {
                    if let Some(start) = beside {
                        let _ = write!(out, "{}", time::format(start));
                    }
                    out.push(b',');
                }
                json_value(out, &bucket.count);
                out.push(b',');
                if let Some(coverage) = bucket.coverage {
                    json_value(out, &coverage);
                }
                if let Some(devices) = bucket.devices {
                    let _ = write!(out, ",{},{}", devices.contributing, devices.of);
                }
                for aggregate in without_count(aggregates) {
                    out.push(b',');
                    if let Some(value) = bucket.get(aggregate) {
                        json_value(out, &value);
                    }
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn end(&mut self, _: &mut Vec<u8>, _: u64, _: Option<&str>) {}

    fn error(&mut self, _: &mut Vec<u8>, _: &str) {}
}

/// Writes text as a field, in quotes if it needs them.
fn field(out: &mut Vec<u8>, text: &str) {
    // A spreadsheet takes a field that begins like a formula for one: in quotes it is still one,
    // so that a name of a device is written as it is.
    if text.contains([',', '"', '\r', '\n']) {
        out.push(b'"');
        out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

//! One JSON object: `{"series": [{"device", "metric", "unit", "points": […]}, …], "next": …}`.
//! `next` comes last, so that a response without it is not complete.

use store::reads::series::Series;

use super::{Row, Writer, json_members, json_value};
use crate::aggregate::Aggregate;

/// See the module.
#[derive(Default)]
pub(super) struct JsonWriter {
    series: bool,
    rows: bool,
}

impl Writer for JsonWriter {
    fn start(&mut self, out: &mut Vec<u8>, _: Option<&[Aggregate]>) {
        out.extend_from_slice(b"{\"series\":[");
    }

    fn series(&mut self, out: &mut Vec<u8>, series: &Series) {
        if self.series {
            out.extend_from_slice(b"]},");
        }
        out.extend_from_slice(b"{\"device\":");
        json_value(out, &series.device);
        out.extend_from_slice(b",\"metric\":");
        json_value(out, &series.metric);
        out.extend_from_slice(b",\"unit\":");
        json_value(out, &series.unit);
        out.extend_from_slice(b",\"points\":[");
        (self.series, self.rows) = (true, false);
    }

    fn row(&mut self, out: &mut Vec<u8>, row: Row<'_>) {
        out.extend_from_slice(if self.rows { b",{" } else { b"{" });
        json_members(out, row);
        out.push(b'}');
        self.rows = true;
    }

    fn end(&mut self, out: &mut Vec<u8>, _: u64, next: Option<&str>) {
        if self.series {
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"],\"next\":");
        json_value(out, &next);
        out.extend_from_slice(b"}\n");
    }

    fn error(&mut self, _: &mut Vec<u8>, _: &str) {}
}

//! One JSON object: `{"series": [{"device", "metric", "unit", "points": […]}, …], "next": …}`.
//! `next` comes last, so that a response without it is not complete.

use super::{Columns, Label, Row, Writer, json_members, json_value};

/// See the module.
#[derive(Default)]
pub(super) struct JsonWriter {
    series: bool,
    rows: bool,
}

impl Writer for JsonWriter {
    fn start(&mut self, out: &mut Vec<u8>, _: Columns<'_>) {
        out.extend_from_slice(b"{\"series\":[");
    }

    fn series(&mut self, out: &mut Vec<u8>, label: Label<'_>) {
        if self.series {
            out.extend_from_slice(b"]},");
        }
        out.extend_from_slice(b"{");
        json_value(out, label.owner);
        out.push(b':');
        json_value(out, label.name);
        out.extend_from_slice(b",\"metric\":");
        json_value(out, label.metric);
        out.extend_from_slice(b",\"unit\":");
        json_value(out, &label.unit);
        if let Some(period) = label.period {
            out.extend_from_slice(b",\"period\":");
            json_value(out, period);
        }
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

//! One JSON object per line: `{"device", "metric", "time", "value"}`, and at the end
//! `{"end": true, "rows": n, "next": …}`.

use super::{Columns, Label, Row, Writer, json_members, json_value};

/// See the module.
#[derive(Default)]
pub(super) struct NdjsonWriter {
    /// `{"device":…,"metric":…,` of the present series.
    names: Vec<u8>,
}

impl Writer for NdjsonWriter {
    fn start(&mut self, _: &mut Vec<u8>, _: Columns<'_>) {}

    fn series(&mut self, _: &mut Vec<u8>, label: Label<'_>) {
        self.names.clear();
        self.names.push(b'{');
        json_value(&mut self.names, label.owner);
        self.names.push(b':');
        json_value(&mut self.names, label.name);
        self.names.extend_from_slice(b",\"metric\":");
        json_value(&mut self.names, label.metric);
        if let Some(period) = label.period {
            self.names.extend_from_slice(b",\"period\":");
            json_value(&mut self.names, period);
        }
        self.names.push(b',');
    }

    fn row(&mut self, out: &mut Vec<u8>, row: Row<'_>) {
        out.extend_from_slice(&self.names);
        json_members(out, row);
        out.extend_from_slice(b"}\n");
    }

    fn end(&mut self, out: &mut Vec<u8>, rows: u64, next: Option<&str>) {
        out.extend_from_slice(b"{\"end\":true,\"rows\":");
        json_value(out, &rows);
        out.extend_from_slice(b",\"next\":");
        json_value(out, &next);
        out.extend_from_slice(b"}\n");
    }

    fn error(&mut self, out: &mut Vec<u8>, sentence: &str) {
        out.extend_from_slice(b"{\"end\":false,\"error\":");
        json_value(out, sentence);
        out.extend_from_slice(b"}\n");
    }
}

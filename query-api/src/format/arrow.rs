//! Arrow IPC stream, for pandas and polars: rows in batches, column by column.
//!
//! The stream ends with its end marker, which is missing when a response breaks off.

use std::sync::Arc;

use arrow_array::builder::{
    Float64Builder, StringBuilder, TimestampMicrosecondBuilder, UInt32Builder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};

use super::{Beside, Columns, Label, Row, Writer, without_count};

/// Rows of a batch.
const ROWS: usize = 4_096;

/// The columns of a batch that is being filled.
#[derive(Default)]
struct Batch {
    rows: usize,
    names: StringBuilder,
    metrics: StringBuilder,
    periods: StringBuilder,
    /// `time`, or `start` and `end`.
    times: [TimestampMicrosecondBuilder; 2],
    besides: TimestampMicrosecondBuilder,
    counts: UInt64Builder,
    devices: [UInt32Builder; 2],
    /// `value`, or `coverage` and the aggregates.
    values: Vec<Float64Builder>,
}

/// See the module.
#[derive(Default)]
pub(super) struct ArrowWriter {
    stream: Option<StreamWriter<Vec<u8>>>,
    schema: Option<SchemaRef>,
    is_combined: bool,
    is_compared: bool,
    is_points: bool,
    label: (String, String, Option<&'static str>),
    batch: Batch,
}

impl Writer for ArrowWriter {
    fn start(&mut self, out: &mut Vec<u8>, columns: Columns<'_>) {
        let mut fields = vec![text(columns.owner()), text("metric")];
        self.is_combined = columns.combined;
        self.is_compared = columns.compared;
        self.is_points = columns.aggregates.is_none();
        if self.is_compared {
            fields.push(text("period"));
        }
        let values = match columns.aggregates {
            None => {
                fields.extend([time("time"), number("value")]);
                1
            }
            Some(aggregates) => {
                fields.extend([time("start"), time("end")]);
                if self.is_compared {
                    fields.push(time("beside").with_nullable(true));
                }
                fields.push(Field::new("count", DataType::UInt64, false));
                fields.push(number("coverage"));
                if columns.combined {
                    let count = |name| Field::new(name, DataType::UInt32, true);
                    fields.extend([count("contributing"), count("of")]);
                }
                let names = without_count(aggregates).map(|own| number(own.name()));
                let before = fields.len();
                fields.extend(names);
                1 + fields.len() - before
            }
        };
        self.batch.values.resize_with(values, Float64Builder::new);
        let schema = Arc::new(Schema::new(fields));
        self.stream = StreamWriter::try_new(Vec::new(), &schema).ok();
        self.schema = Some(schema);
        self.move_to(out);
    }

    fn series(&mut self, _: &mut Vec<u8>, label: Label<'_>) {
        self.label = (label.name.into(), label.metric.into(), label.period);
    }

    fn row(&mut self, out: &mut Vec<u8>, row: Row<'_>) {
        let batch = &mut self.batch;
        batch.rows += 1;
        batch.names.append_value(&self.label.0);
        batch.metrics.append_value(&self.label.1);
        if self.is_compared {
            batch.periods.append_option(self.label.2);
        }
        match row {
            Row::Point(point) => {
                batch.times[0].append_value(point.time);
                batch.values[0].append_value(point.value);
            }
            Row::Bucket(bucket, aggregates, beside) => {
                batch.times[0].append_value(bucket.range.from);
                batch.times[1].append_value(bucket.range.to);
                if let Some(Beside(beside)) = beside {
                    batch.besides.append_option(beside);
                }
                batch.counts.append_value(bucket.count);
                batch.devices[0].append_option(bucket.devices.map(|own| own.contributing));
                batch.devices[1].append_option(bucket.devices.map(|own| own.of));
                batch.values[0].append_option(bucket.coverage);
                for (column, aggregate) in
                    batch.values[1..].iter_mut().zip(without_count(aggregates))
                {
                    column.append_option(bucket.get(aggregate));
                }
            }
        }
        if batch.rows == ROWS {
            self.write(out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, _: u64, _: Option<&str>) {
        self.write(out);
        if let Some(stream) = &mut self.stream {
            // Writing to memory fails only for batches that are not of the schema.
            let _ = stream.finish();
        }
        self.move_to(out);
    }

    fn error(&mut self, _: &mut Vec<u8>, _: &str) {}
}

impl ArrowWriter {
    /// Writes the rows as a batch. If that fails, the stream gets no end marker.
    fn write(&mut self, out: &mut Vec<u8>) {
        if self.batch.rows == 0 {
            return;
        }
        if self.write_batch().is_err() {
            self.stream = None;
        }
        self.move_to(out);
    }

    fn write_batch(&mut self) -> Result<(), ArrowError> {
        let (Some(schema), Some(stream)) = (&self.schema, &mut self.stream) else {
            return Ok(());
        };
        let batch = &mut self.batch;
        batch.rows = 0;
        let mut times = batch
            .times
            .iter_mut()
            .map(|times| Arc::new(times.finish().with_timezone("UTC")) as ArrayRef);
        let mut values = batch
            .values
            .iter_mut()
            .map(|values| Arc::new(values.finish()) as ArrayRef);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(batch.names.finish()),
            Arc::new(batch.metrics.finish()),
        ];
        if self.is_compared {
            columns.push(Arc::new(batch.periods.finish()));
        }
        if self.is_points {
            columns.extend(times.next());
            columns.extend(values.next());
        } else {
            columns.extend(times);
            if self.is_compared {
                columns.push(Arc::new(batch.besides.finish().with_timezone("UTC")));
            }
            columns.push(Arc::new(batch.counts.finish()));
            columns.extend(values.next());
            let devices = batch.devices.iter_mut().map(|own| own.finish());
            let devices: Vec<ArrayRef> = devices.map(|own| Arc::new(own) as ArrayRef).collect();
            if self.is_combined {
                columns.extend(devices);
            }
            columns.extend(values);
        }
        stream.write(&RecordBatch::try_new(schema.clone(), columns)?)
    }

    /// Moves what the stream has written to the response.
    fn move_to(&mut self, out: &mut Vec<u8>) {
        if let Some(stream) = &mut self.stream {
            out.append(stream.get_mut());
        }
    }
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn number(name: &str) -> Field {
    Field::new(name, DataType::Float64, true)
}

fn time(name: &str) -> Field {
    let unit = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Field::new(name, unit, false)
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::{Float64Type, TimestampMicrosecondType};
    use arrow_ipc::reader::StreamReader;
    use store::reads::points::Point;

    use super::*;

    /// A response with this many points of a series.
    fn response(points: i64, is_complete: bool) -> Vec<u8> {
        let (mut out, mut writer) = (Vec::new(), ArrowWriter::default());
        let columns = Columns {
            aggregates: None,
            combined: false,
            compared: false,
        };
        writer.start(&mut out, columns);
        writer.series(
            &mut out,
            Label {
                owner: "device",
                name: "meter-1",
                metric: "energy",
                unit: None,
                period: None,
            },
        );
        for time in 0..points {
            let value = time as f64 / 2.0;
            writer.row(&mut out, Row::Point(Point { time, value }));
        }
        match is_complete {
            true => writer.end(&mut out, points.unsigned_abs(), None),
            false => writer.error(&mut out, "broken"),
        }
        out
    }

    #[test]
    fn every_point_is_in_a_batch_and_times_are_in_utc() {
        for points in [0, 1, ROWS as i64, 10_000] {
            let response = response(points, true);
            let mut time = 0;
            for batch in StreamReader::try_new(&*response, None).unwrap() {
                let batch = batch.unwrap();
                assert_eq!(batch.column(0).as_string::<i32>().value(0), "meter-1");
                assert_eq!(batch.column(1).as_string::<i32>().value(0), "energy");
                let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
                assert_eq!(times.timezone(), Some("UTC"));
                let values = batch.column(3).as_primitive::<Float64Type>();
                for row in 0..batch.num_rows() {
                    assert_eq!(times.value(row), time);
                    assert_eq!(values.value(row), time as f64 / 2.0);
                    time += 1;
                }
            }
            assert_eq!(time, points);
        }
    }

    #[test]
    fn a_response_that_breaks_off_has_no_end_marker() {
        const END: [u8; 8] = [255, 255, 255, 255, 0, 0, 0, 0];
        assert!(response(5_000, true).ends_with(&END));
        assert!(!response(5_000, false).ends_with(&END));
    }
}

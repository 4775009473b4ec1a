//! The latencies of each second, in the log format of HdrHistogram, which its tools merge and plot.
//!
//! In: the histograms of an interval. Out: a line for each histogram. An error while writing ends
//! the run.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, Tag};

use crate::recorder::Measurements;

/// The file of a log.
pub(super) struct LatencyLogFile {
    file: File,
    serializer: V2DeflateSerializer,
}

/// A log whose header is written.
pub(super) struct LatencyLog<'a>(IntervalLogWriter<'a, 'a, File, V2DeflateSerializer>);

impl LatencyLogFile {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self {
            file,
            serializer: V2DeflateSerializer::new(),
        })
    }

    /// Writes the header.
    pub(super) fn begin(&mut self) -> anyhow::Result<LatencyLog<'_>> {
        let log = IntervalLogWriterBuilder::new()
            .add_comment(
                "latency in microseconds from the scheduled send; \
                 with tag 'sent' from the actual send",
            )
            .with_start_time(SystemTime::now())
            .begin_log_with(&mut self.file, &mut self.serializer)?;
        Ok(LatencyLog(log))
    }
}

impl LatencyLog<'_> {
    /// Writes the histograms of an interval that begins at `from` after the start.
    pub(super) fn write(
        &mut self,
        interval: &Measurements,
        from: Duration,
        length: Duration,
    ) -> anyhow::Result<()> {
        let failed = |error| anyhow::anyhow!("the log of latencies cannot be written: {error:?}");
        self.0
            .write_histogram(&interval.latency, from, length, None)
            .map_err(failed)?;
        self.0
            .write_histogram(&interval.latency_from_send, from, length, Tag::new("sent"))
            .map_err(failed)
    }
}

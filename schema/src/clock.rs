//! The stage clocks: measured ▸ received ▸ enqueued ▸ dequeued ▸ persisted.
//!
//! A stage is the time between two of these clocks. The front end and the worker may run on hosts
//! whose clocks differ; a stage that would be negative is recorded as zero and counted
//! ([`crate::metric::CLOCK_SKEW`]).

use std::time::{SystemTime, UNIX_EPOCH};

use crate::reading::Micros;

/// 2000-01-01T00:00:00Z, the epoch of PostgreSQL's binary timestamps, in microseconds since 1970.
pub const POSTGRES_EPOCH: Micros = 946_684_800_000_000;

/// The current time, in microseconds since 1970-01-01T00:00:00Z.
pub fn now() -> Micros {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

/// A latency segment: the time between two clocks of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the device's clock to the arrival of the whole request at the front end.
    MeasuredToReceived,
    /// From there until the batch is sent to the sink: the wait for a free slot in flight.
    ReceivedToEnqueued,
    /// From there until the worker has the message: the queue.
    EnqueuedToDequeued,
    /// From there to the commit.
    DequeuedToPersisted,
    /// From the request to the commit: the part that Gridwatch is responsible for.
    ReceivedToPersisted,
    /// From the device's clock to the commit: the total.
    MeasuredToPersisted,
}

impl Stage {
    /// Every stage, in the order of the data flow.
    pub const ALL: [Stage; 6] = [
        Self::MeasuredToReceived,
        Self::ReceivedToEnqueued,
        Self::EnqueuedToDequeued,
        Self::DequeuedToPersisted,
        Self::ReceivedToPersisted,
        Self::MeasuredToPersisted,
    ];

    /// The `stage` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::MeasuredToReceived => "measured_to_received",
            Self::ReceivedToEnqueued => "received_to_enqueued",
            Self::EnqueuedToDequeued => "enqueued_to_dequeued",
            Self::DequeuedToPersisted => "dequeued_to_persisted",
            Self::ReceivedToPersisted => "received_to_persisted",
            Self::MeasuredToPersisted => "measured_to_persisted",
        }
    }
}

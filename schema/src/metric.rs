//! Names of metrics and labels, each beside its description.
//!
//! The books, of readings: `received = accepted + rejected + unavailable` at the front end once nothing is pending, and
//! `accepted = persisted + duplicate + conflict + dead-lettered + in flight` at the worker. A reading that was
//! `unavailable{reason="unconfirmed"}` may be in the queue although its device was told to retry, so under faults the
//! second sum may exceed `accepted` by as many, never by more and never fall short.

/// A metric's name and the text behind `# HELP`.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name, with its unit.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
}

macro_rules! metrics {
    ($kind:ident: $($(#[$doc:meta])* $id:ident = $name:literal, $help:literal;)*) => {
        $($(#[$doc])* #[doc = $help] pub const $id: Metric = Metric { name: $name, help: $help };)*
        #[doc = concat!("Every ", stringify!($kind), ", to be described at start.")]
        pub const $kind: &[Metric] = &[$($id),*];
    };
}

metrics! { COUNTERS:
    RECEIVED = "gridwatch_readings_received_total", "Readings in requests that could be read";
    ACCEPTED = "gridwatch_readings_accepted_total", "Readings that the sink has confirmed as durable";
    /// Label: `code`.
    REJECTED = "gridwatch_readings_rejected_total", "Readings that must not be retried, by code";
    /// Label: `reason`: `full`, `registry`, `not_sent`, `unconfirmed`.
    UNAVAILABLE = "gridwatch_readings_unavailable_total", "Readings answered with 503 or given up by the client, by reason";
    SINK_BATCHES = "gridwatch_sink_batches_total", "Batches that the sink has confirmed";
    SINK_RETRIES = "gridwatch_sink_retries_total", "Batches handed to the sink once more after a lost connection";
    PERSISTED = "gridwatch_readings_persisted_total", "Readings committed to the reading table";
    DUPLICATE = "gridwatch_readings_duplicate_total", "Readings that were stored already with the same value";
    CONFLICT = "gridwatch_readings_conflict_total", "Readings that were stored already with another value; kept in the conflict table";
    DEAD_LETTERED = "gridwatch_readings_dead_lettered_total", "Readings that PostgreSQL refuses, kept in the dead_letter table";
    /// Label: `code`.
    POISON_MESSAGES = "gridwatch_poison_messages_total", "Messages that are no batch, moved to the dead-letter queue, by code";
    REDELIVERED_BATCHES = "gridwatch_redelivered_batches_total", "Batches that the ledger knew already and that were skipped";
    TRANSACTIONS = "gridwatch_transactions_total", "Transactions committed by the worker";
    STAGED_TRANSACTIONS = "gridwatch_staged_transactions_total", "Transactions that met a stored key and went through the staging table";
    TRANSACTION_RETRIES = "gridwatch_transaction_retries_total", "Transactions tried again after a transient error";
    /// Label: `stage`.
    CLOCK_SKEW = "gridwatch_clock_skew_readings_total", "Readings of which a stage came out negative and was taken as zero";
    /// Label: `status`.
    HTTP_REQUESTS = "gridwatch_http_requests_total", "Answers by status";
    SPOOLED = "gridwatch_spooled_readings_total", "Readings taken into the spool";
    SPOOL_DELIVERED = "gridwatch_spool_delivered_readings_total", "Readings of the spool that are acknowledged";
    SPOOL_DAMAGED = "gridwatch_spool_damaged_bytes_total", "Bytes of the spool that were found damaged and moved into quarantine";
    SPOOL_MISSING = "gridwatch_spool_missing_records_total", "Records that were found missing from the spool when it was opened";
    CONNECTS = "gridwatch_broker_connects_total", "Connections made to the broker";
}

metrics! { GAUGES:
    PENDING = "gridwatch_pending_readings", "Readings that wait for the sink's confirmation";
    SINK_IN_FLIGHT = "gridwatch_sink_in_flight_batches", "Batches handed to the sink and not yet confirmed";
    REGISTRY_SERIES = "gridwatch_registry_series", "Series in the front end's registry";
    REGISTRY_FRESH = "gridwatch_registry_fresh", "1 while the registry follows PostgreSQL, 0 while it cannot";
    WORKER_UNSETTLED = "gridwatch_worker_unsettled_readings", "Readings that the worker holds and has not acknowledged";
    SPOOL_READINGS = "gridwatch_spool_readings", "Readings that wait in the spool";
    SPOOL_BYTES = "gridwatch_spool_bytes", "Bytes that wait in the spool";
    SPOOL_AGE = "gridwatch_spool_oldest_age_seconds", "Age of the oldest readings in the spool; 0 where it is empty";
    SPOOL_TIME_TO_EMPTY = "gridwatch_spool_time_to_empty_seconds", "Time until the spool is empty at the present rate; +Inf while nothing leaves it";
    READY = "gridwatch_ready", "1 while the process can do its work, be it degraded";
    /// Label: `version`.
    BUILD_INFO = "gridwatch_build_info", "Always 1, with the version that runs as its label";
    DEGRADED = "gridwatch_degraded", "1 while something stands in for a part that is away";
}

metrics! { HISTOGRAMS:
    /// Label: `stage`, of [`crate::clock::Stage`].
    STAGE_SECONDS = "gridwatch_stage_seconds", "Time of a reading between two clocks of its way, weighted by readings";
    HTTP_SECONDS = "gridwatch_http_request_seconds", "Time from the head of a request for readings to its answer";
    CONFIRM_SECONDS = "gridwatch_sink_confirm_seconds", "Time from handing a batch to the sink to its confirmation";
    TRANSACTION_SECONDS = "gridwatch_transaction_seconds", "Time of one transaction of the worker, BEGIN to COMMIT";
}

/// Label: a [`crate::Rejection::code`] or a [`crate::batch::DecodeError::code`].
pub const LABEL_CODE: &str = "code";
/// Label: why readings could not be taken for now.
pub const LABEL_REASON: &str = "reason";
/// Label: a [`crate::clock::Stage::label`].
pub const LABEL_STAGE: &str = "stage";
/// Label: an HTTP status.
pub const LABEL_STATUS: &str = "status";
/// The version of the program.
pub const LABEL_VERSION: &str = "version";

/// Upper bounds of the histograms' buckets, in seconds. From 100 µs, a tenth of what a commit costs, to 5 min, the
/// tolerance for clocks ahead; three or four a decade, so that an interpolated quantile is off by half at most.
pub const BUCKETS: [f64; 20] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

//! Names of metrics and labels, each beside its description.
//!
//! The balance of the books, in readings: once nothing is pending, the front end has
//! `received = accepted + rejected + unavailable`, and the worker has
//! `accepted = persisted + duplicate + conflict + dead-lettered + in flight`. A reading that is
//! counted as `unavailable{reason="unconfirmed"}` may be in the queue although its device was asked
//! to retry. Under faults the second sum may therefore exceed `accepted` by that many readings,
//! never by more, and it is never smaller.

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
    RECEIVED = "gridwatch_readings_received_total",
        "Readings in requests that could be parsed";
    ACCEPTED = "gridwatch_readings_accepted_total",
        "Readings that the sink confirmed as durable";
    /// Label: `code`.
    REJECTED = "gridwatch_readings_rejected_total",
        "Readings that must not be retried, by code";
    /// Label: `reason`: `full`, `registry`, `not_sent`, `unconfirmed`.
    UNAVAILABLE = "gridwatch_readings_unavailable_total",
        "Readings refused with 503 or abandoned by the client, by reason";
    SINK_BATCHES = "gridwatch_sink_batches_total",
        "Batches that the sink confirmed";
    SINK_RETRIES = "gridwatch_sink_retries_total",
        "Batches published again after a lost connection";
    PERSISTED = "gridwatch_readings_persisted_total",
        "Readings committed to the reading table";
    DUPLICATE = "gridwatch_readings_duplicate_total",
        "Readings that were already stored with the same value";
    CONFLICT = "gridwatch_readings_conflict_total",
        "Readings that were already stored with another value; recorded in the conflict table";
    DEAD_LETTERED = "gridwatch_readings_dead_lettered_total",
        "Readings that PostgreSQL refuses; recorded in the dead_letter table";
    /// Label: `code`.
    POISON_MESSAGES = "gridwatch_poison_messages_total",
        "Messages that are not a valid batch, moved to the dead-letter queue, by code";
    REDELIVERED_BATCHES = "gridwatch_redelivered_batches_total",
        "Batches that were already in the ledger and were skipped";
    TRANSACTIONS = "gridwatch_transactions_total",
        "Transactions that the worker committed";
    STAGED_TRANSACTIONS = "gridwatch_staged_transactions_total",
        "Transactions that hit an existing key and used the staging table";
    TRANSACTION_RETRIES = "gridwatch_transaction_retries_total",
        "Transactions retried after a transient error";
    /// Label: `stage`.
    CLOCK_SKEW = "gridwatch_clock_skew_readings_total",
        "Readings with a negative stage latency, which is recorded as zero";
    /// Labels: `listener`, `status`.
    HTTP_REQUESTS = "gridwatch_http_requests_total",
        "HTTP responses, by listener and status";
    /// Labels: `listener`, `code`.
    HTTP_ERRORS = "gridwatch_http_errors_total",
        "HTTP error responses, by listener and code";
    SPOOLED = "gridwatch_spooled_readings_total",
        "Readings appended to the spool";
    SPOOL_DELIVERED = "gridwatch_spool_delivered_readings_total",
        "Readings of the spool that were acknowledged";
    SPOOL_DAMAGED = "gridwatch_spool_damaged_bytes_total",
        "Damaged bytes of the spool that were moved to quarantine";
    SPOOL_MISSING = "gridwatch_spool_missing_records_total",
        "Records that were missing from the spool when it was opened";
    CONNECTS = "gridwatch_broker_connects_total",
        "Connections opened to the broker";
}

metrics! { GAUGES:
    PENDING = "gridwatch_pending_readings",
        "Readings that wait for a confirmation of the sink";
    SINK_IN_FLIGHT = "gridwatch_sink_in_flight_batches",
        "Batches sent to the sink and not yet confirmed";
    REGISTRY_SERIES = "gridwatch_registry_series",
        "Series in the front end's registry";
    REGISTRY_FRESH = "gridwatch_registry_fresh",
        "1 while the registry is up to date with PostgreSQL, otherwise 0";
    WORKER_UNSETTLED = "gridwatch_worker_unsettled_readings",
        "Readings that the worker received and has not acknowledged";
    SPOOL_READINGS = "gridwatch_spool_readings",
        "Readings in the spool";
    SPOOL_BYTES = "gridwatch_spool_bytes",
        "Bytes in the spool";
    SPOOL_MAX_BYTES = "gridwatch_spool_max_bytes",
        "Upper bound on the bytes in the spool; at it, readings are refused";
    SPOOL_DISK_FREE = "gridwatch_spool_disk_free_bytes",
        "Bytes that are free on the disk of the spool";
    SPOOL_AGE = "gridwatch_spool_oldest_age_seconds",
        "Age of the oldest readings in the spool; 0 when it is empty";
    SPOOL_TIME_TO_EMPTY = "gridwatch_spool_time_to_empty_seconds",
        "Time until the spool is empty at the current rate; +Inf while it does not drain";
    READY = "gridwatch_ready",
        "1 while the process can do its work, including when it is degraded";
    /// Label: `version`.
    BUILD_INFO = "gridwatch_build_info",
        "Always 1; the label is the version of the program";
    DEGRADED = "gridwatch_degraded",
        "1 while a fallback replaces a component that is down";
}

/// Label: `stage`, of [`crate::clock::Stage`].
pub const STAGE_SECONDS: Metric = Metric {
    name: "gridwatch_stage_seconds",
    help: "Latency of a reading between two of its clocks, weighted by readings",
};
/// Latency of requests.
pub const HTTP_SECONDS: Metric = Metric {
    name: "gridwatch_http_request_seconds",
    help: "Time from the head of a request for readings to its response",
};
/// Latency of the sink.
pub const CONFIRM_SECONDS: Metric = Metric {
    name: "gridwatch_sink_confirm_seconds",
    help: "Time from sending a batch to the sink to its confirmation",
};
/// Latency of transactions.
pub const TRANSACTION_SECONDS: Metric = Metric {
    name: "gridwatch_transaction_seconds",
    help: "Time of one transaction of the worker, BEGIN to COMMIT",
};

/// Label: the code of a [`crate::Rejection`], a [`crate::batch::DecodeError`] or an HTTP error.
pub const LABEL_CODE: &str = "code";
/// Label: why readings were refused and have to be retried.
pub const LABEL_REASON: &str = "reason";
/// Label: a [`crate::clock::Stage::label`].
pub const LABEL_STAGE: &str = "stage";
/// Label: the HTTP listener, `readings` or `admin`.
pub const LABEL_LISTENER: &str = "listener";
/// Label: an HTTP status.
pub const LABEL_STATUS: &str = "status";
/// Label: the version of the program.
pub const LABEL_VERSION: &str = "version";

/// Upper bounds of the histograms' buckets, in seconds.
///
/// They reach from 100 µs, a tenth of what a commit costs, to 5 min, the tolerance for clocks that
/// are ahead, with three or four per decade, so that an interpolated quantile is off by at most
/// half.
pub const BUCKETS: [f64; 20] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

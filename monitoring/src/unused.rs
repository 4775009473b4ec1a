//! Metrics that no panel and no rule uses, each with the reason.

use schema::metric::Metric;

/// Metrics of [`schema::metric`] that no panel and no rule uses, each with the reason.
pub const UNUSED: &[(Metric, &str)] = &[];

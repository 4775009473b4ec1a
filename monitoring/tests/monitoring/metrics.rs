//! Queries use metrics that are exported, and metrics that are exported are used.

use std::collections::BTreeSet;

use monitoring::dashboard::Source;
use monitoring::promql::selectors;
use monitoring::rules::{alerts, recorded};
use schema::metric::{self, Metric};

/// Every query in PromQL.
fn queries() -> Vec<String> {
    let mut queries: Vec<String> = monitoring::dashboards::all()
        .into_iter()
        .flat_map(|dashboard| dashboard.panels)
        .flat_map(|panel| panel.queries)
        .filter(|query| query.source == Source::Prometheus)
        .map(|query| query.text)
        .collect();
    queries.extend(alerts::all().into_iter().map(|alert| alert.query));
    queries.extend(recorded::all().into_iter().map(|rule| rule.query));
    queries
}

fn metrics() -> Vec<Metric> {
    let histograms = [
        metric::STAGE_SECONDS,
        metric::HTTP_SECONDS,
        metric::CONFIRM_SECONDS,
        metric::TRANSACTION_SECONDS,
    ];
    [metric::COUNTERS, metric::GAUGES, &histograms].concat()
}

#[test]
fn every_metric_is_described_and_is_used_or_has_a_reason() {
    let used: BTreeSet<String> = queries()
        .iter()
        .flat_map(|query| selectors(query))
        .map(|(name, _)| name)
        .collect();
    let is_used = |name: &str| {
        let suffixes = ["", "_bucket", "_sum", "_count"];
        suffixes
            .iter()
            .any(|suffix| used.contains(&format!("{name}{suffix}")))
    };
    for each in metrics() {
        assert!(each.help.len() > 10, "{} needs a description", each.name);
        let reason = monitoring::UNUSED
            .iter()
            .find(|(own, _)| own.name == each.name);
        assert_eq!(
            is_used(each.name),
            reason.is_none(),
            "{} is used in a panel or a rule, or is in monitoring::UNUSED with the reason",
            each.name
        );
    }
}

#[test]
fn every_metric_of_a_query_is_a_metric_of_gridwatch_or_recorded() {
    let recorded: BTreeSet<String> = recorded::all().into_iter().map(|rule| rule.name).collect();
    let metrics = metrics();
    for query in queries() {
        for (name, _) in selectors(&query) {
            // The test with a real Prometheus finds those of RabbitMQ and of the process.
            let own = name.strip_prefix("gridwatch_");
            let base = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(&name);
            let exists = metrics
                .iter()
                .any(|each| each.name == name || each.name == base);
            assert!(own.is_none() || exists, "{name} is not exported: {query}");
            let is_recorded = !name.contains(':') || recorded.contains(&name);
            assert!(is_recorded, "{name} is not recorded: {query}");
        }
    }
}

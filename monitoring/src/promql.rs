//! Queries in PromQL.
//!
//! In: metrics, label matchers and ranges. Out: text. A dashboard selects one deployment with its
//! variable ([`of`]); a rule is evaluated for every deployment ([`per_deployment`]).

use schema::clock::Stage;
use schema::metric::{LABEL_STAGE, Metric};

/// The label that names a deployment. Prometheus sets it on every target.
pub const DEPLOYMENT: &str = "gridwatch_deployment";

/// The range of a rate in a dashboard, which Grafana chooses by the resolution.
pub const RANGE: &str = "$__rate_interval";

/// A metric of the deployment that the dashboard shows, with further label matchers.
pub fn of(name: &str, matchers: &str) -> String {
    let comma = if matchers.is_empty() { "" } else { ", " };
    format!(r#"{name}{{{DEPLOYMENT}=~"${DEPLOYMENT}"{comma}{matchers}}}"#)
}

/// Events per second, over all processes.
pub fn rate(counter: Metric) -> String {
    format!("sum(rate({}[{RANGE}]))", of(counter.name, ""))
}

/// Events per second by a label.
pub fn rate_by(label: &str, counter: Metric) -> String {
    format!("sum by ({label}) (rate({}[{RANGE}]))", of(counter.name, ""))
}

/// The sum of a gauge over all processes.
pub fn sum(gauge: Metric) -> String {
    format!("sum({})", of(gauge.name, ""))
}

/// A gauge by process.
pub fn by_instance(gauge: Metric) -> String {
    format!("sum by (instance) ({})", of(gauge.name, ""))
}

/// The matcher of a stage.
pub fn stage(stage: Stage) -> String {
    format!(r#"{LABEL_STAGE}="{}""#, stage.label())
}

/// A quantile of a histogram.
pub fn quantile(quantile: f64, histogram: Metric, matchers: &str) -> String {
    quantile_by(quantile, "le", histogram, matchers)
}

/// A quantile of a histogram for each stage.
pub fn stage_quantile(quantile: f64, histogram: Metric) -> String {
    quantile_by(quantile, &format!("le, {LABEL_STAGE}"), histogram, "")
}

fn quantile_by(quantile: f64, labels: &str, histogram: Metric, matchers: &str) -> String {
    let buckets = of(&bucket(histogram), matchers);
    format!("histogram_quantile({quantile}, sum by ({labels}) (rate({buckets}[{RANGE}])))")
}

/// The buckets of a histogram, for a heat map.
pub fn heat_map(histogram: Metric, matchers: &str) -> String {
    let buckets = of(&bucket(histogram), matchers);
    format!("sum by (le) (increase({buckets}[{RANGE}]))")
}

/// The name of the buckets of a histogram.
pub fn bucket(histogram: Metric) -> String {
    format!("{}_bucket", histogram.name)
}

/// The name of the count of a histogram.
pub fn count(histogram: Metric) -> String {
    format!("{}_count", histogram.name)
}

/// A sum for each deployment.
pub fn per_deployment(query: &str) -> String {
    format!("sum by ({DEPLOYMENT}) ({query})")
}

/// The names of the series in a query, each with its matchers as they are in the query. Functions,
/// keywords and labels are left out.
pub fn selectors(query: &str) -> Vec<(String, String)> {
    const PREFIXES: [&str; 4] = ["gridwatch", "rabbitmq_", "process_", "erlang_"];
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '"' || c == '$') {
        rest = &rest[begin..];
        if let Some(text) = rest.strip_prefix('"') {
            let end = text.find('"').map_or(text.len(), |at| at + 1);
            rest = &text[end..];
            continue;
        }
        if let Some(variable) = rest.strip_prefix('$') {
            rest = variable.trim_start_matches(is_name);
            continue;
        }
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        let matchers = match after.strip_prefix('{') {
            Some(inside) => {
                let end = inside.find('}').unwrap_or(inside.len());
                rest = inside[end..].trim_start_matches('}');
                &inside[..end]
            }
            None => "",
        };
        let is_series = name == "up"
            || name == "ALERTS"
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if is_series && name != DEPLOYMENT {
            found.push((name.to_owned(), matchers.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_query_are_found_with_their_matchers() {
        let query = r#"sum by (gridwatch_deployment, le) (rate(gridwatch_a_total{code="x(y"}[5m]))
            / on (instance) up == 1 and gridwatch:b:rate5m offset 1h > 0 or vector(0)"#;
        let expected = [
            ("gridwatch_a_total", r#"code="x(y""#),
            ("up", ""),
            ("gridwatch:b:rate5m", ""),
        ];
        let expected = expected.map(|(name, matchers)| (name.to_owned(), matchers.to_owned()));
        assert_eq!(selectors(query), expected);
    }
}

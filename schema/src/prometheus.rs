//! A parser for the Prometheus text format, for programs that read the `/metrics` of a process.
//!
//! In: the text of a scrape, with or without the HTTP head in front of it. Out: [`Sample`]s, sums
//! over them, and [`Histogram`]s with their quantiles. A line that is not a valid sample is
//! skipped, as are comments: a metric that is absent is a sum of 0 and an empty histogram.

/// A text that does not select a metric.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a valid metric selector")]
pub struct InvalidSelector(String);

/// One sample of a scrape: a metric name, its labels and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric name. A histogram has samples named `…_bucket`, `…_sum` and `…_count`.
    pub name: String,
    /// Label names and values in the order of the text, without escapes.
    pub labels: Vec<(String, String)>,
    /// The value, which may be NaN or infinite.
    pub value: f64,
}

impl Sample {
    /// Parses one line: `name{label="value",…} value [timestamp]`. The timestamp is ignored.
    fn parse(line: &str) -> Option<Self> {
        let end = line.find(|c: char| !is_name_char(c))?;
        let (name, rest) = line.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => parse_labels(rest)?,
            None => (Vec::new(), rest),
        };
        let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            labels,
            value,
        })
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|(own, _)| own == name)?;
        Some(&label.1)
    }

    /// Whether the sample has this name and all of these labels. It may have further labels.
    pub fn matches(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        let has = |&(name, value): &(&str, &str)| self.label(name) == Some(value);
        self.name == name && labels.iter().all(has)
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The labels up to the closing brace, and the text after it.
fn parse_labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([' ', ',']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = parse_label_value(rest)?;
        labels.push((name.trim().to_owned(), value));
        text = rest;
    }
}

/// A label value up to the closing quote, with its escapes resolved, and the text after it.
fn parse_label_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            c => value.push(c),
        }
    }
    None
}

/// Parses the text of a scrape.
pub fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter_map(Sample::parse).collect()
}

/// The sum of all samples with this name and all of these labels; 0 if there is none.
pub fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let matching = samples.iter().filter(|sample| sample.matches(name, labels));
    // `Iterator::sum` over no values is -0.0, which is printed as "-0".
    matching.fold(0.0, |sum, sample| sum + sample.value)
}

/// The sum of all samples that match a selector: a name, or a name with labels as in
/// `a_total{code="x"}`. It is 0 if there is none.
///
/// # Errors
/// The selector is not valid.
pub fn sum_selected(samples: &[Sample], selector: &str) -> Result<f64, InvalidSelector> {
    // A selector is a sample without its value.
    let selected = Sample::parse(&format!("{selector} 0"))
        .ok_or_else(|| InvalidSelector(selector.to_owned()))?;
    let labels: Vec<(&str, &str)> = selected
        .labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    Ok(sum(samples, &selected.name, &labels))
}

/// A histogram: cumulative counts by upper bound, and the sum of the observations.
///
/// Bounds and sum have the unit of the metric, which is seconds for `…_seconds`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Upper bound and cumulative count of each bucket, by ascending bound; the last bound is
    /// infinite.
    pub buckets: Vec<(f64, f64)>,
    /// The sum of the observations.
    pub sum: f64,
}

impl Histogram {
    /// The histogram `name` of the samples with all of these labels. Several that match, such as
    /// those of several label values or processes, are added up.
    pub fn of(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Self {
        let mut histogram = Self {
            sum: sum(samples, &format!("{name}_sum"), labels),
            ..Self::default()
        };
        let name = format!("{name}_bucket");
        for sample in samples
            .iter()
            .filter(|sample| sample.matches(&name, labels))
        {
            if let Some(bound) = sample.label("le").and_then(|bound| bound.parse().ok()) {
                histogram.add_bucket(bound, sample.value);
            }
        }
        histogram
    }

    fn add_bucket(&mut self, bound: f64, count: f64) {
        let position = self.buckets.binary_search_by(|own| own.0.total_cmp(&bound));
        match position {
            Ok(at) => self.buckets[at].1 += count,
            Err(at) => self.buckets.insert(at, (bound, count)),
        }
    }

    /// Adds another histogram with the same bounds, such as the one of another process.
    pub fn add(&mut self, other: &Self) {
        for &(bound, count) in &other.buckets {
            self.add_bucket(bound, count);
        }
        self.sum += other.sum;
    }

    /// The observations since an earlier scrape of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for &(bound, count) in &earlier.buckets {
            difference.add_bucket(bound, -count);
        }
        difference.sum -= earlier.sum;
        difference
    }

    /// The number of observations.
    pub fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |last| last.1)
    }

    /// The mean of the observations; none if there is no observation.
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0.0).then(|| self.sum / self.count())
    }

    /// A quantile from 0 to 1, interpolated linearly within its bucket as Prometheus does; none if
    /// there is no observation. A quantile above the highest finite bound is that bound.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        if self.count() <= 0.0 {
            return None;
        }
        let rank = quantile * self.count();
        let (mut lower, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.buckets {
            if bound.is_infinite() {
                break;
            }
            if count >= rank && count > below {
                return Some(lower + (bound - lower) * (rank - below) / (count - below));
            }
            (lower, below) = (bound, count);
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"HTTP/1.1 200 OK
content-length: 5

# HELP a_total x
# TYPE a_total counter
a_total{code="x"} 3
a_total{code="y, {z}\"\\\n"} 4 1700000000
b 1.5e3
c_seconds_bucket{stage="s",le="0.001"} 50
c_seconds_bucket{stage="s",le="0.01"} 100
c_seconds_bucket{stage="s",le="+Inf"} 100
c_seconds_sum{stage="s"} 0.5
c_seconds_count{stage="s"} 100
broken{x="
1 2
"#;

    #[test]
    fn samples_are_parsed_and_everything_else_is_skipped() {
        let samples = parse(TEXT);
        assert_eq!(samples.len(), 8, "{samples:?}");
        assert_eq!(samples[1].label("code"), Some("y, {z}\"\\\n"));
        assert_eq!(sum(&samples, "a_total", &[]), 7.0);
        assert_eq!(sum(&samples, "a_total", &[("code", "x")]), 3.0);
        assert_eq!(sum(&samples, "b", &[]), 1_500.0);
        assert!(sum(&samples, "absent", &[]).is_sign_positive());
    }

    #[test]
    fn a_selector_is_a_name_with_or_without_labels() {
        let samples = parse(TEXT);
        for (selector, expected) in [
            ("a_total", 7.0),
            ("a_total{code=\"x\"}", 3.0),
            ("c_seconds_bucket{le=\"0.01\",stage=\"s\"}", 100.0),
            ("a_total{code=\"z\"}", 0.0),
            ("a", 0.0),
        ] {
            assert_eq!(sum_selected(&samples, selector).unwrap(), expected);
        }
        for invalid in ["", "a_total{code=", "a_total{code=\"x\"", "{code=\"x\"}"] {
            assert!(sum_selected(&samples, invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn quantiles_are_interpolated_and_an_empty_histogram_has_none() {
        let samples = parse(TEXT);
        let histogram = Histogram::of(&samples, "c_seconds", &[("stage", "s")]);
        assert_eq!((histogram.count(), histogram.mean()), (100.0, Some(0.005)));
        assert_eq!(histogram.quantile(0.5), Some(0.001));
        assert!((histogram.quantile(0.99).unwrap() - 0.00982).abs() < 1e-9);
        let empty = histogram.since(&histogram);
        assert_eq!((empty.mean(), empty.quantile(0.5)), (None, None));
        let mut doubled = histogram.clone();
        doubled.add(&histogram);
        assert_eq!(doubled.since(&histogram), histogram);
        let slow = parse("d_bucket{le=\"1\"} 0\nd_bucket{le=\"+Inf\"} 2\n");
        assert_eq!(Histogram::of(&slow, "d", &[]).quantile(0.5), Some(1.0));
    }
}

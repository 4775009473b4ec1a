//! What became of the rows.

use std::collections::BTreeMap;

use anyhow::ensure;
use schema::Rejection;
use serde_json::Value;
use service::quote::quote;

use super::source::{Place, Row};
use crate::config::Import;

/// Upper bound on the rejected rows that are listed.
const MAX_LISTED: usize = 20;

/// The outcome of the rows. The counts of the codes and `unlisted` add up to `rejected`.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    codes: BTreeMap<String, u64>,
    /// Rejected rows for which the front end gave no reason, because a response lists only so many.
    unlisted: u64,
    /// Whether the front end rejected a time that is a number.
    has_bad_number: bool,
    /// Place and text of the rejected rows that are listed.
    listed: Vec<(Option<Place>, String)>,
}

impl Summary {
    /// Number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.accepted + self.rejected
    }

    /// Adds a rejected row.
    pub(super) fn reject(&mut self, place: Option<Place>, code: &str, detail: &str) {
        self.rejected += 1;
        *self.codes.entry(code.to_owned()).or_default() += 1;
        if self.listed.len() < MAX_LISTED {
            let text = match &place {
                Some(place) => format!("{place}: {code}: {detail}"),
                None => format!("{code}: {detail}"),
            };
            self.listed.push((place, text));
        }
    }

    /// Adds the outcome of a request, from the JSON of its response.
    ///
    /// # Errors
    /// The response is not about these rows.
    pub(super) fn add(&mut self, response: &Value, rows: &[Row]) -> anyhow::Result<()> {
        let count = |name: &str| response[name].as_u64().unwrap_or_default();
        let (accepted, rejected) = (count("accepted"), count("rejected"));
        let empty = Vec::new();
        let errors = response["errors"].as_array().unwrap_or(&empty);
        ensure!(
            accepted.checked_add(rejected) == Some(rows.len() as u64)
                && errors.len() as u64 <= rejected,
            "the front end counted {accepted} accepted and {rejected} rejected readings \
             of {} that were sent",
            rows.len()
        );
        self.accepted += accepted;
        for error in errors {
            let index = error["index"].as_u64();
            let row = index.and_then(|index| rows.get(usize::try_from(index).ok()?));
            let place = row.map(|row| row.place.clone());
            let code = error["code"].as_str().unwrap_or("unknown");
            let is_about_time = [Rejection::BadTimestamp, Rejection::MeasuredInFuture]
                .iter()
                .any(|rejection| rejection.code() == code);
            let is_number = row.is_some_and(|row| row.has_numeric_time);
            self.has_bad_number |= is_about_time && is_number;
            self.reject(place, code, error["detail"].as_str().unwrap_or_default());
        }
        let unlisted = rejected - errors.len() as u64;
        self.rejected += unlisted;
        self.unlisted += unlisted;
        Ok(())
    }

    /// The counts, the reasons and the first rejected rows.
    pub(super) fn text(&self, arguments: &Import) -> String {
        let mut lines = vec![format!(
            "{} accepted, {} rejected",
            self.accepted, self.rejected
        )];
        for (code, count) in &self.codes {
            lines.push(format!("  {code}: {count}"));
        }
        if self.unlisted > 0 {
            let unlisted = self.unlisted;
            lines.push(format!(
                "  reason not listed by the front end: {unlisted} \
                 (a smaller --batch lists more reasons)"
            ));
        }
        let mut listed = self.listed.clone();
        listed.sort();
        lines.extend(listed.iter().map(|(_, text)| format!("  {text}")));
        let more = self.rejected - self.listed.len() as u64;
        if more > 0 && !self.listed.is_empty() {
            lines.push(format!("  … and {more} more rows"));
        }
        lines.extend(self.advice(arguments));
        lines.join("\n")
    }

    /// What to do about codes that one command or flag resolves.
    fn advice(&self, arguments: &Import) -> Vec<String> {
        let has = |rejection: Rejection| self.codes.contains_key(rejection.code());
        let mut advice = Vec::new();
        if has(Rejection::UnknownDevice) || has(Rejection::UnknownMetric) {
            let named = |name: &Option<String>, what: &str| match name {
                Some(name) => quote(name),
                None => what.to_owned(),
            };
            let device = named(&arguments.device, "DEVICE");
            let metric = named(&arguments.metric, "METRIC");
            advice.push(format!(
                "register the series first: gridwatch devices add {device} --metric {metric}"
            ));
        }
        if self.has_bad_number {
            advice.push(format!(
                "times that are numbers were sent with --precision {}; \
                 choose the unit of the file: s, ms, us or ns",
                super::precision(arguments)
            ));
        }
        advice
    }
}

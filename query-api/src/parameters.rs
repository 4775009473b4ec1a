//! The parameters of a query string, read one by one, so that each error names its parameter.
//!
//! In: a query string. Out: values, or [`ApiError::BadQuery`] with a sentence. A parameter that
//! no handler reads is unknown, and an error.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use service::ApiError;
use service::openapi::{Declared, Place};
use store::reads::points::{Order, TimeRange};
use uuid::Uuid;

use crate::time;

/// The parameters that have not been read yet.
pub(crate) struct Parameters<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    known: Vec<&'static str>,
    declared: Declared,
}

impl<'a> Parameters<'a> {
    /// Parses a query string. `declared` are the parameters in the description of the operation.
    pub(crate) fn new(query: Option<&'a str>, declared: Declared) -> Self {
        let query = query.unwrap_or_default().as_bytes();
        Self {
            pairs: form_urlencoded::parse(query).map(without_nul).collect(),
            known: Vec::new(),
            declared,
        }
    }

    /// Every value of a parameter, which may be repeated.
    pub(crate) fn all(&mut self, name: &'static str) -> Vec<String> {
        debug_assert!(
            self.declared
                .iter()
                .copied()
                .flatten()
                .any(|own| { own.name == name && own.place == Place::Query }),
            "{name} is not in the description of the operation"
        );
        self.known.push(name);
        let mut values = Vec::new();
        self.pairs.retain(|(own, value)| {
            let found = own == name;
            if found {
                values.push(value.clone().into_owned());
            }
            !found
        });
        values
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// It is given twice.
    pub(crate) fn one(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        let mut values = self.all(name);
        if values.len() > 1 {
            let count = values.len();
            return Err(bad(format!("{name} is given {count} times; give it once")));
        }
        Ok(values.pop())
    }

    /// The value of a parameter, parsed.
    ///
    /// # Errors
    /// It is given twice, or the sentence of `parse`.
    pub(crate) fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ApiError> {
        let value = self.one(name)?;
        value.map(|text| parse(&text).map_err(bad)).transpose()
    }

    /// A whole number from 1 to a bound.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn count(
        &mut self,
        name: &'static str,
        max: usize,
    ) -> Result<Option<usize>, ApiError> {
        self.parsed(name, |text| {
            let count = text.parse().ok().filter(|count| (1..=max).contains(count));
            count.ok_or_else(|| format!("{name}: '{text}' is not a whole number from 1 to {max}"))
        })
    }

    /// `order`: `asc` (the default) or `desc`.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn order(&mut self) -> Result<Order, ApiError> {
        let order = self.parsed("order", |text| match text {
            "asc" => Ok(Order::OldestFirst),
            "desc" => Ok(Order::NewestFirst),
            _ => Err(format!("order: '{text}' is not an order: use asc or desc")),
        });
        Ok(order?.unwrap_or_default())
    }

    /// `from` and `to`, both required.
    ///
    /// # Errors
    /// One is missing or not a time, or the range is empty.
    pub(crate) fn range(&mut self, zone: &TimeZone) -> Result<TimeRange, ApiError> {
        let mut required = |name: &'static str| {
            let value = self.parsed(name, |text| time::parse(name, text, zone))?;
            value.ok_or_else(|| {
                bad(format!(
                    "{name} is missing: a range of time needs from and to, for example \
                     from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z"
                ))
            })
        };
        let range = TimeRange {
            from: required("from")?,
            to: required("to")?,
        };
        if range.is_empty() {
            return Err(bad("the range is empty: to must be after from".into()));
        }
        Ok(range)
    }

    /// `time_zone`: an IANA name; UTC by default.
    ///
    /// # Errors
    /// There is no such time zone.
    pub(crate) fn zone(&mut self) -> Result<TimeZone, ApiError> {
        let zone = self.parsed("time_zone", time::zone)?;
        Ok(zone.unwrap_or(TimeZone::UTC))
    }

    /// A UUID.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn uuid(&mut self, name: &'static str) -> Result<Option<Uuid>, ApiError> {
        self.parsed(name, |text| {
            let parsed = text.parse();
            parsed.map_err(|_| format!("{name}: '{text}' is not an id of a component: use a UUID"))
        })
    }

    /// Ends reading.
    ///
    /// # Errors
    /// A parameter that was not read.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) if self.known.is_empty() => Err(bad(format!(
                "'{name}' is not a parameter of this operation; it has none"
            ))),
            Some((name, _)) => Err(bad(format!(
                "'{name}' is not a parameter of this path; it has {}",
                self.known.join(", ")
            ))),
        }
    }
}

/// A bad query with this sentence.
/// Why a value of `next` is refused.
pub(crate) fn not_a_position(text: &str) -> String {
    format!("next: '{text}' is not a position; use the value of next from the last response")
}

pub(crate) fn bad(sentence: String) -> ApiError {
    ApiError::BadQuery(sentence)
}

/// PostgreSQL has no text with U+0000, so that no name has one: it is replaced, and nothing is
/// found.
fn without_nul<'a>((name, value): (Cow<'a, str>, Cow<'a, str>)) -> (Cow<'a, str>, Cow<'a, str>) {
    if value.contains('\0') {
        return (name, value.replace('\0', "\u{fffd}").into());
    }
    (name, value)
}

//! The query string of a request.
//!
//! In: a URI. Out: the parameters, or an error with the parameter at fault and what it accepts.

use axum::extract::Query;
use axum::http::Uri;
use serde::Deserialize;
use service::ApiError;
use service::quote::quote;

use crate::timestamp::Precision;

pub(crate) const PRECISIONS: [&str; 4] = ["s", "ms", "us", "ns"];

/// The parameters of a request.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Unit of numeric times.
    #[serde(default)]
    pub precision: Precision,
    /// Whether a bad reading rejects the whole request.
    #[serde(default)]
    pub atomic: bool,
}

impl Parameters {
    /// The parameters of a URI.
    ///
    /// # Errors
    /// [`ApiError::BadQuery`].
    pub(crate) fn from_uri(uri: &Uri) -> Result<Self, ApiError> {
        match Query::try_from_uri(uri) {
            Ok(Query(parameters)) => Ok(parameters),
            Err(_) => Err(ApiError::BadQuery(explain(uri))),
        }
    }
}

/// What is wrong with a query string, and what to send instead.
fn explain(uri: &Uri) -> String {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let pairs = pairs.map(|Query(pairs)| pairs).unwrap_or_default();
    for (index, (name, value)) in pairs.iter().enumerate() {
        let is_repeated = pairs[..index].iter().any(|(earlier, _)| earlier == name);
        match name.as_str() {
            "precision" | "atomic" if is_repeated => {
                return format!("the query has '{name}' more than once; send it once");
            }
            "precision" if !PRECISIONS.contains(&value.as_str()) => {
                let value = quote(value);
                return format!("precision in the query is {value}; it must be s, ms, us or ns");
            }
            "atomic" if !matches!(value.as_str(), "true" | "false") => {
                let value = quote(value);
                return format!("atomic in the query is {value}; it must be true or false");
            }
            "precision" | "atomic" => {}
            unknown => {
                let unknown = quote(unknown);
                return format!(
                    "the query has the unknown parameter {unknown}; the parameters are precision \
                     (s, ms, us or ns) and atomic (true or false)"
                );
            }
        }
    }
    "the query cannot be read; the parameters are precision (s, ms, us or ns) and atomic (true or \
     false)"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<(Precision, bool), ApiError> {
        let uri = format!("/v1/readings{query}").parse().unwrap();
        Parameters::from_uri(&uri).map(|parameters| (parameters.precision, parameters.atomic))
    }

    #[test]
    fn the_description_of_the_operation_has_the_parameters_that_are_read() {
        let declared = crate::openapi::PARAMETERS.iter().copied().flatten();
        let names: Vec<&str> = declared
            .filter(|own| own.place == service::openapi::Place::Query)
            .map(|own| own.name)
            .collect();
        // A field that is not named here does not compile.
        let Parameters {
            precision: _,
            atomic: _,
        } = Parameters::default();
        assert_eq!(names, ["precision", "atomic"]);
        for (name, value) in [("precision", "ns"), ("atomic", "true")] {
            parse(&format!("?{name}={value}")).unwrap();
        }
    }

    #[test]
    fn the_query_selects_precision_and_atomicity() {
        for (query, precision, atomic) in [
            ("", Precision::S, false),
            ("?", Precision::S, false),
            ("?precision=s", Precision::S, false),
            ("?precision=ms&atomic=true", Precision::Ms, true),
            ("?atomic=false&precision=us", Precision::Us, false),
            ("?precision=%6es", Precision::Ns, false),
        ] {
            assert_eq!(parse(query), Ok((precision, atomic)), "{query}");
        }
    }

    #[test]
    fn a_bad_query_is_explained_with_the_parameter_its_value_and_what_it_accepts() {
        let long = format!("?precision={}", "x".repeat(1_000));
        let parameters = "the parameters are precision (s, ms, us or ns) and atomic";
        for (query, parts) in [
            ("?precision=h", ["precision", "'h'", "s, ms, us or ns"]),
            ("?precision=", ["precision", "''", "s, ms, us or ns"]),
            ("?precision", ["precision", "''", "s, ms, us or ns"]),
            ("?precision=MS", ["precision", "'MS'", "s, ms, us or ns"]),
            ("?atomic=1", ["atomic", "'1'", "true or false"]),
            ("?atomic=True&precision=s", ["atomic", "'True'", "true or"]),
            ("?unit=W", ["unknown parameter", "'unit'", parameters]),
            ("?presicion=s", ["unknown", "'presicion'", parameters]),
            ("?=5", ["unknown parameter", "''", parameters]),
            ("?precision=s&precision=ms", ["'precision'", "once", "once"]),
            (&long, ["precision", "xxx…'", "s, ms, us or ns"]),
        ] {
            let Err(ApiError::BadQuery(detail)) = parse(query) else {
                panic!("{query} is accepted")
            };
            for part in parts {
                assert!(detail.contains(part), "{query}: {detail}");
            }
            assert!(!detail.contains("deserialize"), "{query}: {detail}");
            assert!(detail.len() < 200, "{query}: {detail}");
        }
    }
}

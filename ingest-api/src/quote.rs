//! Values of a request in messages for people.

use crate::format::shorten;

/// A value in single quotes, shortened.
pub(crate) fn quote(value: &str) -> String {
    format!("'{}'", shorten(value))
}

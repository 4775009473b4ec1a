//! Values of settings: counts, sizes, times and addresses.
//!
//! In: the text of a flag, a variable or a key of the file. Out: a value within its range, or a
//! sentence that states the range.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;

/// Factors of the units of sizes. As in the tools of GNU, a single letter is a power of 1,024.
const UNITS: [(&str, u64); 11] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
];

/// A whole number within a range.
pub(super) fn count<T: FromStr + PartialOrd + fmt::Display>(
    text: &str,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let (least, greatest) = range.into_inner();
        format!("expected a whole number from {least} to {greatest}")
    })
}

/// A number of bytes within a range, such as `16777216`, `16MiB`, `1GB` or `64k`.
pub(super) fn size<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Result<T, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = unit.trim_start().to_ascii_lowercase();
    let bytes = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, factor)| number.parse::<u64>().ok()?.checked_mul(*factor))
        .filter(|bytes| range.contains(bytes))
        .and_then(|bytes| T::try_from(bytes).ok());
    bytes.ok_or_else(|| {
        let (least, greatest) = (size_to_text(*range.start()), size_to_text(*range.end()));
        format!(
            "expected a size from {least} to {greatest}: a number of bytes, or a number with \
             a unit such as 64k, 16MiB or 1GB"
        )
    })
}

/// A size in the largest unit that gives a whole number.
fn size_to_text(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units
        .iter()
        .find(|(_, bits)| bytes != 0 && bytes.is_multiple_of(1 << bits));
    match unit {
        Some((name, bits)) => format!("{}{name}", bytes >> bits),
        None => bytes.to_string(),
    }
}

/// A time within a range, such as `500ms`, `10s`, `5m` or `90d`.
pub(super) fn time(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| range.contains(time)).ok_or_else(|| {
        let (least, greatest) = range.into_inner();
        format!(
            "expected a time from {} to {}, such as 500ms, 10s, 5m or 90d",
            humantime::format_duration(least),
            humantime::format_duration(greatest)
        )
    })
}

/// A time zone by its IANA name.
pub(super) fn time_zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| {
        "expected the IANA name of a zone, such as UTC or \
                                     Europe/Berlin"
            .into()
    })
}

/// `HOST:PORT`: an address or a name, which is resolved when it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address(String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |host: &str| {
            let allowed = |c: char| c.is_alphanumeric() || "-._".contains(c);
            !host.is_empty() && host.chars().all(allowed)
        };
        let is_valid = text.parse::<SocketAddr>().is_ok()
            || text
                .rsplit_once(':')
                .is_some_and(|(host, port)| is_name(host) && port.parse::<u16>().is_ok());
        if is_valid {
            return Ok(Self(text.to_owned()));
        }
        Err(
            "expected HOST:PORT, such as 127.0.0.1:8080, localhost:8080 or [::1]:8080; \
             0.0.0.0:8080 is every interface"
                .into(),
        )
    }
}

impl Address {
    /// The socket address: that of IPv4 if the name has one, as `localhost` does.
    ///
    /// # Errors
    /// A sentence: the name cannot be resolved.
    pub(crate) async fn resolve(&self) -> Result<SocketAddr, String> {
        let unknown = || "the name cannot be resolved; check it, or give an IP address".to_owned();
        let found = tokio::net::lookup_host(&self.0)
            .await
            .map_err(|_| unknown())?;
        // IPv4 first.
        found.min_by_key(SocketAddr::is_ipv6).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_of_bytes_or_has_a_unit() {
        for (text, expected) in [
            ("1", 1),
            ("16777216", 16 << 20),
            ("16MiB", 16 << 20),
            ("16 MiB", 16 << 20),
            ("16m", 16 << 20),
            ("64k", 64 << 10),
            ("64kB", 64_000),
            ("1GB", 1_000_000_000),
            ("1G", 1 << 30),
            ("10b", 10),
        ] {
            assert_eq!(size(text, 1..=1 << 30), Ok(expected), "{text}");
        }
        for text in [
            "",
            "0",
            "0MiB",
            "-1",
            "MiB",
            "1.5GB",
            "2GiB",
            "1XB",
            "1 0",
            "99999999999999999999",
            "99999999999GiB",
        ] {
            let error = size::<u64>(text, 1..=1 << 30).unwrap_err();
            assert!(
                error.contains("from 1 to 1GiB"),
                "{text:?} is refused with {error:?}"
            );
        }
        // As large as the type, and no larger.
        assert_eq!(size("255", 1..=1 << 30), Ok(255_u8));
        size::<u8>("256", 1..=1 << 30).unwrap_err();
    }

    #[test]
    fn counts_and_times_outside_of_their_range_are_refused_with_the_range() {
        assert_eq!(count("1", 1..=9), Ok(1_u16));
        assert_eq!(count("9", 1..=9), Ok(9_u16));
        for text in ["0", "10", "-1", "1.0", "", "many", "99999999999999999999"] {
            let error = count(text, 1..=9_u16).unwrap_err();
            assert_eq!(error, "expected a whole number from 1 to 9", "{text:?}");
        }
        let range = || Duration::from_millis(1)..=Duration::from_secs(3_600);
        assert_eq!(time("10s", range()), Ok(Duration::from_secs(10)));
        for text in ["0s", "0", "2h", "10", "", "soon", "-1s"] {
            let error = time(text, range()).unwrap_err();
            assert!(error.contains("a time from 1ms to 1h"), "{text:?}: {error}");
        }
    }

    #[tokio::test]
    async fn an_address_is_an_ip_address_or_a_name_with_a_port() {
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("[::1]:0", "[::1]:0"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.resolve().await.unwrap().to_string(), expected);
        }
        for text in [
            "",
            "here",
            "8080",
            ":8080",
            "::1:8080",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "http://localhost:8080",
            "local host:8080",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains("expected HOST:PORT"), "{text:?}: {error}");
        }
        let address: Address = "no-such-host.invalid:80".parse().unwrap();
        let error = address.resolve().await.unwrap_err();
        assert!(error.contains("cannot be resolved"), "{error}");
    }
}

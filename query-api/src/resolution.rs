//! Resolutions: the lengths of buckets.
//!
//! Seconds, minutes and hours are fixed lengths from 1970 on, in UTC. Days and months are those of
//! a time zone: a local day may have 23 or 25 hours.

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use schema::partition::DAY;
use schema::reading::Micros;
use store::reads::points::TimeRange;

const SECOND: Micros = 1_000_000;

/// The length of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// This many microseconds, counted from 1970.
    Fixed(Micros),
    /// This many local days, counted from 1970-01-01.
    Days(i32),
    /// This many local months, counted from January of year 0.
    Months(i32),
}

/// What `max_points` chooses from, the finest first.
const LADDER: [Resolution; 15] = [
    Resolution::Fixed(SECOND),
    Resolution::Fixed(5 * SECOND),
    Resolution::Fixed(10 * SECOND),
    Resolution::Fixed(30 * SECOND),
    Resolution::Fixed(60 * SECOND),
    Resolution::Fixed(5 * 60 * SECOND),
    Resolution::Fixed(15 * 60 * SECOND),
    Resolution::Fixed(30 * 60 * SECOND),
    Resolution::Fixed(3_600 * SECOND),
    Resolution::Fixed(3 * 3_600 * SECOND),
    Resolution::Fixed(6 * 3_600 * SECOND),
    Resolution::Fixed(12 * 3_600 * SECOND),
    Resolution::Days(1),
    Resolution::Days(7),
    Resolution::Months(1),
];

impl Resolution {
    /// Parses `15m`, `1h`, `1d` or `1mo`.
    ///
    /// # Errors
    /// A sentence with the value and what is expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let resolution = count.parse::<i32>().ok().filter(|&count| count > 0);
        let fixed = |count: i32, length| Some(Self::Fixed(Micros::from(count) * length));
        let resolution = resolution.and_then(|count| match unit {
            "s" => fixed(count, SECOND),
            "m" => fixed(count, 60 * SECOND),
            "h" => fixed(count, 3_600 * SECOND),
            "d" => (count <= 36_500).then_some(Self::Days(count)),
            "mo" => (count <= 1_200).then_some(Self::Months(count)),
            _ => None,
        });
        resolution.ok_or_else(|| {
            format!(
                "resolution: '{text}' is not a resolution: use raw, or a number with s, m, h, d \
                 or mo, such as 15m"
            )
        })
    }

    /// The finest resolution with at most this many buckets in a range.
    pub(crate) fn for_points(range: TimeRange, max_points: usize) -> Self {
        let fits = |resolution: &&Self| resolution.buckets(range) <= max_points as u64;
        *LADDER
            .iter()
            .find(fits)
            .unwrap_or(&LADDER[LADDER.len() - 1])
    }

    /// An upper bound on the number of buckets in a range.
    pub(crate) fn buckets(self, range: TimeRange) -> u64 {
        let length = range.to.saturating_sub(range.from).max(0).unsigned_abs();
        let shortest = match self {
            Self::Fixed(length) => length,
            Self::Days(days) => Micros::from(days) * DAY - DAY / 8,
            Self::Months(months) => Micros::from(months) * 28 * DAY - DAY / 8,
        };
        length.div_ceil(shortest.unsigned_abs().max(1))
    }

    /// The bucket that contains an instant.
    pub(crate) fn bucket(self, time: Micros, zone: &TimeZone) -> TimeRange {
        match self {
            Self::Fixed(length) => {
                let from = time.div_euclid(length) * length;
                TimeRange {
                    from,
                    to: from + length,
                }
            }
            Self::Days(days) => {
                let epoch = date(1970, 1, 1);
                let day = local_date(time, zone);
                let since = epoch.until(day).map_or(0, |span| span.get_days());
                let first = epoch.saturating_add((since.div_euclid(days) * days).days());
                let next = first.checked_add(days.days()).ok();
                TimeRange {
                    from: start_of(first, zone),
                    to: next.map_or(Micros::MAX, |next| start_of(next, zone)),
                }
            }
            Self::Months(months) => {
                let day = local_date(time, zone);
                let since = i32::from(day.year()) * 12 + i32::from(day.month()) - 1;
                let first = since.div_euclid(months) * months;
                let start = |months| {
                    first_of_month(months).map_or(Micros::MAX, |first| start_of(first, zone))
                };
                TimeRange {
                    from: start(first),
                    to: start(first + months),
                }
            }
        }
    }
}

/// The date of an instant in a zone. The calendar ends on 9999-12-30 at 22:00 in UTC, and all later
/// times have its last date.
pub(crate) fn local_date(time: Micros, zone: &TimeZone) -> Date {
    let instant = Timestamp::from_microsecond(time).unwrap_or(Timestamp::MAX);
    zone.to_datetime(instant).date()
}

/// The first instant of a local day: where midnight is skipped, the instant after the gap. Days and
/// months begin in the calendar, which ends with the year 9999, and the last ones never end.
pub(crate) fn start_of(date: Date, zone: &TimeZone) -> Micros {
    let start = date.to_zoned(zone.clone());
    start.map_or(Micros::MAX, |start| start.timestamp().as_microsecond())
}

/// The first day of a month, counted from January of year 0. `None`: it is not in the calendar.
fn first_of_month(months: i32) -> Option<Date> {
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> Micros {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn local_days_are_those_of_the_zone_also_when_clocks_change() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        for (inside, from, to, hours) in [
            (
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
                23,
            ),
            (
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
                25,
            ),
            (
                "2026-07-01T00:00:00Z",
                "2026-06-30T22:00:00Z",
                "2026-07-01T22:00:00Z",
                24,
            ),
        ] {
            let bucket = Resolution::Days(1).bucket(micros(inside), &zone);
            assert_eq!(
                (bucket.from, bucket.to),
                (micros(from), micros(to)),
                "{inside}"
            );
            assert_eq!(bucket.to - bucket.from, hours * 3_600 * SECOND);
        }
        let month = Resolution::Months(1).bucket(micros("2026-02-15T00:00:00Z"), &zone);
        assert_eq!(month.from, micros("2026-01-31T23:00:00Z"));
        assert_eq!(month.to, micros("2026-02-28T23:00:00Z"));
    }

    #[test]
    fn buckets_of_each_resolution_follow_each_other_without_gaps() {
        let zone = TimeZone::get("America/Sao_Paulo").unwrap();
        for text in ["7s", "15m", "1h", "1d", "3d", "1mo", "5mo"] {
            let resolution = Resolution::parse(text).unwrap();
            let mut bucket = resolution.bucket(micros("2017-09-01T00:00:00Z"), &zone);
            for _ in 0..500 {
                let next = resolution.bucket(bucket.to, &zone);
                assert_eq!(next.from, bucket.to, "{text}");
                assert!(next.to > next.from, "{text}");
                assert_eq!(resolution.bucket(next.to - 1, &zone), next, "{text}");
                bucket = next;
            }
        }
    }

    #[test]
    fn the_last_buckets_of_the_calendar_end_after_it() {
        let last = Timestamp::MAX.as_microsecond();
        for zone in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
            let zone = TimeZone::get(zone).unwrap();
            for text in ["7s", "1h", "1d", "400d", "1mo", "1200mo"] {
                let resolution = Resolution::parse(text).unwrap();
                for time in [last - 40 * DAY, last - DAY, last - DAY / 4, last] {
                    let bucket = resolution.bucket(time, &zone);
                    assert!(bucket.contains(time), "{text} at {time}: {bucket:?}");
                }
            }
        }
    }

    #[test]
    fn odd_resolutions_are_refused_with_an_example() {
        for text in [
            "",
            "15",
            "m",
            "0m",
            "-1m",
            "1y",
            "99999999999d",
            "1.5h",
            "1 m",
        ] {
            let error = Resolution::parse(text).unwrap_err();
            assert!(error.contains("such as 15m"), "{error}");
        }
    }

    #[test]
    fn the_resolution_for_a_number_of_points_is_the_finest_that_fits() {
        let day = TimeRange { from: 0, to: DAY };
        assert_eq!(
            Resolution::for_points(day, 100),
            Resolution::Fixed(15 * 60 * SECOND)
        );
        assert_eq!(
            Resolution::for_points(day, 96),
            Resolution::Fixed(15 * 60 * SECOND)
        );
        assert_eq!(
            Resolution::for_points(day, 95),
            Resolution::Fixed(30 * 60 * SECOND)
        );
        let century = TimeRange {
            from: 0,
            to: 36_500 * DAY,
        };
        assert_eq!(Resolution::for_points(century, 1), Resolution::Months(1));
    }
}

//! Comparing a period with an earlier one.
//!
//! In: `compare`, a length of time. Out: the earlier period, and which buckets of the two belong
//! together. Days and months are those of the calendar of a time zone, so that local days are
//! compared with local days, also when clocks change between them.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan as _};
use schema::reading::{MIN_MEASURED_AT, Micros};
use store::reads::points::TimeRange;

use crate::aggregate::Bucketing;
use crate::resolution::Resolution;

/// How much earlier the other period is.
#[derive(Debug, Clone)]
pub(crate) struct Shift {
    length: Resolution,
    zone: TimeZone,
}

impl Shift {
    /// Parses a number with `s`, `m`, `h`, `d` or `mo`.
    ///
    /// # Errors
    /// A sentence with the value and what is expected.
    pub(crate) fn parse(text: &str, zone: &TimeZone) -> Result<Self, String> {
        let length = Resolution::parse(text).map_err(|_| {
            format!(
                "compare: '{text}' is not a length of time: use a number with s, m, h, d or mo, \
                 such as 7d or 12mo"
            )
        })?;
        let zone = zone.clone();
        Ok(Self { length, zone })
    }

    /// The earlier period of a range.
    ///
    /// # Errors
    /// A sentence: the buckets of the periods would not belong together, or there is no such
    /// period.
    pub(crate) fn earlier_range(
        &self,
        range: TimeRange,
        resolution: Resolution,
    ) -> Result<TimeRange, String> {
        let is_multiple = match (self.length, resolution) {
            (Resolution::Fixed(length), Resolution::Fixed(own)) => length % own == 0,
            (Resolution::Days(length), Resolution::Days(own))
            | (Resolution::Months(length), Resolution::Months(own)) => length % own == 0,
            (Resolution::Fixed(_), _) => false,
            _ => true,
        };
        if !is_multiple {
            return Err(
                "compare: the length is not a multiple of the resolution, so that the \
                        buckets of the periods would not begin alike"
                    .into(),
            );
        }
        let earlier = self.earlier(range.from).zip(self.earlier(range.to));
        let earlier = earlier.map(|(from, to)| TimeRange { from, to });
        let earlier = earlier.filter(|own| own.from >= MIN_MEASURED_AT);
        let sentence = || "compare: the earlier period is before year 1".to_owned();
        let earlier = earlier.ok_or_else(sentence)?;
        if earlier.is_empty() {
            let sentence = "compare: the earlier period is empty, because its month is shorter";
            return Err(sentence.into());
        }
        Ok(earlier)
    }

    /// The start of the bucket of a range that a bucket of the earlier period is compared with: the
    /// one at the same local time. `None`: there is no such bucket, because its day or hour does
    /// not exist, or exists twice in the earlier period.
    pub(crate) fn beside(
        &self,
        bucketing: &Bucketing,
        bucket: TimeRange,
        range: TimeRange,
    ) -> Option<Micros> {
        let later = self.later(middle(bucket))?;
        if !range.contains(later) {
            return None;
        }
        let other = bucketing.clipped(later, range);
        // Each has at most one partner: the way back leads to the same bucket.
        let back = self.earlier(middle(other))?;
        bucket.contains(back).then_some(other.from)
    }

    fn earlier(&self, time: Micros) -> Option<Micros> {
        self.add(time, -1)
    }

    fn later(&self, time: Micros) -> Option<Micros> {
        self.add(time, 1)
    }

    fn add(&self, time: Micros, sign: i32) -> Option<Micros> {
        let span: Span = match self.length {
            Resolution::Fixed(length) => return time.checked_add(length * i64::from(sign)),
            Resolution::Days(days) => (sign * days).days(),
            Resolution::Months(months) => (sign * months).months(),
        };
        let instant = Timestamp::from_microsecond(time).ok()?;
        let local = instant.to_zoned(self.zone.clone());
        Some(local.checked_add(span).ok()?.timestamp().as_microsecond())
    }
}

fn middle(range: TimeRange) -> Micros {
    range.from + (range.to - range.from) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Fill;

    fn micros(text: &str) -> Micros {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    /// The buckets of the earlier period of a range, each with its partner.
    fn partners(compare: &str, resolution: &str, from: &str, to: &str) -> Vec<[String; 2]> {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let shift = Shift::parse(compare, &zone).unwrap();
        let bucketing = Bucketing {
            resolution: Resolution::parse(resolution).unwrap(),
            zone: zone.clone(),
            aggregates: Vec::new(),
            fill: Fill::None,
            max_gap: None,
        };
        let range = TimeRange {
            from: micros(from),
            to: micros(to),
        };
        let earlier = shift.earlier_range(range, bucketing.resolution).unwrap();
        let (mut time, mut found) = (earlier.from, Vec::new());
        let local = |time: Micros| {
            let instant = Timestamp::from_microsecond(time).unwrap();
            let local = instant.to_zoned(zone.clone());
            local.strftime("%m-%d %H:%M%:::z").to_string()
        };
        while time < earlier.to {
            let bucket = bucketing.clipped(time, earlier);
            let beside = shift.beside(&bucketing, bucket, range);
            found.push([local(time), beside.map(local).unwrap_or_default()]);
            time = bucket.to;
        }
        found
    }

    fn without_partner(partners: &[[String; 2]]) -> Vec<&str> {
        let alone = partners.iter().filter(|[_, other]| other.is_empty());
        alone.map(|[own, _]| own.as_str()).collect()
    }

    #[test]
    fn local_days_are_compared_with_local_days_across_a_clock_change() {
        // The last Sunday of October has 25 hours.
        let found = partners("7d", "1d", "2026-10-25T23:00:00Z", "2026-11-01T23:00:00Z");
        let expected = [
            ["10-19 00:00+02", "10-26 00:00+01"],
            ["10-20 00:00+02", "10-27 00:00+01"],
            ["10-21 00:00+02", "10-28 00:00+01"],
            ["10-22 00:00+02", "10-29 00:00+01"],
            ["10-23 00:00+02", "10-30 00:00+01"],
            ["10-24 00:00+02", "10-31 00:00+01"],
            ["10-25 00:00+02", "11-01 00:00+01"],
        ];
        assert_eq!(found, expected);
        let found = partners("1d", "1d", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        assert_eq!(found, [["10-24 00:00+02", "10-25 00:00+02"]]);
    }

    #[test]
    fn hours_are_compared_at_the_same_local_time() {
        // The day before has the hour from 2 o'clock once, this day has it twice.
        let found = partners("1d", "1h", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        assert_eq!(found.len(), 24);
        assert_eq!(found[2], ["10-24 02:00+02", "10-25 02:00+02"]);
        assert_eq!(found[3], ["10-24 03:00+02", "10-25 03:00+01"]);
        assert!(without_partner(&found).is_empty());
        // The other way round, the second of the two hours has no partner.
        let found = partners("1d", "1h", "2026-10-25T23:00:00Z", "2026-10-26T23:00:00Z");
        assert_eq!(found.len(), 25);
        assert_eq!(without_partner(&found), ["10-25 02:00+01"]);
        // The hour from 2 o'clock is skipped.
        let found = partners("1d", "1h", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        assert_eq!(without_partner(&found), ["03-28 02:00+01"]);
    }

    #[test]
    fn months_have_days_without_a_partner() {
        let found = partners("1mo", "1d", "2026-01-31T23:00:00Z", "2026-02-28T23:00:00Z");
        let expected = ["01-29 00:00+01", "01-30 00:00+01", "01-31 00:00+01"];
        assert_eq!(without_partner(&found), expected);
        let found = partners(
            "12mo",
            "1mo",
            "2026-01-31T23:00:00Z",
            "2026-02-28T23:00:00Z",
        );
        assert_eq!(found, [["02-01 00:00+01", "02-01 00:00+01"]]);
    }

    #[test]
    fn periods_that_cannot_be_compared_are_refused() {
        let shift = |text| Shift::parse(text, &TimeZone::UTC).unwrap();
        let range = |from, to| TimeRange {
            from: micros(from),
            to: micros(to),
        };
        let day = range("2026-03-30T00:00:00Z", "2026-03-31T00:00:00Z");
        for (compare, range, resolution, text) in [
            ("7d", day, Resolution::Days(2), "multiple"),
            ("90m", day, Resolution::Fixed(3_600_000_000), "multiple"),
            ("24h", day, Resolution::Days(1), "multiple"),
            ("1mo", day, Resolution::Days(1), "month is shorter"),
            (
                "36500d",
                range("0050-01-01T00:00:00Z", "0050-01-02T00:00:00Z"),
                Resolution::Days(1),
                "before year 1",
            ),
        ] {
            let error = shift(compare).earlier_range(range, resolution).unwrap_err();
            assert!(error.contains(text), "{compare}: {error}");
        }
        let error = Shift::parse("1w", &TimeZone::UTC).unwrap_err();
        assert!(error.contains("'1w'") && error.contains("7d"), "{error}");
    }
}

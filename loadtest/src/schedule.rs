//! The schedule: when each reading is due. It is computed, not stored, so it is fixed before the
//! run and uses no memory.
//!
//! In: the rate and the load profile of a valid scenario. Out: the number of readings that are due
//! at a time, and the time of each reading. Nothing can fail.

use crate::scenario::{Mode, ProfileKind, Scenario};

/// An interval in which the rate changes linearly. Times are in seconds, rates in readings per
/// second.
#[derive(Debug, Clone, Copy)]
struct Segment {
    begin: f64,
    end: f64,
    from: f64,
    to: f64,
    /// Readings that are due before the interval.
    before: f64,
}

impl Segment {
    /// Readings that are due from the beginning of the interval to a time. After the end of the
    /// interval the rate stays constant; otherwise the count of a falling ramp would fall, too.
    fn count(&self, time: f64) -> f64 {
        let after_end = (time - self.end).max(0.0);
        let since = time.min(self.end) - self.begin;
        self.to * after_end
            + since * (self.from + 0.5 * (self.to - self.from) * since / (self.end - self.begin))
    }

    /// The time at which `count` readings of this interval are due: the root of a quadratic
    /// equation, in the form that keeps its precision at a constant rate.
    fn time(&self, count: f64) -> f64 {
        let slope = (self.to - self.from) / (self.end - self.begin);
        self.begin
            + 2.0 * count
                / (self.from
                    + (self.from * self.from + 2.0 * slope * count)
                        .max(0.0)
                        .sqrt())
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    segments: Vec<Segment>,
}

impl Schedule {
    /// The schedule of a scenario. A closed loop sends without a schedule; the times of its
    /// readings advance evenly.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (end, rate) = (scenario.duration.as_secs_f64(), scenario.first_rate());
        let profile = &scenario.profile;
        let to = profile.to.unwrap_or(rate);
        let mut parts = Vec::new();
        match (scenario.mode, profile.kind) {
            (Mode::Closed, _) => parts.push((end, rate, rate)),
            (_, ProfileKind::Constant) => parts.push((end, rate, rate)),
            (_, ProfileKind::Ramp) => parts.push((end, rate, to)),
            (_, ProfileKind::Step) => {
                let steps = profile.steps.unwrap_or(2);
                for step in 0..steps {
                    let height = rate + (to - rate) * f64::from(step) / f64::from(steps - 1);
                    parts.push((end * f64::from(step + 1) / f64::from(steps), height, height));
                }
            }
            (_, ProfileKind::Spike) => {
                let at = profile.at.unwrap_or_default().as_secs_f64().min(end);
                let spike_end = (at + profile.lasts.unwrap_or_default().as_secs_f64()).min(end);
                parts.extend([(at, rate, rate), (spike_end, to, to), (end, rate, rate)]);
            }
        }
        let mut segments: Vec<Segment> = Vec::new();
        for (end, from, to) in parts {
            let (begin, before) = segments.last().map_or((0.0, 0.0), |last| {
                (last.end, last.before + last.count(last.end))
            });
            if end > begin {
                segments.push(Segment {
                    begin,
                    end,
                    from,
                    to,
                    before,
                });
            }
        }
        Self { segments }
    }

    /// Readings that are due before a time in seconds since the start.
    pub(crate) fn count(&self, time: f64) -> f64 {
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|segment| segment.begin <= time)
            .unwrap_or(&self.segments[0]);
        segment.before + segment.count(time.max(0.0))
    }

    /// The time at which `count` readings are due, in seconds since the start.
    pub(crate) fn time(&self, count: f64) -> f64 {
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|segment| segment.before <= count)
            .unwrap_or(&self.segments[0]);
        segment.time(count - segment.before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(rest: &str) -> Schedule {
        let text = format!("name='x'\nrate=1000\nduration='10s'\nbatch=1\nconnections=1\n{rest}");
        Schedule::new(&Scenario::parse(&text).unwrap())
    }

    #[test]
    fn each_load_profile_has_its_number_of_readings() {
        for (profile, count) in [
            ("", 10_000.0),
            ("[shape]\nkind='ramp'\nto=3000", 20_000.0),
            ("[shape]\nkind='step'\nto=3000\nsteps=3", 20_000.0),
            (
                "[shape]\nkind='spike'\nto=5000\nat='2s'\nlasts='1s'",
                14_000.0,
            ),
        ] {
            let actual = schedule(profile).count(10.0);
            assert!(
                (actual - count).abs() < 1e-6,
                "{profile}: {actual}, expected {count}"
            );
        }
    }

    const PROFILES: [&str; 4] = [
        "",
        "[shape]\nkind='ramp'\nto=3000",
        "[shape]\nkind='ramp'\nto=10",
        "[shape]\nkind='spike'\nto=5000\nat='2s'\nlasts='1s'",
    ];

    proptest! {
        #[test]
        fn time_is_the_inverse_of_count_and_ascends(
            profile in 0..PROFILES.len(),
            share in 0.0..0.999_f64,
        ) {
            let schedule = schedule(PROFILES[profile]);
            let count = schedule.count(10.0) * share;
            let time = schedule.time(count);
            prop_assert!((schedule.count(time) - count).abs() < 1e-3);
            prop_assert!(schedule.time(count + 1.0) > time);
        }
    }
}

//! The schedule: which reading is due when, as arithmetic, so that it is fixed before the run and needs no memory.
//!
//! In: the rate of a scenario and how it goes on. Out: how many readings are due by a time, and the time of each.

use crate::scenario::{Mode, Scenario, ShapeKind};

/// A piece of time in which the rate changes in a straight line; seconds, readings a second, readings.
#[derive(Debug, Clone, Copy)]
struct Piece {
    begin: f64,
    end: f64,
    from: f64,
    to: f64,
    /// Readings that are due before it.
    before: f64,
}

impl Piece {
    /// Behind its end, the rate stays what it was there: a ramp that falls would have the count fall, too.
    fn count(&self, time: f64) -> f64 {
        let behind = (time - self.end).max(0.0);
        let since = time.min(self.end) - self.begin;
        self.to * behind
            + since * (self.from + 0.5 * (self.to - self.from) * since / (self.end - self.begin))
    }

    /// The time at which `count` readings of this piece are due: the root of a quadratic, in the form that loses nothing
    /// where the rate is constant.
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
pub struct Schedule {
    pieces: Vec<Piece>,
}

impl Schedule {
    /// The schedule of a scenario. In a closed loop nothing is due at any time; the times of its readings run ahead evenly.
    pub fn new(scenario: &Scenario) -> Self {
        let (end, rate) = (scenario.duration.as_secs_f64(), scenario.rate);
        let to = scenario.shape.to.unwrap_or(rate);
        let mut parts = Vec::new();
        match (scenario.mode, scenario.shape.kind) {
            (Mode::Closed, _) => parts.push((end, scenario.peak(), scenario.peak())),
            (_, ShapeKind::Constant) => parts.push((end, rate, rate)),
            (_, ShapeKind::Ramp) => parts.push((end, rate, to)),
            (_, ShapeKind::Step) => {
                let steps = scenario.shape.steps.unwrap_or(2);
                for step in 0..steps {
                    let height = rate + (to - rate) * f64::from(step) / f64::from(steps - 1);
                    parts.push((end * f64::from(step + 1) / f64::from(steps), height, height));
                }
            }
            (_, ShapeKind::Spike) => {
                let at = scenario.shape.at.unwrap_or_default().as_secs_f64().min(end);
                let over = (at + scenario.shape.lasts.unwrap_or_default().as_secs_f64()).min(end);
                parts.extend([(at, rate, rate), (over, to, to), (end, rate, rate)]);
            }
        }
        let mut pieces: Vec<Piece> = Vec::new();
        for (end, from, to) in parts {
            let (begin, before) = pieces.last().map_or((0.0, 0.0), |last| {
                (last.end, last.before + last.count(last.end))
            });
            if end > begin {
                pieces.push(Piece {
                    begin,
                    end,
                    from,
                    to,
                    before,
                });
            }
        }
        Self { pieces }
    }

    /// Readings that are due before a time, in seconds from the begin.
    pub fn count(&self, time: f64) -> f64 {
        let piece = self
            .pieces
            .iter()
            .rev()
            .find(|piece| piece.begin <= time)
            .unwrap_or(&self.pieces[0]);
        piece.before + piece.count(time.max(0.0))
    }

    /// When so many readings are due, in seconds from the begin.
    pub fn time(&self, count: f64) -> f64 {
        let piece = self
            .pieces
            .iter()
            .rev()
            .find(|piece| piece.before <= count)
            .unwrap_or(&self.pieces[0]);
        piece.time(count - piece.before)
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
    fn each_shape_has_its_number_of_readings() {
        for (shape, count) in [
            ("", 10_000.0),
            ("[shape]\nkind='ramp'\nto=3000", 20_000.0),
            ("[shape]\nkind='step'\nto=3000\nsteps=3", 20_000.0),
            (
                "[shape]\nkind='spike'\nto=5000\nat='2s'\nlasts='1s'",
                14_000.0,
            ),
        ] {
            let found = schedule(shape).count(10.0);
            assert!(
                (found - count).abs() < 1e-6,
                "{shape}: {found}, expected {count}"
            );
        }
    }

    proptest! {
        #[test]
        fn time_and_count_are_each_others_inverse_and_ascend(shape in 0..4_usize, part in 0.0..0.999_f64) {
            let schedule = schedule(["", "[shape]\nkind='ramp'\nto=3000", "[shape]\nkind='ramp'\nto=10",
                "[shape]\nkind='spike'\nto=5000\nat='2s'\nlasts='1s'"][shape]);
            let count = schedule.count(10.0) * part;
            let time = schedule.time(count);
            prop_assert!((schedule.count(time) - count).abs() < 1e-3);
            prop_assert!(schedule.time(count + 1.0) > time);
        }
    }
}

//! From a row of the table back to the reading that it comes from, for the verification.
//!
//! In: a time, a series or names. Out: the number of a reading or of a series; none for a row that
//! this traffic did not cause.

use schema::reading::Micros;

use super::Traffic;

impl Traffic {
    /// The earliest and the latest time of the readings of the first `requests`.
    pub(crate) fn times(&self, requests: u64) -> (Micros, Micros) {
        let faults = &self.scenario.faults;
        let late = if faults.late > 0.0 {
            faults.late_by.as_micros() as Micros
        } else {
            0
        };
        let last = self.schedule.time((requests * self.scenario.batch) as f64) * 1e6;
        (
            self.begin - late - (self.jitter as Micros + 1) * 1_000,
            self.begin + last as Micros + 1_000,
        )
    }

    /// The number of the reading with this series and time, among the first `requests`; none if
    /// there is no such reading.
    pub(crate) fn find(&self, series: u64, measured_at: Micros, requests: u64) -> Option<u64> {
        let since = measured_at - self.begin;
        let (mut millis, micros) = (since.div_euclid(1_000), since.rem_euclid(1_000));
        if micros & !1 != self.mark {
            return None;
        }
        if micros & 1 == 1 {
            millis += self.late_by(series);
        }
        let count = |seconds: f64| self.schedule.count(seconds).max(0.0) as u64;
        let from = count(millis as f64 / 1e3 - 0.001);
        let to = count((millis + self.jitter as i64) as f64 / 1e3 + 0.002) + 1;
        let to = to.min(requests * self.scenario.batch);
        let first = from + (series + self.series - from % self.series) % self.series;
        (first..to)
            .step_by(self.series as usize)
            .find(|&number| self.reading(number).measured_at == measured_at)
    }

    /// Whether a time has the mark of this run.
    pub(crate) fn is_of_this_run(&self, measured_at: Micros) -> bool {
        (measured_at - self.begin).rem_euclid(1_000) & !1 == self.mark
    }

    /// The number of the series with these names; none if it is not of this fleet.
    pub(crate) fn series_of(&self, device: &str, metric: &str) -> Option<u64> {
        let fleet = &self.scenario.fleet;
        let digits = device.strip_prefix(&fleet.prefix)?;
        let device: u64 = digits.parse().ok().filter(|_| digits.len() == 6)?;
        let metric = fleet.metrics.iter().position(|name| name == metric)?;
        let metrics = fleet.metrics.len() as u64;
        (device < fleet.devices).then_some(device * metrics + metric as u64)
    }
}

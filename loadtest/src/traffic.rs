//! Traffic: what every request of a scenario holds, from its number alone.
//!
//! Readings are numbered in the order of their schedule, one series after the other and then from the first again; a request
//! is a run of them. What a reading says follows from its number and the seed, so that the same scenario sends the same
//! bytes, nothing has to be remembered, and a row of the table leads back to the one reading that it can come from.
//!
//! A reading's time has milliseconds. Its microseconds are a mark of the run, even, and one more where the reading is sent
//! late: so no two readings of a series have the same time, not even in runs whose times overlap.

use bytes::Bytes;
use schema::reading::Micros;

use crate::scenario::{Compression, Format, Mode, Scenario};
use crate::schedule::Schedule;

/// 2200-01-01T00:00:00Z, of which nothing may ever be stored.
pub const FUTURE: Micros = 7_258_118_400_000_000;

/// What makes a reading one that has to be rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// No value.
    Null,
    /// Of the year 2200.
    Future,
    /// A time that is none.
    Time,
    /// A name of more than 300 characters.
    LongName,
    /// No name.
    NoName,
    /// Only a device.
    Incomplete,
}

/// What makes a request one of which nothing may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hostile {
    /// JSON that ends in the middle.
    Truncated,
    /// Bytes that are no UTF-8.
    NotUtf8,
    /// An encoding that nobody knows.
    Encoding,
    /// The connection ends in the middle of the body.
    BreaksOff,
}

/// A reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Its series: the number of the device times the number of metrics, and the metric.
    pub series: u64,
    /// When it was measured.
    pub measured_at: Micros,
    /// Its value, times a hundred.
    cents: i64,
    /// Why it has to be rejected.
    pub bad: Option<Bad>,
}

impl Reading {
    /// Its value.
    pub fn value(&self) -> f64 {
        self.cents as f64 / 100.0
    }
}

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its body, compressed where the scenario says so.
    pub body: Bytes,
    /// Its `content-encoding`.
    pub encoding: Option<&'static str>,
    /// Why nothing of it may be stored.
    pub hostile: Option<Hostile>,
    /// Readings that have to be accepted, and to be rejected.
    pub good: u64,
    /// See `good`.
    pub bad: u64,
}

/// Salts, so that one reading's properties do not depend on each other.
#[derive(Debug, Clone, Copy)]
enum Salt {
    Value = 1,
    Jitter,
    Late,
    LateBy,
    Bad,
    BadKind,
    Order,
    Hostile,
    HostileKind,
    Repeated,
    Away,
    Run,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Traffic {
    scenario: Scenario,
    schedule: Schedule,
    begin: Micros,
    series: u64,
    /// The run's mark.
    mark: Micros,
    /// Longest jitter, in milliseconds.
    jitter: u64,
    /// Requests of the schedule.
    requests: u64,
}

impl Traffic {
    /// The traffic of a scenario whose first measurement is at `begin`, to the millisecond.
    pub fn new(scenario: &Scenario, begin: Micros) -> Self {
        let schedule = Schedule::new(scenario);
        let begin = begin - begin.rem_euclid(1_000);
        let series = scenario.series();
        let half_sweep = (scenario.sweep() * 500.0) as u64;
        let due = schedule.count(scenario.duration.as_secs_f64());
        Self {
            schedule,
            begin,
            series,
            mark: mark(scenario, begin),
            jitter: (scenario.fleet.jitter.as_millis() as u64).min(half_sweep),
            // Half a reading for what arithmetic loses.
            requests: ((due + 0.5) / scenario.batch as f64) as u64,
            scenario: scenario.clone(),
        }
    }

    /// What it was made of.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// When its first reading was measured.
    pub fn begin(&self) -> Micros {
        self.begin
    }

    /// Requests in all; in a closed loop as many as its connections manage.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The first and the last time that a reading can have, of the first `requests`.
    pub fn times(&self, requests: u64) -> (Micros, Micros) {
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

    /// When a request is to be sent, in seconds after the begin. A closed loop has no such time.
    pub fn due(&self, request: u64) -> f64 {
        let due = self
            .schedule
            .time(((request + 1) * self.scenario.batch) as f64);
        match self.scenario.outage {
            Some(outage) if self.is_away(request) => {
                let (from, until) = (outage.from.as_secs_f64(), outage.until.as_secs_f64());
                until + (due - from) / outage.catch_up
            }
            _ => due,
        }
    }

    /// Whether a request is one of a device that is away at its time, and so sent later.
    pub fn is_away(&self, request: u64) -> bool {
        let (Some(outage), Mode::Open) = (self.scenario.outage, self.scenario.mode) else {
            return false;
        };
        let due = self
            .schedule
            .time(((request + 1) * self.scenario.batch) as f64);
        let sender = (request * self.scenario.batch) % self.series;
        due >= outage.from.as_secs_f64()
            && due < outage.until.as_secs_f64()
            && self.chance(Salt::Away, sender) < outage.share
    }

    /// The first request that may be one of a device that is away, and the one behind the last.
    pub fn outage_requests(&self) -> (u64, u64) {
        let Some(outage) = self.scenario.outage else {
            return (0, 0);
        };
        let at = |time: f64| (self.schedule.count(time) / self.scenario.batch as f64) as u64;
        let last = at(outage.until.as_secs_f64()) + 1;
        (
            at(outage.from.as_secs_f64()).saturating_sub(1),
            last.min(self.requests),
        )
    }

    /// Whether a request is sent once more after it was answered.
    pub fn is_repeated(&self, request: u64) -> bool {
        self.chance(Salt::Repeated, request) < self.scenario.faults.repeated
    }

    /// Why nothing of a request may be stored.
    pub fn hostile(&self, request: u64) -> Option<Hostile> {
        (self.chance(Salt::Hostile, request) < self.scenario.faults.hostile).then(|| {
            match hash(self.scenario.seed, Salt::HostileKind, request) % 4 {
                // The lines before the end of NDJSON are good.
                0 if self.scenario.body.format == Format::Json => Hostile::Truncated,
                0 | 1 => Hostile::NotUtf8,
                2 => Hostile::Encoding,
                _ => Hostile::BreaksOff,
            }
        })
    }

    /// The reading with this number.
    pub fn reading(&self, number: u64) -> Reading {
        let series = number % self.series;
        let faults = &self.scenario.faults;
        let mut millis = (self.schedule.time(number as f64) * 1e3) as i64;
        if self.jitter > 0 {
            millis -= (hash(self.scenario.seed, Salt::Jitter, number) % (self.jitter + 1)) as i64;
        }
        let is_late = faults.late > 0.0 && self.chance(Salt::Late, number) < faults.late;
        if is_late {
            millis -= self.late_by(series);
        }
        let bad = (faults.bad > 0.0 && self.chance(Salt::Bad, number) < faults.bad).then(|| {
            match hash(self.scenario.seed, Salt::BadKind, number) % 6 {
                0 => Bad::Null,
                1 => Bad::Future,
                2 => Bad::Time,
                3 => Bad::LongName,
                4 => Bad::NoName,
                _ => Bad::Incomplete,
            }
        });
        let measured_at = self.begin + millis * 1_000 + self.mark + Micros::from(is_late);
        let cents = 22_000 + (hash(self.scenario.seed, Salt::Value, number) % 2_000) as i64;
        Reading {
            series,
            measured_at,
            cents,
            bad,
        }
    }

    /// The number of the reading that a row of a series can come from; none where none can. It needs the requests that
    /// there were.
    pub fn find(&self, series: u64, measured_at: Micros, requests: u64) -> Option<u64> {
        let since = measured_at - self.begin;
        let (mut millis, micros) = (since.div_euclid(1_000), since.rem_euclid(1_000));
        if micros & !1 != self.mark {
            return None;
        }
        if micros & 1 == 1 {
            millis += self.late_by(series);
        }
        let from = self.schedule.count(millis as f64 / 1e3 - 0.001).max(0.0) as u64;
        let to = self
            .schedule
            .count((millis + self.jitter as i64) as f64 / 1e3 + 0.002)
            .max(0.0) as u64
            + 1;
        let to = to.min(requests * self.scenario.batch);
        let first = from + (series + self.series - from % self.series) % self.series;
        (first..to)
            .step_by(self.series as usize)
            .find(|&number| self.reading(number).measured_at == measured_at)
    }

    /// Whether a time has the mark of this run.
    pub fn is_of_this_run(&self, measured_at: Micros) -> bool {
        (measured_at - self.begin).rem_euclid(1_000) & !1 == self.mark
    }

    /// The series of a device's metric, by their names.
    pub fn series_of(&self, device: &str, metric: &str) -> Option<u64> {
        let digits = device.strip_prefix(&self.scenario.fleet.prefix)?;
        let device: u64 = digits.parse().ok().filter(|_| digits.len() == 6)?;
        let metric = self
            .scenario
            .fleet
            .metrics
            .iter()
            .position(|name| name == metric)?;
        let metrics = self.scenario.fleet.metrics.len() as u64;
        (device < self.scenario.fleet.devices).then_some(device * metrics + metric as u64)
    }

    /// The request with this number.
    pub fn request(&self, number: u64) -> Request {
        let batch = self.scenario.batch;
        let mut body = Vec::with_capacity(batch as usize * 100 + 2);
        let (mut good, mut bad) = (0, 0);
        let reversed = self.chance(Salt::Order, number) < self.scenario.faults.out_of_order;
        let json = self.scenario.body.format == Format::Json;
        if json {
            body.push(b'[');
        }
        for at in 0..batch {
            let at = if reversed { batch - 1 - at } else { at };
            let reading = self.reading(number * batch + at);
            *(if reading.bad.is_some() {
                &mut bad
            } else {
                &mut good
            }) += 1;
            self.write(&reading, &mut body);
            body.push(if json { b',' } else { b'\n' });
        }
        if json {
            body.pop();
            body.push(b']');
        }
        let hostile = self.hostile(number);
        match hostile {
            Some(Hostile::Truncated) => body.truncate(body.len() / 2),
            Some(Hostile::NotUtf8) => {
                let middle = body.len() / 2;
                body[middle] = 0xff;
            }
            Some(Hostile::Encoding | Hostile::BreaksOff) | None => {}
        }
        let (body, encoding) = match (hostile, self.scenario.body.compression) {
            (Some(Hostile::Encoding), _) => (body, Some("enigma")),
            (_, Compression::None) => (body, None),
            (_, Compression::Gzip) => (gzip(&body), Some("gzip")),
            (_, Compression::Zstd) => (
                zstd::bulk::compress(&body, 1).unwrap_or_default(),
                Some("zstd"),
            ),
        };
        if hostile.is_some() {
            (good, bad) = (0, batch);
        }
        Request {
            body: body.into(),
            encoding,
            hostile,
            good,
            bad,
        }
    }

    fn write(&self, reading: &Reading, out: &mut Vec<u8>) {
        let metrics = self.scenario.fleet.metrics.len() as u64;
        let (device, metric) = (
            reading.series / metrics,
            (reading.series % metrics) as usize,
        );
        out.extend_from_slice(b"{\"device\":\"");
        match reading.bad {
            Some(Bad::LongName) => out.extend_from_slice(self.long_name().as_bytes()),
            Some(Bad::NoName) => {}
            _ => {
                out.extend_from_slice(self.scenario.fleet.prefix.as_bytes());
                let mut place = 100_000;
                while place > 0 {
                    out.push(b'0' + (device / place % 10) as u8);
                    place /= 10;
                }
            }
        }
        if reading.bad == Some(Bad::Incomplete) {
            out.extend_from_slice(b"\"}");
            return;
        }
        out.extend_from_slice(b"\",\"metric\":\"");
        out.extend_from_slice(self.scenario.fleet.metrics[metric].as_bytes());
        out.extend_from_slice(b"\",\"measured_at\":");
        let mut digits = itoa::Buffer::new();
        match reading.bad {
            Some(Bad::Time) => out.extend_from_slice(b"\"soon\""),
            Some(Bad::Future) => out.extend_from_slice(digits.format(FUTURE).as_bytes()),
            _ => out.extend_from_slice(digits.format(reading.measured_at).as_bytes()),
        }
        out.extend_from_slice(b",\"value\":");
        if reading.bad == Some(Bad::Null) {
            out.extend_from_slice(b"null}");
            return;
        }
        out.extend_from_slice(digits.format(reading.cents / 100).as_bytes());
        out.push(b'.');
        out.push(b'0' + (reading.cents / 10 % 10) as u8);
        out.push(b'0' + (reading.cents % 10) as u8);
        out.push(b'}');
    }

    /// A name that is too long for a device, of 300 characters or more.
    pub fn long_name(&self) -> String {
        self.scenario.fleet.prefix.clone() + &"x".repeat(300)
    }

    /// How much earlier late readings of a series are measured, in milliseconds: from a half of `late-by` to all of it.
    fn late_by(&self, series: u64) -> i64 {
        let most = self.scenario.faults.late_by.as_millis() as f64;
        (most * (0.5 + 0.5 * self.chance(Salt::LateBy, series))) as i64
    }

    fn chance(&self, salt: Salt, of: u64) -> f64 {
        (hash(self.scenario.seed, salt, of) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The mark of a run: other scenarios, and the same one at another time, mostly have others.
fn mark(scenario: &Scenario, begin: Micros) -> Micros {
    let text = toml::to_string(&Scenario {
        begin: None,
        ..scenario.clone()
    })
    .unwrap_or_default();
    let seed = text.bytes().fold(scenario.seed, |seed, byte| {
        hash(seed, Salt::Run, u64::from(byte))
    });
    (hash(seed, Salt::Run, begin.cast_unsigned()) % 500 * 2) as Micros
}

/// SplitMix64 (Steele, Lea and Flood, 2014), over seed, salt and number.
fn hash(seed: u64, salt: Salt, number: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (salt as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = z.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing into memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const BEGIN: Micros = 1_793_491_200_000_000;

    fn traffic(rest: &str) -> Traffic {
        let text =
            format!("name='x'\nseed=7\nrate=1000\nduration='10s'\nbatch=10\nconnections=1\n{rest}");
        Traffic::new(&Scenario::parse(&text).unwrap(), BEGIN)
    }

    const FAULTS: &str = "[fleet]\ndevices=20\njitter='1s'\n[faults]\nlate=0.2\nlate-by='5s'\nout-of-order=0.5\nbad=0.1\n";

    #[test]
    fn the_same_scenario_sends_the_same_bytes_and_another_seed_others() {
        let (one, again) = (traffic(""), traffic(""));
        let other = Traffic::new(
            &Scenario {
                seed: 8,
                ..one.scenario().clone()
            },
            BEGIN,
        );
        for number in [0, 1, 999] {
            assert_eq!(one.request(number).body, again.request(number).body);
            assert_ne!(one.request(number).body, other.request(number).body);
        }
        let body = String::from_utf8(one.request(0).body.to_vec()).unwrap();
        let reading = one.reading(0);
        let expected = format!(
            r#"[{{"device":"lt-000000","metric":"current","measured_at":{},"value":{:.2}}},{{"device":"lt-000000","metric":"voltage""#,
            reading.measured_at,
            reading.value()
        );
        assert!(body.starts_with(&expected), "{body}");
    }

    #[test]
    fn every_reading_has_a_time_of_its_own_and_is_found_by_it() {
        let fleet = "[fleet]\ndevices=20\njitter='20ms'\n";
        let falling = "[shape]\nkind='ramp'\nto=100\n[fleet]\ndevices=100000\njitter='5s'\n";
        let spike = format!("[shape]\nkind='spike'\nto=10\nat='2s'\nlasts='8s'\n{fleet}");
        let closed = "mode='closed'\n[fleet]\ndevices=20000\n";
        for rest in [
            "",
            FAULTS,
            "[shape]\nkind='ramp'\nto=100\n",
            closed,
            falling,
            &spike,
        ] {
            let traffic = traffic(rest);
            let requests = traffic.requests().min(1_000);
            let mut seen = HashSet::new();
            let (first, last) = traffic.times(requests);
            for number in 0..requests * 10 {
                let reading = traffic.reading(number);
                assert!(
                    seen.insert((reading.series, reading.measured_at)),
                    "{number} of {rest}"
                );
                assert!(
                    (first..=last).contains(&reading.measured_at),
                    "{number} of {rest}"
                );
                assert_eq!(
                    traffic.find(reading.series, reading.measured_at, requests),
                    Some(number),
                    "{rest}"
                );
                assert_eq!(
                    traffic.find(reading.series, reading.measured_at + 2, requests),
                    None
                );
            }
        }
    }

    #[test]
    fn no_part_of_a_hostile_request_can_be_stored() {
        for format in ["json", "ndjson"] {
            let traffic = traffic(&format!(
                "[faults]\nhostile=1.0\n[body]\nformat='{format}'\n"
            ));
            for number in 0..200 {
                let request = traffic.request(number);
                let is_cut = request.hostile == Some(Hostile::Truncated);
                assert!(
                    !is_cut || serde_json::from_slice::<serde_json::Value>(&request.body).is_err()
                );
                assert!(
                    !is_cut || format == "json",
                    "the first lines of NDJSON are whole"
                );
            }
        }
    }

    #[test]
    fn another_scenario_has_another_mark_at_the_same_time() {
        let marks: HashSet<Micros> = (1..20)
            .map(|batch| traffic(&format!("timeout='{batch}s'\n")).mark)
            .collect();
        assert!(marks.len() > 15, "{marks:?}");
    }

    #[test]
    fn shares_are_what_the_scenario_says() {
        let traffic = traffic(FAULTS);
        let bad = (0..10_000)
            .filter(|&number| traffic.reading(number).bad.is_some())
            .count();
        let late = (0..10_000)
            .filter(|&number| traffic.reading(number).measured_at % 2 == 1)
            .count();
        assert!(
            (900..1_100).contains(&bad) && (1_850..2_150).contains(&late),
            "{bad} bad, {late} late"
        );
        let counted: u64 = (0..1_000).map(|request| traffic.request(request).bad).sum();
        assert_eq!(counted, bad as u64);
    }

    #[test]
    fn who_is_away_sends_later_and_in_order() {
        let traffic = traffic("[outage]\nshare=0.5\nfrom='2s'\nuntil='4s'\ncatch-up=4\n");
        let away: Vec<u64> = (0..traffic.requests())
            .filter(|&request| traffic.is_away(request))
            .collect();
        assert!((60..140).contains(&away.len()), "{} of 200", away.len());
        let due: Vec<f64> = away.iter().map(|&request| traffic.due(request)).collect();
        assert!(
            due.is_sorted() && due[0] >= 4.0 && due[due.len() - 1] <= 4.5,
            "{due:?}"
        );
    }
}

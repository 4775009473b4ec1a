//! Request bodies: the readings of a request in the format of the scenario, with its faults.

use std::io::Write as _;

use super::random::Salt;
use super::{FUTURE, Reading, ReadingFault, Request, RequestFault, Traffic};
use crate::scenario::{Compression, Format};

impl Traffic {
    /// The request with this number.
    pub(crate) fn request(&self, number: u64) -> Request {
        match self.rendered.get(number as usize) {
            Some(request) => request.clone(),
            None => self.render(number),
        }
    }

    pub(super) fn render(&self, number: u64) -> Request {
        let batch = self.scenario.batch;
        let mut body = Vec::with_capacity(batch as usize * 100 + 2);
        let (mut good, mut bad) = (0, 0);
        let is_reversed = self.chance(Salt::Order, number) < self.scenario.faults.out_of_order;
        let is_json = self.scenario.body.format == Format::Json;
        if is_json {
            body.push(b'[');
        }
        for index in 0..batch {
            let index = if is_reversed {
                batch - 1 - index
            } else {
                index
            };
            let reading = self.reading(number * batch + index);
            match reading.fault {
                None => good += 1,
                Some(_) => bad += 1,
            }
            self.write(&reading, &mut body);
            body.push(if is_json { b',' } else { b'\n' });
        }
        if is_json {
            body.pop();
            body.push(b']');
        }
        let fault = self.request_fault(number);
        match fault {
            Some(RequestFault::Truncated) => body.truncate(body.len() / 2),
            // Instead of the opening bracket, so that no reading is left.
            Some(RequestFault::InvalidUtf8) => body[0] = 0xff,
            Some(RequestFault::UnknownEncoding | RequestFault::Disconnect) | None => {}
        }
        let (body, encoding) = match (fault, self.scenario.body.compression) {
            (Some(RequestFault::UnknownEncoding), _) => (body, Some("enigma")),
            (_, Compression::None) => (body, None),
            (_, Compression::Gzip) => (gzip(&body), Some("gzip")),
            (_, Compression::Zstd) => (
                zstd::bulk::compress(&body, 1).unwrap_or_default(),
                Some("zstd"),
            ),
        };
        if fault.is_some() {
            (good, bad) = (0, batch);
        }
        Request {
            body: body.into(),
            encoding,
            fault,
            good,
            bad,
        }
    }

    fn write(&self, reading: &Reading, out: &mut Vec<u8>) {
        let fleet = &self.scenario.fleet;
        let metrics = fleet.metrics.len() as u64;
        let (device, metric) = (
            reading.series / metrics,
            (reading.series % metrics) as usize,
        );
        out.extend_from_slice(b"{\"device\":\"");
        match reading.fault {
            Some(ReadingFault::LongName) => out.extend_from_slice(self.long_name().as_bytes()),
            Some(ReadingFault::EmptyName) => {}
            _ => {
                out.extend_from_slice(fleet.prefix.as_bytes());
                let mut place = 100_000;
                while place > 0 {
                    out.push(b'0' + (device / place % 10) as u8);
                    place /= 10;
                }
            }
        }
        if reading.fault == Some(ReadingFault::MissingFields) {
            out.extend_from_slice(b"\"}");
            return;
        }
        out.extend_from_slice(b"\",\"metric\":\"");
        out.extend_from_slice(fleet.metrics[metric].as_bytes());
        out.extend_from_slice(b"\",\"measured_at\":");
        let mut digits = itoa::Buffer::new();
        match reading.fault {
            Some(ReadingFault::InvalidTime) => out.extend_from_slice(b"\"soon\""),
            Some(ReadingFault::FutureTime) => {
                out.extend_from_slice(digits.format(FUTURE).as_bytes());
            }
            _ => out.extend_from_slice(digits.format(reading.measured_at).as_bytes()),
        }
        out.extend_from_slice(b",\"value\":");
        if reading.fault == Some(ReadingFault::NullValue) {
            out.extend_from_slice(b"null}");
            return;
        }
        out.extend_from_slice(digits.format(reading.cents / 100).as_bytes());
        out.push(b'.');
        out.push(b'0' + (reading.cents / 10 % 10) as u8);
        out.push(b'0' + (reading.cents % 10) as u8);
        out.push(b'}');
    }

    /// A device name that is too long: more than 300 characters.
    pub(crate) fn long_name(&self) -> String {
        self.scenario.fleet.prefix.clone() + &"x".repeat(300)
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing into memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

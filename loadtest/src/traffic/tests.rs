use std::collections::HashSet;

use super::*;

const BEGIN: Micros = 1_793_491_200_000_000;

fn traffic(rest: &str) -> Traffic {
    let text =
        format!("name='x'\nseed=7\nrate=1000\nduration='10s'\nbatch=10\nconnections=1\n{rest}");
    Traffic::new(&Scenario::parse(&text).unwrap(), BEGIN)
}

const FAULTS: &str = "[fleet]\ndevices=20\njitter='1s'\n\
    [faults]\nlate=0.2\nlate-by='5s'\nout-of-order=0.5\nbad=0.1\n";

#[test]
fn a_scenario_always_sends_the_same_bytes_and_another_seed_sends_others() {
    let (one, again, rendered) = (traffic(""), traffic(""), traffic("").render_all());
    let other = Traffic::new(
        &Scenario {
            seed: 8,
            ..one.scenario().clone()
        },
        BEGIN,
    );
    for number in [0, 1, 999] {
        assert_eq!(one.request(number).body, again.request(number).body);
        assert_eq!(one.request(number).body, rendered.request(number).body);
        assert_ne!(one.request(number).body, other.request(number).body);
    }
    let body = String::from_utf8(one.request(0).body.to_vec()).unwrap();
    let reading = one.reading(0);
    let expected = format!(
        concat!(
            r#"[{{"device":"lt-000000","metric":"current","measured_at":{},"value":{:.2}}},"#,
            r#"{{"device":"lt-000000","metric":"voltage""#
        ),
        reading.measured_at,
        reading.value()
    );
    assert!(body.starts_with(&expected), "{body}");
}

#[test]
fn every_reading_is_found_by_its_series_and_time() {
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
fn no_part_of_a_malformed_request_can_be_stored() {
    for format in ["json", "ndjson"] {
        let traffic = traffic(&format!(
            "[faults]\nhostile=1.0\n[body]\nformat='{format}'\n"
        ));
        for number in 0..200 {
            let request = traffic.request(number);
            let is_truncated = request.fault == Some(RequestFault::Truncated);
            assert!(
                !is_truncated
                    || serde_json::from_slice::<serde_json::Value>(&request.body).is_err()
            );
            let is_invalid_utf8 = request.fault == Some(RequestFault::InvalidUtf8);
            assert!(
                !(is_truncated || is_invalid_utf8) || format == "json",
                "the other lines of NDJSON are valid"
            );
            assert!(!is_invalid_utf8 || request.body[0] == 0xff);
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
fn the_shares_of_faults_are_those_of_the_scenario() {
    let traffic = traffic(FAULTS);
    let bad = (0..10_000)
        .filter(|&number| traffic.reading(number).fault.is_some())
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
fn offline_devices_send_later_and_in_order() {
    let traffic = traffic("[outage]\nshare=0.5\nfrom='2s'\nuntil='4s'\ncatch-up=4\n");
    let offline: Vec<u64> = (0..traffic.requests())
        .filter(|&request| traffic.is_offline(request))
        .collect();
    assert!(
        (60..140).contains(&offline.len()),
        "{} of 200",
        offline.len()
    );
    let due: Vec<f64> = offline
        .iter()
        .map(|&request| traffic.due(request))
        .collect();
    assert!(
        due.is_sorted() && due[0] >= 4.0 && due[due.len() - 1] <= 4.5,
        "{due:?}"
    );
}

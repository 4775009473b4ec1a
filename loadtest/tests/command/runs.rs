//! Runs and their reports.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use loadtest::harness::report::{self, Report};
use loadtest::ledger::Ledger;

use crate::support::*;

#[test]
fn a_run_writes_a_page_a_report_with_the_published_schema_a_ledger_and_a_log() {
    let (server, directory) = (IdleServer::start(), tempfile::tempdir().unwrap());
    let more = [
        "--duration",
        "2s",
        "--rate",
        "2000",
        "--batch",
        "10",
        "--connections",
        "8",
        "--seed",
        "5",
    ];
    let output = server
        .run("trickle", directory.path(), &more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let json = std::fs::read_to_string(directory.path().join(report::FILE)).unwrap();
    let schema = serde_json::from_str(&report::schema()).unwrap();
    jsonschema::validate(&schema, &serde_json::from_str(&json).unwrap()).unwrap();
    let report = Report::read(directory.path()).unwrap();
    assert_eq!(
        (
            report.counts.sent,
            report.counts.accepted,
            report.unsent,
            report.seed
        ),
        (400, 4_000, 0, 5)
    );
    assert_eq!(
        (report.latency_ms.count > 300, report.interrupted),
        (true, false)
    );
    assert!(report.scenario.contains("begin = "), "{}", report.scenario);
    assert_eq!(
        Ledger::read(&directory.path().join(report::LEDGER), report.begin)
            .unwrap()
            .len(),
        400
    );
    let page = std::fs::read_to_string(directory.path().join("report.html")).unwrap();
    assert!(
        page.contains("<svg") && !page.contains("src=") && !page.contains("@import"),
        "{page}"
    );
    let log = std::fs::read_to_string(directory.path().join(report::LOG)).unwrap();
    let intervals =
        hdrhistogram::serialization::interval_log::IntervalLogIterator::new(log.as_bytes());
    assert!(intervals.filter(Result::is_ok).count() > 4, "{log}");
}

#[test]
fn the_published_schemas_are_those_of_the_code() {
    let report = include_str!("../../report.schema.json");
    assert!(
        report == report::schema(),
        "regenerate it: loadtest schema > loadtest/report.schema.json"
    );
    let matrix = include_str!("../../matrix.schema.json");
    assert!(
        matrix == loadtest::harness::matrix::schema(),
        "regenerate it: loadtest schema --matrix > loadtest/matrix.schema.json"
    );
}

#[test]
fn repeated_runs_are_compared_and_a_slower_server_is_a_regression() {
    let (server, directory) = (IdleServer::start(), tempfile::tempdir().unwrap());
    let sides = ["base", "slow"].map(|side| directory.path().join(side));
    let more = ["--duration", "1s", "--rate", "500", "--repeat", "3"];
    for side in &sides {
        let output = server.run("trickle", side, &more).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    for turn in 1..=3 {
        let file = sides[1].join(turn.to_string()).join(report::FILE);
        let mut report = Report::read(&file).unwrap();
        report.accepted_per_second /= 2.0;
        std::fs::write(&file, serde_json::to_string(&report).unwrap()).unwrap();
    }
    let compare = |new: &Path| {
        Command::new(PROGRAM)
            .arg("compare")
            .arg(&sides[0])
            .arg(new)
            .output()
            .unwrap()
    };
    let (itself, slow) = (compare(&sides[0]), compare(&sides[1]));
    assert_eq!(itself.status.code(), Some(0), "{}", text(&itself));
    assert_eq!(slow.status.code(), Some(3), "{}", text(&slow));
    assert!(
        text(&slow)
            .lines()
            .any(|line| line.starts_with("readings/s accepted") && line.ends_with("WORSE"))
    );
    assert_eq!(compare(Path::new("/nowhere")).status.code(), Some(2));
}

#[test]
fn ctrl_c_ends_a_run_cleanly_and_the_report_is_written() {
    let (server, directory) = (IdleServer::start(), tempfile::tempdir().unwrap());
    let (base, ended) = (
        directory.path().join("base"),
        directory.path().join("ended"),
    );
    let mut command = server.run("trickle", &ended, &["--duration", "10m", "--rate", "500"]);
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // The first line of progress: requests are being sent.
    assert!(lines.any(|line| line.unwrap().contains("readings/s  ")));
    let killed = Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    assert!(lines.any(|line| line.unwrap().contains("stopping")));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report = Report::read(&ended).unwrap();
    assert!(
        report.interrupted && report.counts.sent > 0 && report.unsent > report.counts.sent,
        "{:?}",
        report.counts
    );
    assert_eq!(report.counts.unknown, 0);
    // The run ended in its warm-up: it has no latencies, and does not compare as better.
    assert_eq!(report.latency_ms.count, 0);
    assert!(
        text(&output).contains("no request ended after the warm-up"),
        "{}",
        text(&output)
    );
    assert!(
        server
            .run("trickle", &base, &["--duration", "1s", "--rate", "500"])
            .status()
            .unwrap()
            .success()
    );
    let compared = Command::new(PROGRAM)
        .arg("compare")
        .args([&base, &ended])
        .output()
        .unwrap();
    assert_eq!(compared.status.code(), Some(3), "{}", text(&compared));
    let is_missing =
        |line: &str| line.starts_with("response, p99 in ms") && line.contains("MISSING");
    assert!(
        text(&compared).lines().any(is_missing),
        "{}",
        text(&compared)
    );
}

#[test]
fn reports_of_an_earlier_run_are_removed() {
    let (server, directory) = (IdleServer::start(), tempfile::tempdir().unwrap());
    let more = ["--duration", "1s", "--rate", "100", "--repeat"];
    for repeat in ["3", "2"] {
        let output = server
            .run(
                "trickle",
                directory.path(),
                &[&more[..], &[repeat]].concat(),
            )
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let left = ["1", "2", "3"].map(|turn| directory.path().join(turn).join(report::FILE).is_file());
    assert_eq!(left, [true, true, false]);
}

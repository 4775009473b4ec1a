//! Requests that fail, and a rate that is not reached.

use std::process::Command;
use std::time::Duration;

use loadtest::harness::report::{self, Report};
use loadtest::recorder::TransportError;

use crate::support::*;

#[test]
fn requests_without_a_response_are_errors_and_last_as_long_as_the_timeout() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("s.toml");
    let content = "name='x'\nrate=100\nduration='1s'\nbatch=1\nconnections=4\ntimeout='200ms'\n";
    std::fs::write(&scenario, content).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .arg("run")
        .arg(&scenario)
        .args(["--target", &url, "--report"])
        .arg(directory.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let report = Report::read(directory.path()).unwrap();
    assert_eq!(
        (report.counts.accepted, report.counts.errors),
        (0, report.counts.sent)
    );
    assert!(
        report.counts.unknown > 0 && report.latency_ms.p50 >= 200.0,
        "{:?}",
        report.counts
    );
    let errors = &report.counts.transport_errors;
    assert_eq!(errors[&TransportError::Timeout], report.counts.errors);
    let line = format!("responses: no response in time: {}\n", report.counts.sent);
    assert!(text(&output).contains(&line), "{}", text(&output));
}

#[test]
fn a_latency_includes_retries_and_a_503_is_not_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("s.toml");
    let content = "name='x'\nrate=20\nduration='1s'\nbatch=1\nconnections=20\n\
        [retry]\nafter='300ms'\nattempts=";
    let run = |times: usize, attempts: u32| {
        std::fs::write(&scenario, format!("{content}{attempts}\n")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args([
            "run",
            "--unchecked",
            "--target",
            &reject_first(times),
            "--report",
        ]);
        command.arg(directory.path()).arg(&scenario);
        let output = command.output().unwrap();
        (
            output.status.code(),
            Report::read(directory.path()).unwrap(),
        )
    };
    let (code, report) = run(2, 5);
    assert_eq!(
        (code, report.counts.accepted, report.counts.retried),
        (Some(0), 20, 40)
    );
    assert_eq!(report.counts.statuses, [(202, 20), (503, 40)].into());
    assert!(
        report.latency_ms.p50 >= 600.0 && report.latency_from_send_ms.p50 >= 600.0,
        "{:?}",
        report.latency_ms
    );
    let (code, report) = run(100, 0);
    assert_eq!(
        (code, report.counts.accepted, report.counts.errors),
        (Some(3), 0, 20)
    );
    assert!(report.latency_ms.p50 >= 10_000.0, "{:?}", report.latency_ms);
}

#[test]
fn a_run_that_does_not_reach_its_rate_says_so_and_has_exit_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("s.toml");
    let content = "name='x'\nrate=20\nduration='2s'\nbatch=1\nconnections=1\n";
    std::fs::write(&scenario, content).unwrap();
    // One connection and a tenth of a second per response: ten requests per second at most.
    let url = serve(|_| {
        std::thread::sleep(Duration::from_millis(100));
        ("202 Accepted", "")
    });
    let mut command = Command::new(PROGRAM);
    command
        .args(["run", "--unchecked", "--target", &url, "--report"])
        .args([directory.path(), &scenario]);
    let output = command.output().unwrap();
    let report = Report::read(directory.path()).unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert_eq!((report.counts.failed(), report.counts.accepted), (0, 40));
    let missed = report.missed_rate().unwrap();
    assert!(missed.starts_with("rate not reached: ") && missed.ends_with(" of 20 readings/s"));
    assert!(text(&output).contains(&missed), "{}", text(&output));
    let page = std::fs::read_to_string(directory.path().join(report::PAGE)).unwrap();
    assert!(page.contains(&missed) && page.contains("<td>202 Accepted</td><td>40</td>"));
}

#[test]
fn a_run_whose_devices_are_not_registered_says_how_to_register_them() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("s.toml");
    let content = "name='x'\nrate=20\nduration='1s'\nbatch=2\nconnections=1\n";
    std::fs::write(&scenario, content).unwrap();
    let url = serve(|_| {
        let body = r#"{"code":"no_reading_accepted","accepted":0,"rejected":2,"errors":[
            {"index":0,"code":"unknown_device","detail":"\u00e9"},
            {"index":1,"code":"unknown_device","detail":""}]}"#;
        ("422 Unprocessable Entity", body)
    });
    let mut command = Command::new(PROGRAM);
    command
        .args(["run", "--target", &url, "--report"])
        .args([directory.path(), &scenario]);
    let output = command.output().unwrap();
    let report = Report::read(directory.path()).unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert_eq!(
        report.counts.error_codes,
        [("unknown_device".to_owned(), 20)].into()
    );
    let page = std::fs::read_to_string(directory.path().join(report::PAGE)).unwrap();
    for expected in [
        "loadtest devices SCENARIO | xargs gridwatch devices add",
        "--metric current --metric voltage",
        "--unknown-devices register",
    ] {
        assert!(text(&output).contains(expected), "{}", text(&output));
        assert!(page.contains(expected), "{page}");
    }
    for expected in [
        "responses: 422 Unprocessable Entity: 10\n",
        "errors listed in these responses: unknown_device: 20\n",
    ] {
        assert!(text(&output).contains(expected), "{}", text(&output));
    }
}

#[test]
fn a_refused_connection_is_counted_by_its_cause() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("s.toml");
    let content = "name='x'\nrate=100\nduration='1s'\nbatch=1\nconnections=1\n";
    std::fs::write(&scenario, content).unwrap();
    // It accepts the connection of the probe, and nothing after it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let probe = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let mut command = Command::new(PROGRAM);
    command
        .args(["run", "--target", &url, "--report"])
        .args([directory.path(), &scenario]);
    let output = command.output().unwrap();
    probe.join().unwrap();
    let report = Report::read(directory.path()).unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let refused = report.counts.transport_errors[&TransportError::ConnectionRefused];
    assert!(refused > 90, "{:?}", report.counts);
    assert!(
        text(&output).contains("connection refused: "),
        "{}",
        text(&output)
    );
}

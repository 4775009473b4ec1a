//! The command line, against the idle server. The tests of the pipeline run it against Gridwatch.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use loadtest::harness::report::{self, Report};
use loadtest::ledger::Ledger;

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

/// The idle server, which ends with the test.
struct IdleServer {
    child: Child,
    url: String,
}

impl IdleServer {
    fn start() -> Self {
        let mut command = Command::new(PROGRAM);
        let mut child = command
            .args(["nothing", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line.split(' ').next_back().unwrap().trim().to_owned();
        Self { child, url }
    }

    fn run(&self, scenario: &str, directory: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args([
                "run",
                scenario,
                "--unchecked",
                "--target",
                &self.url,
                "--report",
            ])
            .arg(directory)
            .args(more);
        command
    }
}

impl Drop for IdleServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

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
    let report = include_str!("../report.schema.json");
    assert!(
        report == report::schema(),
        "regenerate it: loadtest schema > loadtest/report.schema.json"
    );
    let matrix = include_str!("../matrix.schema.json");
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
fn a_usage_error_names_its_cause_and_has_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.toml");
    std::fs::write(&file, "name = 'x'\nrate = 'fast'\n").unwrap();
    let file = file.to_str().unwrap();
    let down = "--target http://127.0.0.1:1";
    for (arguments, expected) in [
        (format!("run {file} {down}"), &["line 2", "rate", "f64"][..]),
        (format!("run no-such {down}"), &["no-such", "lv-grid"]),
        (
            "run trickle --target 127.0.0.1:1".to_owned(),
            &["--target", "http://HOST:PORT"],
        ),
        (
            "run trickle --target http://u:hunter2@h:1".to_owned(),
            &["nothing else"],
        ),
        (
            "run trickle --target http://h:1/gridwatch".to_owned(),
            &["nothing else"],
        ),
        (
            format!("run trickle {down} --rate 1 --batch 100"),
            &["batch", "expected at most 30,"],
        ),
        (
            format!("run trickle {down} --seed 18446744073709551615"),
            &["--seed"],
        ),
        ("matrix --trials 0".to_owned(), &["--trials", "1..=100"]),
        (format!("run trickle {down}"), &["is it running?"]),
        (format!("run trickle {down} --rate 0"), &["rate", "above 0"]),
        (
            format!("run trickle {down} --admin x"),
            &["--admin", "HOST:PORT"],
        ),
        (
            "verify --database-url postgres://x".to_owned(),
            &["--report"],
        ),
    ] {
        let output = Command::new(PROGRAM)
            .args(arguments.split(' '))
            .arg("--report")
            .arg(directory.path().join("report"))
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments}: {}",
            text(&output)
        );
        assert!(
            expected.iter().all(|part| text(&output).contains(part)),
            "{arguments}: {}",
            text(&output)
        );
    }
}

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
    assert!(
        text(&output).contains("no response in time"),
        "{}",
        text(&output)
    );
}

/// A server that responds to the first `times` requests of each connection with 503, and then with
/// 202.
fn reject_first(times: usize) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            std::thread::spawn(move || {
                let mut responses = 0;
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    while stream.read_line(&mut line).unwrap_or_default() > 2 {
                        if let Some(value) =
                            line.to_ascii_lowercase().strip_prefix("content-length: ")
                        {
                            length = value.trim().parse().unwrap();
                        }
                        line.clear();
                    }
                    if std::io::Read::read_exact(&mut stream, &mut vec![0; length]).is_err()
                        || length == 0
                    {
                        return;
                    }
                    let status = if responses < times {
                        "503 Service Unavailable"
                    } else {
                        "202 Accepted"
                    };
                    responses += 1;
                    let response = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    std::io::Write::write_all(stream.get_mut(), response.as_bytes()).unwrap();
                }
            });
        }
    });
    url
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

#[test]
fn printing_devices_ends_when_the_reader_does() {
    let mut command = Command::new(PROGRAM);
    let mut child = command
        .args(["devices", "lv-grid"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "lt-000000");
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

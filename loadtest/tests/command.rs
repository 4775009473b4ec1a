//! The command line, against the idle server. The tests of the pipeline run it against Gridwatch.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use loadtest::harness::report::{self, Report};
use loadtest::ledger::Ledger;
use loadtest::recorder::TransportError;

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
        (
            format!("run {file} {down}"),
            &["line 2", "\"fast\"", "a number above 0"][..],
        ),
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
            format!("run firehose {down} --rate 5"),
            &["--rate", "closed loop"],
        ),
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
    let errors = &report.counts.transport_errors;
    assert_eq!(errors[&TransportError::Timeout], report.counts.errors);
    let line = format!("responses: no response in time: {}\n", report.counts.sent);
    assert!(text(&output).contains(&line), "{}", text(&output));
}

/// A server that responds to the first `times` requests of each connection with 503, and then with
/// 202.
fn reject_first(times: usize) -> String {
    serve(move |responses| match responses {
        rejected if rejected < times => ("503 Service Unavailable", ""),
        _ => ("202 Accepted", ""),
    })
}

/// A server that responds to each request with the status and the body of the function, which is
/// called with the number of responses on the connection so far.
fn serve(
    respond: impl Fn(usize) -> (&'static str, &'static str) + Copy + Send + 'static,
) -> String {
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
                    let (status, body) = respond(responses);
                    responses += 1;
                    let response = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
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

/// Runs a command whose standard output and standard error nobody reads.
fn run_unread(command: &mut Command) -> Option<i32> {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    command.stdout(closed()).stderr(closed());
    command.status().unwrap().code()
}

#[test]
fn a_command_whose_output_nobody_reads_ends_quietly_with_its_exit_code() {
    let (server, directory) = (IdleServer::start(), tempfile::tempdir().unwrap());
    let report = directory.path().join("report");
    // Long enough for a line of progress.
    let more = ["--duration", "6s", "--rate", "100"];
    let mut run = server.run("trickle", &report, &more);
    assert_eq!(run_unread(&mut run), Some(0));
    assert!(report.join(report::FILE).is_file());
    let report = report.to_str().unwrap();
    for (arguments, code) in [
        (&["schema"][..], 0),
        (&["schema", "--matrix"], 0),
        (&["devices", "lv-grid"], 0),
        (&["compare", report, report], 0),
        (&["--help"], 0),
        (&["compare", report, "/nowhere"], 2),
        (&["run", "no-such"], 2),
    ] {
        let actual = run_unread(Command::new(PROGRAM).args(arguments));
        assert_eq!(actual, Some(code), "{arguments:?}");
    }
}

#[test]
fn the_help_of_the_command_and_of_run_shows_how_to_register_the_devices() {
    for arguments in [&["--help"][..], &["run", "--help"]] {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        let help = text(&output);
        assert!(
            help.contains("loadtest devices lv-grid | xargs gridwatch devices add"),
            "{help}"
        );
    }
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

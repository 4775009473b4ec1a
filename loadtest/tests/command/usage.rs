//! Flags, help texts and output.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use loadtest::harness::report;

use crate::support::*;

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
        (
            "verify --database-url x".to_owned(),
            &["--database-url", "postgres://user"],
        ),
        (
            "verify --database-url-file /nowhere".to_owned(),
            &["--database-url-file", "check the path"],
        ),
        (
            "verify --database-url-file /dev/null".to_owned(),
            &["the file is empty; it must hold the URL"],
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
fn a_report_that_cannot_be_written_is_refused_before_anything_is_sent() {
    let (server, directory) = (IdleServer::start(), tempfile::tempdir().unwrap());
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for report in [&file, &file.join("below")] {
        let output = server.run("trickle", report, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("--report"), "{}", text(&output));
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"");
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

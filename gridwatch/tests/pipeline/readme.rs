//! The commands of README.md, from top to bottom, in one shell.
//!
//! Every block that is marked `sh` runs as it is written, with these replacements: the addresses of
//! README are free ones, the servers are the private ones of the tests, and `cargo`, `apt-get` and
//! `sudo` do nothing but run the command behind them.

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::*;

/// Stops at the first command that fails, and leaves no process behind.
const PREAMBLE: &str = "set -euo pipefail\n\
    trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n";

/// What each of these commands of README must print, so that a command that does nothing is
/// noticed.
const EXPECTED: &[&str] = &[
    r#""accepted":1"#,
    "95 accepted, 1 rejected",
    "applied V1__pipeline",
    r#""count":95,"coverage":null,"min":50.4"#,
    "2019-01-17 21:00:00+00:00     12",
    "2019-01-17 23:45:00+00",
    "verified: every accepted reading is stored once",
];

/// The blocks of a Markdown text that are marked `sh`, each behind a line that prints its first
/// line number.
fn shell_blocks(text: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        match line {
            "```sh" => {
                inside = true;
                writeln!(script, "echo '--- README.md:{}'", number + 2).unwrap();
            }
            "```" => inside = false,
            _ if inside => writeln!(script, "{line}").unwrap(),
            _ => {}
        }
    }
    script
}

/// Writes an executable shell script.
fn write_program(directory: &Path, name: &str, body: &str) {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

fn quoted(text: &std::ffi::OsStr) -> String {
    format!("'{}'", text.to_str().unwrap().replace('\'', r"'\''"))
}

/// `rabbitmqctl` of the private node.
fn rabbitmqctl() -> String {
    let command = SHARED.rabbitmq.control_command().unwrap();
    let mut script = String::from("exec env");
    for (name, value) in command.get_envs() {
        let value = value.unwrap_or_default();
        write!(script, " {}={}", name.to_str().unwrap(), quoted(value)).unwrap();
    }
    write!(script, " {}", quoted(command.get_program())).unwrap();
    for argument in command.get_args() {
        write!(script, " {}", quoted(argument)).unwrap();
    }
    script + r#" "$@""#
}

#[test]
fn the_commands_of_the_readme_work_from_top_to_bottom() {
    let programs = program().parent().unwrap();
    assert!(
        programs.join("loadtest").is_file(),
        "{} has no program 'loadtest': build it with 'cargo build -p loadtest --bins'",
        programs.display()
    );
    let directory = tempfile::tempdir().unwrap();
    let shims = directory.path().join("shims");
    std::fs::create_dir(&shims).unwrap();
    write_program(&shims, "cargo", ":");
    write_program(&shims, "apt-get", ":");
    let as_user = r#"if [ "$1" = -u ]; then shift 2; fi; exec "$@""#;
    write_program(&shims, "sudo", as_user);
    write_program(&shims, "rabbitmqctl", &rabbitmqctl());
    symlink(root().join("gridwatch"), directory.path().join("gridwatch")).unwrap();

    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let postgres = SHARED.postgres.address();
    let mut script = PREAMBLE.to_owned() + &shell_blocks(&readme);
    for (address, replacement) in [
        ("127.0.0.1:8080", free_address()),
        ("127.0.0.1:8081", free_address()),
        ("127.0.0.1:8082", free_address()),
        ("127.0.0.1:8090", free_address()),
        ("127.0.0.1:8091", free_address()),
        ("127.0.0.1:5432", postgres.clone()),
        ("127.0.0.1:5672", SHARED.rabbitmq.address()),
    ] {
        assert!(script.contains(address), "README does not use {address}");
        script = script.replace(address, &replacement);
    }
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{path}", shims.display(), programs.display());
    let (host, port) = postgres.split_once(':').unwrap();
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .current_dir(directory.path())
        .env("PATH", path)
        .env("PGHOST", host)
        .env("PGPORT", port)
        .env("PGUSER", "postgres")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}:\n{text}", output.status);
    for expected in EXPECTED {
        assert!(
            text.contains(expected),
            "{expected:?} was not printed:\n{text}"
        );
    }
}

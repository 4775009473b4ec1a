//! The operator's commands: their output and their exit codes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use testbed::process::Process;
use testbed::wait::until;

use crate::support::*;

#[test]
fn a_wrong_flag_file_or_url_gives_an_error_message_and_exit_code_2() {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(b"[worker]\nwritters = 3\n").unwrap();
    let config = config.path().to_str().unwrap();
    let amqp = "amqp://guest:guest@127.0.0.1:1/t";
    let database = "postgres://nobody:hunter2@127.0.0.1:1/none";
    for (arguments, expected) in [
        (
            &["worker", "--writters", "3"][..],
            "unexpected argument '--writters'",
        ),
        (&["worker"], "--amqp-url"),
        (
            &["--config", config, "worker"],
            "unknown key 'writters' in [worker]",
        ),
        (
            &["--config", "/nowhere.toml", "worker"],
            "cannot read /nowhere.toml",
        ),
        (
            &[
                "ingest-api",
                "--listen",
                "here",
                "--amqp-url",
                amqp,
                "--database-url",
                database,
            ],
            "--listen",
        ),
        (
            &[
                "ingest-api",
                "--amqp-url",
                "http://x",
                "--database-url",
                database,
            ],
            "not an AMQP URL",
        ),
        (
            &[
                "worker",
                "--amqp-url",
                amqp,
                "--database-url",
                "postgres//x:hunter2",
            ],
            "not a PostgreSQL URL",
        ),
        (
            &[
                "--log",
                "a=b=c",
                "worker",
                "--amqp-url",
                amqp,
                "--database-url",
                database,
            ],
            "--log",
        ),
        (
            &[
                "devices",
                "add",
                "a\tb",
                "--metric",
                "p",
                "--database-url",
                database,
            ],
            "no control characters",
        ),
        (
            &[
                "devices",
                "add",
                "a",
                "--metric",
                "p:W",
                "--metric",
                "p:kW",
                "--database-url",
                database,
            ],
            "metric 'p' is given with different units: 'W' and 'kW'",
        ),
        (
            &["import", "/nowhere.csv", "--device", "d", "--metric", "m"],
            "/nowhere.csv: cannot be read",
        ),
        (
            &[
                "import", config, "--device", "d", "--metric", "m", "--url", "ftp://x",
            ],
            "expected http://HOST:PORT",
        ),
        (
            &["import", config, "--device", "d", "--metric", "m"],
            "at least two columns",
        ),
        (&["import", config], "at least two columns"),
        (
            &["import", config, "--time-zone", "Berlin"],
            "expected the IANA name of a zone",
        ),
        (&["import", config, "--kind", "sprockets"], "not valid JSON"),
        (
            &["readings", "d", "--url", "127.0.0.1:8090"],
            "expected http://HOST:PORT",
        ),
        (
            &["readings", "d", "--json", "--plot"],
            "cannot be used with",
        ),
        (&["export", "--device", "d", "--from", "2026-01-01"], "--to"),
    ] {
        let output = gridwatch(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains(expected),
            "{arguments:?}: expected {expected:?}, got {stderr:?}"
        );
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn a_database_that_is_unavailable_gives_an_error_message_and_exit_code_1() {
    let database = "postgres://nobody:hunter2@127.0.0.1:1/none";
    for arguments in [&["migrate"][..], &["devices", "add", "a", "--metric", "p"]] {
        let output = gridwatch(&[arguments, &["--database-url", database]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        let expected = "cannot connect to PostgreSQL at 127.0.0.1:1/none";
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn two_concurrent_migrations_apply_once_and_a_third_changes_nothing() {
    let site = Site::new().with_database(SHARED.empty_database());
    let migrate = || gridwatch(&["migrate", "--database-url", &site.database_url]);
    let (first, second) = std::thread::scope(|scope| {
        let (a, b) = (scope.spawn(migrate), scope.spawn(migrate));
        (a.join().unwrap(), b.join().unwrap())
    });
    let mut applied = 0;
    for output in [first, second] {
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        for migration in ["applied V1__pipeline", "applied V2__readings_by_name"] {
            applied += stdout.matches(migration).count();
        }
    }
    assert_eq!(applied, 2);
    let again = migrate();
    assert!(
        again.status.success() && String::from_utf8_lossy(&again.stdout).contains("up to date"),
        "{again:?}"
    );
}

#[test]
fn a_worker_without_tables_reports_the_command_that_creates_them() {
    let mut site = Site::new().with_database(SHARED.empty_database());
    site.books_cannot_balance("there are no tables");
    let admin = free_address();
    let arguments = [
        "worker",
        "--admin",
        &admin,
        "--amqp-url",
        &site.amqp_url,
        "--database-url",
        &site.database_url,
    ];
    let worker = Process::start(program(), &arguments, &admin, site.directory.path()).unwrap();
    until("the worker names the command", LIMIT, || {
        worker
            .admin("/readyz")
            .is_ok_and(|response| response.contains("run 'gridwatch migrate'"))
    });
}

#[test]
fn devices_are_added_once_and_keep_their_units() {
    let site = Site::new().with_database(SHARED.empty_database());
    let run = |arguments: &[&str]| {
        let output = gridwatch(&[arguments, &["--database-url", &site.database_url]].concat());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let add = |arguments: &[&str]| run(&[&["devices", "add"], arguments].concat());
    let (code, text) = add(&["meter-1", "--metric", "power:W"]);
    assert!(
        code == Some(1) && text.contains("run 'gridwatch migrate'"),
        "{text}"
    );
    assert_eq!(run(&["migrate"]).0, Some(0));
    for (arguments, expected) in [
        (
            &["meter-1", "--metric", "power:W", "--metric", "power:W"][..],
            "devices: 1 new, 0 already registered\nseries: 1 new, 0 already registered\n",
        ),
        (
            &[
                "meter-1", "meter-2", "--metric", "power", "--metric", "a:b:A",
            ],
            "devices: 1 new, 1 already registered\nseries: 3 new, 1 already registered\n",
        ),
        (
            &["meter-2", "--metric", "power:W"],
            "devices: 0 new, 1 already registered\nseries: 0 new, 1 already registered\n\
             units: 1 set on series that had none\n",
        ),
    ] {
        assert_eq!(
            add(arguments),
            (Some(0), expected.to_owned()),
            "{arguments:?}"
        );
    }
    let (code, text) = add(&["meter-2", "meter-3", "--metric", "power:kW"]);
    let expected = "device 'meter-2', metric 'power': stored 'W', given 'kW'";
    assert!(
        code == Some(1) && text.contains(expected) && text.contains("nothing was registered"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imported_file_lists_its_rejected_readings_by_line() {
    let site = Site::running();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        "id,when,usage\n\
         1,2019-01-01 00:15:00,55.09\n\
         2,2019-01-01T00:30:00Z,NaN\n\
         3,then,1\n\
         broken\n\
         4,2019-01-01 00:45:00,55\n"
    )
    .unwrap();
    let url = format!("http://{}", site.listen);
    let path = file.path().to_str().unwrap();
    let import = [
        "import", path, "--device", "meter", "--metric", "energy", "--url", &url,
    ];
    let columns = [
        "--time-column",
        "when",
        "--value-column",
        "usage",
        "--batch",
        "3",
    ];
    let without_zone = gridwatch(&[&import[..], &columns].concat());
    let stderr = String::from_utf8_lossy(&without_zone.stderr).into_owned();
    assert_eq!(without_zone.status.code(), Some(2), "{without_zone:?}");
    assert!(
        stderr.contains("line 2:") && stderr.contains("--time-zone"),
        "{stderr}"
    );
    let output = gridwatch(&[&import[..], &columns, &["--time-zone", "UTC"]].concat());
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    for expected in [
        "2 accepted, 3 rejected",
        "line 3: value_not_finite",
        "line 4: bad_timestamp",
        "line 5: bad_row: 1 field, but the header has 3",
    ] {
        assert!(
            stdout.contains(expected),
            "expected {expected:?}, got {stdout}"
        );
    }
    site.wait_in_ledger(2).await;
    let expected = "SELECT count(*) FROM readings_by_name
        WHERE device = 'meter' AND metric = 'energy' AND (measured_at, value) IN
        (('2019-01-01 00:15:00+00', 55.09), ('2019-01-01 00:45:00+00', 55))";
    assert_eq!(site.query_int(expected).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_of_a_real_meter_is_imported() {
    let Some(file) = meter_file() else {
        eprintln!("skipped: the file of the meter is not beside this checkout");
        return;
    };
    let site = Site::running();
    let url = format!("http://{}", site.listen);
    let output = gridwatch(&[
        "import",
        file.to_str().unwrap(),
        "--device",
        "meter",
        "--metric",
        "energy",
        "--time-zone",
        "UTC",
        "--url",
        &url,
    ]);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(
        stdout.contains("2974 accepted, 1 rejected") && stdout.contains("value_not_finite: 1"),
        "{stdout} {output:?}"
    );
    site.wait_in_ledger(2_974).await;
    assert_eq!(site.query_int("SELECT count(*) FROM reading").await, 2_974);
    assert_eq!(
        site.query_int(
            "SELECT count(*) FROM gridwatch_reading_days()
             WHERE day < '2019-02-02' AND day >= '2019-01-01'"
        )
        .await,
        31
    );
    site.assert_books().await;
}

#[test]
fn the_demo_stores_its_readings_ignores_the_environment_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (listen, admin) = (free_address(), free_address());
    let mut demo = Command::new(program())
        .args([
            "demo", "--fleet", "50", "--listen", &listen, "--admin", &admin,
        ])
        .env("TMPDIR", directory.path())
        .env("HOME", directory.path().join("home"))
        .env_remove("XDG_CACHE_HOME")
        .env(
            "GRIDWATCH_DATABASE_URL",
            "postgres://nobody@127.0.0.1:1/none",
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(demo.stdout.take().unwrap());
    let mut lines = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        let is_last = line.contains("running until Ctrl-C");
        lines.push(line);
        if is_last {
            break;
        }
    }
    let pid = demo.id().to_string();
    let kill = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(kill.unwrap().success());
    let status = demo.wait().unwrap();
    let text = lines.join("\n");
    assert!(status.success(), "{status}: {text}");
    // 50 devices with two metrics, for 30 seconds, and a day of the real meter: its 96 rows without
    // the one that is not a number, which is not sent.
    for (name, count) in [("accepted", 3_095), ("rejected", 0), ("persisted", 3_095)] {
        let expected = format!("{name:<24}{count:>12}");
        assert!(lines.contains(&expected), "{expected:?} is not in:\n{text}");
    }
    assert!(text.contains("received_to_persisted"), "{text}");
    for expected in ["real: meter 'meter-1', 2019-01-17", "simulated: 50 devices"] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
    let left: Vec<_> = directory.path().read_dir().unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

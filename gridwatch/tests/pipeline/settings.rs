//! Settings from the environment, and servers that are unavailable at the start.

use std::path::Path;
use std::process::{Command, Output};

use testbed::process::Process;
use testbed::wait::until_async;

use crate::support::*;

const NO_AMQP: &str = "amqp://guest:hunter2@127.0.0.1:1/t";
const NO_DATABASE: &str = "postgres://nobody:hunter2@127.0.0.1:1/none";

/// Runs a command with these variables and with no other of Gridwatch.
fn with_variables(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program());
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.to_string_lossy().starts_with("GRIDWATCH_")) {
        command.env_remove(name);
    }
    let variables = variables.iter().copied();
    command.args(arguments).envs(variables).output().unwrap()
}

#[test]
fn a_wrong_or_missing_variable_is_named_and_the_exit_code_is_2() {
    let urls = [
        ("GRIDWATCH_AMQP_URL", NO_AMQP),
        ("GRIDWATCH_DATABASE_URL", NO_DATABASE),
    ];
    for (command, variable, expected) in [
        (
            "worker",
            ("GRIDWATCH_WRITERS", "0"),
            "GRIDWATCH_WRITERS: '0': expected a whole number from 1 to 1000",
        ),
        (
            "worker",
            ("GRIDWATCH_LOG", "debgu"),
            "GRIDWATCH_LOG: 'debgu': 'debgu' is not a level",
        ),
        (
            "ingest-api",
            ("GRIDWATCH_SINK", "kafka"),
            "GRIDWATCH_SINK: 'kafka': expected queue or direct",
        ),
        (
            "ingest-api",
            ("GRIDWATCH_MAX_BODY_BYTES", "0"),
            "GRIDWATCH_MAX_BODY_BYTES: '0': expected a size from 1 to 1GiB",
        ),
        (
            "ingest-api",
            ("GRIDWATCH_AMQP_URL", ""),
            "--amqp-url is missing: give it as the flag",
        ),
        (
            "worker",
            ("GRIDWATCH_DATABASE_URL", ""),
            "--database-url is missing: give it as the flag",
        ),
        (
            "worker",
            ("GRIDWATCH_DATABASE_URL", "postgres://u:hunt@er2@db/x"),
            "more than one '@'",
        ),
        (
            "ingest-api",
            ("GRIDWATCH_LISTEN", "192.0.2.1:8080"),
            "--listen 192.0.2.1:8080: this machine does not have the address",
        ),
    ] {
        let output = with_variables(&[command], &[&urls[..], &[variable]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{variable:?}: {stderr}");
        assert!(stderr.contains(expected), "{variable:?}: {stderr}");
        assert!(
            !stderr.contains("hunter2") && !stderr.contains("er2@"),
            "{stderr}"
        );
    }
    let output = with_variables(&["ingest-api"], &urls[1..]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--amqp-url is missing"), "{stderr}");
}

#[test]
fn a_command_without_its_server_exits_with_code_1_and_warns_of_a_misspelled_variable() {
    let variables = [
        ("GRIDWATCH_DATABASE_URL", NO_DATABASE),
        ("GRIDWATCH_DATABSE_URL", "x"),
    ];
    let output = with_variables(&["migrate"], &variables);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for expected in [
        "cannot connect to PostgreSQL at 127.0.0.1:1/none: Connection refused;",
        "GRIDWATCH_DATABSE_URL is not a setting",
        "the nearest setting is GRIDWATCH_DATABASE_URL",
    ] {
        assert!(stderr.contains(expected), "{stderr}");
    }
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_waits_for_its_database_server_and_then_creates_the_tables() {
    let mut servers = FRAGILE.lock().await;
    let database_url = servers.empty_database();
    servers.postgres.crash().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--database-url", &database_url];
    let mut standalone = Standalone::start(directory.path(), &flags);
    let (process, listen) = (&mut standalone.process, &standalone.listen);
    let reason = "Connection refused; retrying; check --database-url\"";
    until_async(
        "standalone reports why it is not ready",
        LIMIT,
        async || {
            process
                .admin("/readyz")
                .is_ok_and(|response| response.contains(reason))
        },
    )
    .await;
    let log = process.log();
    assert!(!log.contains("os error"), "{log}");
    assert!(log.contains("retrying until it succeeds"), "{log}");

    servers.postgres.restart().unwrap();
    process.wait_ready();
    let client = http_client();
    let body = reading("m", "p", 1, 1.0).to_string();
    until_async("a reading is accepted", LIMIT, async || {
        let response = post_readings(&client, listen, "", &[JSON], body.clone()).await;
        response.is_ok_and(|response| response.status == 202)
    })
    .await;
    let sql = connect(&database_url).await;
    until_async("the reading is stored", LIMIT, async || {
        let rows = sql.query_one("SELECT count(*) FROM reading", &[]).await;
        rows.is_ok_and(|row| row.get::<_, i64>(0) == 1)
    })
    .await;
    drop(sql);

    // A stop while it waits is a stop.
    servers.postgres.crash().unwrap();
    standalone.stop();
    let waiting = Standalone::start(directory.path(), &flags);
    until_async("standalone waits again", LIMIT, async || {
        waiting
            .process
            .admin("/readyz")
            .is_ok_and(|response| response.contains(reason))
    })
    .await;
    waiting.stop();
    servers.postgres.restart().unwrap();
}

/// Creates tables of the first version. Returns the URL and a connection.
async fn old_tables() -> (String, tokio_postgres::Client) {
    let url = SHARED.migrated_database();
    let sql = connect(&url).await;
    // The row of the history has the checksum of the file.
    let first_version = format!(
        "CREATE TEMPORARY TABLE history AS
             SELECT * FROM refinery_schema_history WHERE version = 1;
         DROP SCHEMA public CASCADE; CREATE SCHEMA public;
         {}
         CREATE TABLE refinery_schema_history AS SELECT * FROM history;
         ALTER TABLE refinery_schema_history ADD PRIMARY KEY (version)",
        include_str!("../../../schema/migrations/V1__pipeline.sql")
    );
    sql.batch_execute(&first_version).await.unwrap();
    (url, sql)
}

/// Starts a front end and a worker in one process on these tables. Waits until the reason is
/// reported.
async fn start_on_old_tables(
    command: &[&str],
    url: &str,
    directory: &Path,
    reason: &str,
) -> Process {
    let (listen, admin) = (free_address(), free_address());
    let flags = ["--listen", &listen, "--admin", &admin, "--database-url"];
    let arguments = [command, &flags, &[url]].concat();
    let process = Process::start(program(), &arguments, &admin, directory).unwrap();
    until_async("the reason is reported", LIMIT, async || {
        process
            .admin("/readyz")
            .is_ok_and(|response| response.contains(reason))
    })
    .await;
    process
}

/// Asserts that the process was unready for this reason first, for no reason twice, and then ready.
fn assert_ready_once(process: &Process, reason: &str) {
    let log = process.log();
    let mut reasons = Vec::new();
    for line in log.lines() {
        match line.split_once("component=\"database\"") {
            Some((_, reason)) => reasons.push(reason),
            None => continue,
        }
    }
    let [first, .., last] = reasons[..] else {
        panic!("two lines: {log}")
    };
    assert!(first.contains(reason), "{log}");
    assert_eq!(last, "", "it is not ready: {log}");
    let distinct: std::collections::BTreeSet<_> = reasons.iter().collect();
    assert_eq!(distinct.len(), reasons.len(), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_on_tables_of_the_first_version_is_unready_until_they_are_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let (url, _) = old_tables().await;
    let reason = "run 'gridwatch migrate'";
    let command = [
        "ingest-api",
        "--unknown-devices",
        "reject",
        "--sink",
        "direct",
    ];
    let mut process = start_on_old_tables(&command, &url, directory.path(), reason).await;
    assert!(!process.ready());
    let migrated = with_variables(&["migrate", "--database-url", &url], &[]);
    assert!(migrated.status.success(), "{migrated:?}");
    process.wait_ready();
    assert_ready_once(&process, reason);
    assert!(process.terminate().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_whose_migration_is_refused_reports_the_refusal_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (url, sql) = old_tables().await;
    // It may use the tables, but not create any.
    let setup = "CREATE ROLE reader LOGIN; GRANT pg_read_all_data, pg_write_all_data TO reader";
    sql.batch_execute(setup).await.unwrap();
    let (_, host) = url.split_once('@').unwrap();
    let url_of_role = format!("postgres://reader@{host}");
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let command = ["standalone", "--unknown-devices", "reject", "--data", data];
    let reason = "permission denied";
    let mut process = start_on_old_tables(&command, &url_of_role, directory.path(), reason).await;
    assert!(
        process
            .log()
            .contains("cannot create or update the tables yet")
    );
    sql.batch_execute("ALTER ROLE reader SUPERUSER")
        .await
        .unwrap();
    process.wait_ready();
    assert_ready_once(&process, reason);
    assert!(process.terminate().unwrap().success());
    let remove = "REASSIGN OWNED BY reader TO CURRENT_USER; DROP OWNED BY reader; DROP ROLE reader";
    sql.batch_execute(remove).await.unwrap();
}

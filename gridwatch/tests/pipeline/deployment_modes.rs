//! The other deployment modes: queued with a spool, direct (without a queue) and standalone.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pglite_oxide::PgliteServer;
use serde_json::json;
use testbed::faulty_proxy::Condition;
use testbed::process::Process;
use testbed::wait::until_async;

use crate::support::*;

/// A site with a worker and with a front end that has a spool and reaches the broker through a
/// faulty proxy.
async fn with_spool(more: &[&str]) -> Site {
    start_with_spool(Site::new(), more).await
}

async fn start_with_spool(site: Site, more: &[&str]) -> Site {
    let mut site = site.behind_proxy(Role::FrontEnd).await;
    site.start_worker(&[]);
    start_front_end_with_spool(&mut site, more);
    site
}

fn start_front_end_with_spool(site: &mut Site, more: &[&str]) {
    let spool = site.directory.path().join("spool");
    let spooled = [
        "--unknown-devices",
        "register",
        "--spool-after",
        "300ms",
        "--spool",
        spool.to_str().unwrap(),
    ];
    site.start_ingest(&[&spooled[..], more].concat());
}

async fn wait_state(process: &Process, state: &str) {
    let expected = format!("\"state\":\"{state}\"");
    until_async(&format!("the process is {state}"), LIMIT, async || {
        process
            .admin("/readyz")
            .is_ok_and(|response| response.contains(&expected))
    })
    .await;
}

async fn wait_drained(process: &Process) {
    until_async("the spool is empty", LIMIT, async || {
        process.metric("gridwatch_spool_readings") == 0.0
    })
    .await;
    wait_state(process, "ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spooled_readings_survive_an_outage_of_the_broker_and_a_kill_of_the_front_end() {
    let mut site = with_spool(&[]).await;
    let proxy = site.proxy();
    let load = LoadClients::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    proxy.set(Condition::Disconnected);
    wait_state(site.ingest(), "degraded").await;
    load.wait_accepted(2_000).await;
    let mut sent = load.stop().await;
    assert!(
        sent.iter().all(|sent| sent.accepted),
        "a request was refused although there is a spool"
    );
    let spooled = async |site: &Site| {
        until_async(
            "readings are in the spool, and the oldest has an age",
            LIMIT,
            async || {
                site.ingest().metric("gridwatch_spool_readings") >= 2_000.0
                    && site.ingest().metric("gridwatch_spool_oldest_age_seconds") > 0.0
            },
        )
        .await;
    };
    spooled(&site).await;
    // Killed with readings on its disk. The next process on the same directory delivers them
    // while new readings arrive.
    site.kill_ingest();
    start_front_end_with_spool(&mut site, &[]);
    spooled(&site).await;
    let load = LoadClients::start_on(&site.listen, "later", 4, 20);
    load.wait_accepted(1_000).await;
    proxy.set(Condition::HEALTHY);
    wait_drained(site.ingest()).await;
    load.wait_accepted(1_000).await;
    sent.extend(load.stop().await);
    assert_stored(&site, &sent).await;
    site.assert_all_acknowledged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_spool_no_request_fails_while_the_broker_stalls_or_blocks() {
    let servers = FRAGILE.lock().await;
    let site = start_with_spool(Site::on_servers(&servers), &[]).await;
    let proxy = site.proxy();
    let load = LoadClients::start(&site, 8, 20);
    load.wait_accepted(500).await;
    proxy.set(Condition::Stalled);
    load.wait_accepted(2_000).await;
    proxy.set(Condition::HEALTHY);
    wait_drained(site.ingest()).await;
    servers
        .rabbitmq
        .control(&["set_vm_memory_high_watermark", "0.00001"])
        .unwrap();
    wait_state(site.ingest(), "degraded").await;
    load.wait_accepted(2_000).await;
    servers
        .rabbitmq
        .control(&["set_vm_memory_high_watermark", "0.4"])
        .unwrap();
    wait_drained(site.ingest()).await;
    let sent = load.stop().await;
    assert!(
        sent.iter().all(|sent| sent.accepted),
        "a request was refused although there is a spool"
    );
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_refuses_readings_reports_it_and_recovers() {
    let site = with_spool(&["--spool-max-bytes", "1048576"]).await;
    let proxy = site.proxy();
    assert_eq!(site.post(reading("m", "p", 0, 0.0)).await.status, 202);
    proxy.set(Condition::Disconnected);
    let load = LoadClients::start(&site, 8, 1_000);
    until_async("the spool is full", LIMIT, async || {
        site.ingest()
            .admin("/readyz")
            .is_ok_and(|response| response.contains("\"spool\":\"full\""))
    })
    .await;
    assert!(!site.ingest().ready());
    let full = site
        .post(json!(
            (0..1_000)
                .map(|at| reading("m", "p", 1 + at, 1.0))
                .collect::<Vec<_>>()
        ))
        .await;
    assert_eq!(
        (
            full.status.as_u16(),
            full.headers.contains_key("retry-after")
        ),
        (503, true),
        "{}",
        full.text()
    );
    proxy.set(Condition::HEALTHY);
    wait_drained(site.ingest()).await;
    load.wait_accepted(5_000).await;
    let mut sent = load.stop().await;
    sent.push(SentRequest::of_one("m", 0, true));
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_that_a_slow_broker_accepts_after_the_deadline_are_counted_as_unconfirmed() {
    let site = with_spool(&["--spool-max-bytes", "1048576"]).await;
    let proxy = site.proxy();
    let load = LoadClients::start(&site, 8, 1_000);
    load.wait_accepted(10_000).await;
    proxy.set(Condition::Delayed(Duration::from_millis(800)));
    let unconfirmed = "gridwatch_readings_unavailable_total{reason=\"unconfirmed\"}";
    until_async("readings are unconfirmed", LIMIT, async || {
        site.ingest().metric(unconfirmed) >= 5_000.0
    })
    .await;
    proxy.set(Condition::HEALTHY);
    wait_drained(site.ingest()).await;
    let sent = load.stop().await;
    assert!(
        sent.iter().any(|sent| !sent.accepted),
        "no request was refused"
    );
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

/// Starts front ends with a limit on the size of files, which the kernel reports as a full disk:
/// 2 MiB, or 4 MiB where the shell counts in kibibytes.
fn limit_file_size(site: &mut Site) {
    let script = site.directory.path().join("with-limited-file-size");
    let program = program().display();
    let text = format!("#!/bin/sh\ntrap '' XFSZ\nulimit -f 4096\nexec '{program}' \"$@\"\n");
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    site.front_end_program = script;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_on_a_full_disk_refuses_readings_reports_it_and_recovers() {
    let mut site = Site::new();
    limit_file_size(&mut site);
    let site = start_with_spool(site, &[]).await;
    let proxy = site.proxy();
    let load = LoadClients::start(&site, 8, 1_000);
    // Twice: draining the spool has freed the disk space.
    for _ in 0..2 {
        let before = site.ingest().metric("gridwatch_spooled_readings_total");
        proxy.set(Condition::Disconnected);
        until_async("the disk of the spool is full", LIMIT, async || {
            site.ingest()
                .admin("/readyz")
                .is_ok_and(|response| response.contains("its disk cannot be written"))
        })
        .await;
        let spooled = site.ingest().metric("gridwatch_spooled_readings_total") - before;
        assert!(spooled > 10_000.0, "{spooled}");
        proxy.set(Condition::HEALTHY);
        wait_drained(site.ingest()).await;
        load.wait_accepted(5_000).await;
    }
    let sent = load.stop().await;
    assert!(
        sent.iter().any(|sent| !sent.accepted),
        "no request was refused"
    );
    assert_stored(&site, &sent).await;
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_mode_responds_with_201_after_the_commit_and_survives_a_database_crash() {
    let mut servers = FRAGILE.lock().await;
    let mut site = Site::on_servers(&servers);
    site.start_ingest(&["--unknown-devices", "register", "--sink", "direct"]);
    let response = site
        .post(json!([reading("m", "p", 0, 0.0), {"device": "m"}]))
        .await;
    assert_eq!(
        (
            response.status.as_u16(),
            response.json()["accepted"].as_u64()
        ),
        (201, Some(1))
    );
    assert_eq!(site.query_int("SELECT count(*) FROM reading").await, 1);
    let load = LoadClients::start(&site, 8, 20);
    load.wait_accepted(2_000).await;
    servers.postgres.crash().unwrap();
    until_async("the front end is not ready", LIMIT, async || {
        !site.ingest().ready()
    })
    .await;
    servers.postgres.restart().unwrap();
    load.wait_accepted(2_000).await;
    let accepted = load.accepted() as i64;
    assert!(
        site.query_int("SELECT count(*) FROM reading").await >= accepted,
        "a response with 201 preceded the commit"
    );
    let status = site.ingest.take().unwrap().terminate().unwrap();
    assert!(status.success(), "{status}");
    let mut sent = load.stop().await;
    sent.push(SentRequest::of_one("m", 0, true));
    assert_stored(&site, &sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_loses_nothing_when_it_is_killed_or_terminated_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let mut sent = Vec::new();
    for (round, signal) in ["KILL", "TERM", "KILL", "TERM"].into_iter().enumerate() {
        let Standalone {
            mut process,
            listen,
        } = Standalone::ready(directory.path(), &[]);
        let load = LoadClients::start_on(&listen, &format!("round-{round}"), 4, 20);
        load.wait_accepted(500).await;
        process.signal(signal).unwrap();
        let status = process.wait_exit().unwrap();
        assert_eq!(
            status.success(),
            signal == "TERM",
            "{status}\n{}",
            process.log()
        );
        sent.extend(load.stop().await);
    }
    // The next process stores what is left in the queue.
    let standalone = Standalone::ready(directory.path(), &[]);
    until_async("the queue is empty", LIMIT, async || {
        standalone.process.metric("gridwatch_spool_readings") == 0.0
    })
    .await;
    standalone.stop();
    let database = directory.path().join("data/postgres");
    let server = tokio::task::spawn_blocking(|| {
        PgliteServer::builder()
            .path(database)
            .database("postgres")
            .start()
    });
    let server = server.await.unwrap().unwrap();
    let client = connect(&server.database_url()).await;
    check_stored(&client, &sent).await.unwrap();
    drop(client);
    tokio::task::spawn_blocking(|| server.shutdown())
        .await
        .unwrap()
        .unwrap();
}

/// A directory with an empty data directory, and a script there that starts Gridwatch without a
/// home directory: as the user `nobody` if the tests run as root. Its temporary files would be in
/// `temporary`.
fn without_home(parent: &Path, name: &str) -> (PathBuf, PathBuf) {
    let directory = parent.join(name);
    let temporary = directory.join("temporary");
    for created in [&directory, &directory.join("data"), &temporary] {
        std::fs::create_dir(created).unwrap();
        std::fs::set_permissions(created, Permissions::from_mode(0o777)).unwrap();
    }
    let is_root = std::fs::metadata(&directory).unwrap().uid() == 0;
    let as_user = if is_root {
        "setpriv --reuid=nobody --regid=nogroup --clear-groups"
    } else {
        ""
    };
    let script = directory.join("without-home");
    let text = format!(
        "#!/bin/sh\nunset XDG_CACHE_HOME\nexport HOME=/nonexistent TMPDIR='{}'\n\
         exec {as_user} '{}' \"$@\"\n",
        temporary.display(),
        program().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    (directory, script)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_needs_no_home_and_keeps_all_of_its_files_in_its_data_directory() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
    // Two at the same time, each with a database of its own.
    let sites = ["one", "two"].map(|name| without_home(parent.path(), name));
    let mut sent = Vec::new();
    let running: Vec<_> = sites
        .iter()
        .map(|(directory, script)| Standalone::ready_of(script, directory, &[]))
        .collect();
    for standalone in &running {
        let load = LoadClients::start_on(&standalone.listen, "home", 1, 20);
        load.wait_accepted(100).await;
        sent.push(load.stop().await);
    }
    for standalone in running {
        until_async("the queue is empty", LIMIT, async || {
            standalone.process.metric("gridwatch_spool_readings") == 0.0
        })
        .await;
        standalone.stop();
    }
    for ((directory, script), sent) in sites.iter().zip(&sent) {
        let temporary: Vec<_> = directory.join("temporary").read_dir().unwrap().collect();
        assert!(temporary.is_empty(), "{temporary:?}");
        // Moved to another place, the data directory still has everything: what is sent again is
        // known.
        let moved = directory.with_extension("moved");
        std::fs::rename(directory, &moved).unwrap();
        let script = moved.join(script.file_name().unwrap());
        let text = std::fs::read_to_string(&script).unwrap();
        let text = text.replace(directory.to_str().unwrap(), moved.to_str().unwrap());
        std::fs::write(&script, text).unwrap();
        let standalone = Standalone::ready_of(&script, &moved, &[]);
        let load = LoadClients::start_on(&standalone.listen, "home", 1, 20);
        load.wait_accepted(100).await;
        load.stop().await;
        until_async("readings are known", LIMIT, async || {
            let process = &standalone.process;
            let known = process.metric("gridwatch_readings_duplicate_total")
                + process.metric("gridwatch_readings_conflict_total");
            known >= 100.0
        })
        .await;
        assert!(!sent.is_empty());
        standalone.stop();
    }
    assert!(!Path::new("/nonexistent").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_directory_of_the_user_does_not_keep_standalone_from_its_settings() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
    let (directory, script) = without_home(parent.path(), "one");
    let data = directory.join("data");
    let own = format!("export XDG_CACHE_HOME='{}/cache'", data.display());
    let text = std::fs::read_to_string(&script).unwrap();
    std::fs::write(&script, text.replace("unset XDG_CACHE_HOME", &own)).unwrap();
    let standalone = Standalone::ready_of(&script, &directory, &[]);
    let pid = standalone.process.pid();
    let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables = String::from_utf8_lossy(&variables).into_owned();
    let home = format!("HOME={}", data.display());
    for expected in [home.as_str(), "MIMALLOC_ALLOW_THP=0"] {
        let is_set = variables.split('\0').any(|variable| variable == expected);
        assert!(is_set, "{expected} is not set");
    }
    standalone.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_standalone_on_the_same_directory_exits_with_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Standalone::ready(directory.path(), &[]);
    let data = directory.path().join("data");
    let second = gridwatch(&[
        "standalone",
        "--data",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("in use by another process"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_uses_external_servers_if_their_urls_are_given() {
    let mut site = Site::new().with_database(SHARED.empty_database());
    let external = [
        "--amqp-url",
        &site.amqp_url,
        "--database-url",
        &site.database_url,
    ];
    let standalone = Standalone::ready(site.directory.path(), &external);
    site.listen = standalone.listen.clone();
    let load = LoadClients::start(&site, 4, 20);
    load.wait_accepted(1_000).await;
    let sent = load.stop().await;
    assert_stored(&site, &sent).await;
    standalone.stop();
    assert_eq!(site.queue_length("gridwatch.readings").await, 0);
}

//! The load-test harness against the real pipeline: runs, their verification, and the matrix.
//!
//! [`crate::negative_controls`] shows that the verification detects broken promises.

use std::time::Duration;

use loadtest::harness::matrix::Plan;
use loadtest::harness::progress::Progress;
use loadtest::harness::run::{Run, RunOutcome};
use loadtest::harness::verify::{Verdict, Verify};
use loadtest::scenario::Scenario;
use loadtest::send::Target;
use testbed::faulty_proxy::Condition;
use testbed::wait::until_async;
use tokio_util::sync::CancellationToken;

use crate::support::*;

/// A scenario of a few seconds; `rest` is appended to its TOML.
pub(crate) fn scenario(rest: &str) -> Scenario {
    let head = "name = 'test'\nrate = 10000\nduration = '3s'\nwarm-up = '500ms'\n\
                batch = 50\nconnections = 16\n";
    Scenario::parse(&format!("{head}{rest}")).unwrap()
}

/// Starts a run that reads the metrics of the site's processes.
pub(crate) fn start(site: &Site, scenario: Scenario) -> tokio::task::JoinHandle<RunOutcome> {
    start_until(site, scenario, CancellationToken::new())
}

fn start_until(
    site: &Site,
    scenario: Scenario,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<RunOutcome> {
    let processes = [("front end", &site.ingest), ("worker", &site.worker)];
    let admins = processes
        .iter()
        .filter_map(|(name, process)| {
            Some((
                (*name).to_owned(),
                process.as_ref()?.admin_address().to_owned(),
            ))
        })
        .collect();
    let run = Run {
        scenario,
        target: Target::new(&format!("http://{}", site.listen)).unwrap(),
        threads: 2,
        admins,
        watched: Vec::new(),
        drain_timeout: Duration::ZERO,
        log: None,
    };
    tokio::spawn(async move { run.execute(&mut Progress::quiet(), stop).await.unwrap() })
}

/// Verifies a run with the counters of the site's processes. Waits up to `limit` until every
/// accepted reading is processed.
pub(crate) async fn verify(site: &Site, found: &RunOutcome, limit: Duration) -> Verdict {
    let processes = [&site.ingest, &site.worker];
    let admins: Vec<_> = processes
        .iter()
        .filter_map(|one| Some(one.as_ref()?.admin_address().to_owned()))
        .collect();
    verify_with(site, found, limit, &admins).await
}

async fn verify_with(
    site: &Site,
    found: &RunOutcome,
    limit: Duration,
    admins: &[String],
) -> Verdict {
    let verify = Verify {
        report: &found.report,
        ledger: &found.ledger,
        database_url: &site.database_url,
        admins,
        drain_timeout: limit,
    };
    verify.execute().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_with_every_fault_passes_verification_although_the_broker_disconnects() {
    let mut site = Site::new().behind_proxy(Role::FrontEnd).await;
    let proxy = site.proxy();
    site.start_worker(&[]);
    site.start_ingest(&["--unknown-devices", "register"]);
    let faults = "bad = 0.05\nhostile = 0.05\nlate = 0.1\nout-of-order = 0.2\nrepeated = 0.1";
    let retry = "attempts = 60\nafter = '200ms'";
    let run = start(
        &site,
        scenario(&format!(
            "[faults]\n{faults}\n[retry]\n{retry}\n[fleet]\njitter = '200ms'"
        )),
    );
    until_async("readings are accepted", LIMIT, async || {
        site.ingest().metric("gridwatch_readings_accepted_total") > 5_000.0
    })
    .await;
    proxy.set(Condition::Disconnected);
    until_async(
        "the front end detects that the broker is down",
        LIMIT,
        async || !site.ingest().ready(),
    )
    .await;
    proxy.set(Condition::HEALTHY);
    let found = run.await.unwrap();
    let verdict = verify(&site, &found, LIMIT).await;
    assert_eq!(verdict.violations, []);
    let counts = &found.report.counts;
    assert_eq!(verdict.accepted, counts.accepted);
    assert!(
        verdict.accepted > 20_000 && verdict.rejected > 1_000,
        "{verdict:?}"
    );
    assert_eq!(verdict.of_other_runs, 0, "{verdict:?}");
    assert!(counts.repeated > 0 && counts.unknown == 0, "{counts:?}");
    assert!(
        found
            .report
            .stages
            .iter()
            .any(|stage| stage.stage == "received_to_persisted"),
        "{:?}",
        found.report.stages
    );
    site.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_keeps_its_report_and_its_ledger_when_the_worker_is_killed() {
    let mut site = Site::running();
    let stop = CancellationToken::new();
    let mut long = scenario("");
    long.stretch(LIMIT);
    let run = start_until(&site, long, stop.clone());
    until_async("readings are stored", LIMIT, async || {
        site.query_int("SELECT count(*) FROM reading").await > 3_000
    })
    .await;
    site.kill_worker();
    stop.cancel();
    let found = run.await.unwrap();
    assert!(
        found.report.counts.accepted > 3_000 && found.report.books.is_none(),
        "{:?}",
        found.report
    );
    assert!(
        found
            .report
            .versions
            .iter()
            .any(|version| version.starts_with("gridwatch ")),
        "{:?}",
        found.report
    );
    site.start_worker(&[]);
    // The counters of the killed worker are lost.
    let verdict = verify_with(&site, &found, LIMIT, &[]).await;
    assert_eq!(
        (verdict.violations.as_slice(), verdict.stored),
        (&[][..], found.report.counts.accepted)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_matrix_answers_its_five_questions() {
    let plan = Plan {
        gridwatch: program().to_owned(),
        instances: 2,
        batch: 20,
        connections: 8,
        trial: Duration::from_secs(1),
        trials: 1,
        measure: Duration::from_secs(1),
        seed: 1,
    };
    let mut progress = Vec::new();
    let matrix = plan
        .execute(
            &mut |text| progress.push(text.to_owned()),
            CancellationToken::new(),
        )
        .await
        .unwrap();
    assert_eq!(
        (matrix.answers.len(), matrix.cells.len()),
        (5, 6),
        "{progress:#?}"
    );
    // The throughput while other tests run proves nothing. The test checks that every question has
    // an answer.
    for answer in &matrix.answers[..4] {
        assert!(
            answer.answer.contains("readings/s")
                && answer.answer.contains(|c: char| c.is_ascii_digit()),
            "{answer:?}"
        );
    }
    for cell in &matrix.cells {
        assert!(
            cell.ceiling_per_second > 0.0 && !cell.trials.is_empty(),
            "{cell:?}"
        );
        assert!(
            cell.bottleneck.contains("cores busy"),
            "{}",
            cell.bottleneck
        );
        let of = |name: &str| {
            cell.measured
                .iter()
                .all(|report| report.processes.iter().any(|one| one.process == name))
        };
        assert!(
            of("PostgreSQL") && of("front end") && of("load generator"),
            "{cell:?}"
        );
    }
    assert!(matrix.headroom >= 0.0 && matrix.generator_per_second > 0.0);
    let schema = serde_json::from_str(&loadtest::harness::matrix::schema()).unwrap();
    jsonschema::validate(&schema, &serde_json::to_value(&matrix).unwrap()).unwrap();
    let page = loadtest::harness::matrix::page::page(&matrix);
    assert!(
        matrix
            .answers
            .iter()
            .all(|answer| page.contains(&answer.question)),
        "{page}"
    );
}

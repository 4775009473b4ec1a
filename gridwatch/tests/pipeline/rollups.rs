//! Roll-ups of a past day on standalone, from readings that were sent over HTTP.
//!
//! Answers do not depend on roll-ups, so that the test cannot see them. It has a series on which
//! rounding makes a difference: 1e16 and then many ones add up to 1e16 one by one, and to more if
//! the ones of another quarter of an hour are added up before.

use serde_json::{Value, json};
use testbed::process::Process;
use testbed::wait::until_async;

use crate::support::*;

const LARGE: f64 = 1e16;
/// Readings of the value 1 in the second quarter of an hour.
const ONES: i64 = 300;

/// A reading every half minute of 2026-11-01, a day that is over.
fn meter() -> Value {
    let one = |n: i64| reading("m", "p", 30 * n, (n * 37 % 1_000) as f64 / 4.0);
    (0..2_880).map(one).collect()
}

fn probe() -> Value {
    let ones = (0..ONES).map(|n| reading("probe", "p", 900 + n, 1.0));
    let large = reading("probe", "p", 0, LARGE);
    std::iter::once(large).chain(ones).collect()
}

const DAY: &str = "metric=p&from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z";
const HOUR: &str = "metric=p&from=2026-11-01T00:00:00Z&to=2026-11-01T01:00:00Z";

struct Standalone {
    site: Site,
    arguments: Vec<String>,
    admin: String,
    process: Process,
}

impl Standalone {
    fn start() -> Self {
        let mut site = Site::new();
        site.books_cannot_balance("standalone has a database of its own");
        let data = site.directory.path().join("data");
        let (listen, admin) = (free_address(), free_address());
        site.listen = listen.clone();
        let data = data.to_str().unwrap();
        let arguments = [
            "standalone",
            "--data",
            data,
            "--listen",
            &listen,
            "--admin",
            &admin,
        ];
        let arguments: Vec<String> = arguments.map(Into::into).to_vec();
        let process = run(&site, &arguments, &admin);
        Self {
            site,
            arguments,
            admin,
            process,
        }
    }

    /// A process closes days when it starts, and then once a minute.
    fn restart(&mut self) {
        assert!(self.process.terminate().unwrap().success());
        self.process = run(&self.site, &self.arguments, &self.admin);
    }

    async fn get(&self, path: &str) -> Value {
        let uri = format!("http://{}{path}", self.site.listen)
            .parse()
            .unwrap();
        let response = self
            .site
            .client
            .get(uri)
            .await
            .expect("the server responds");
        serde_json::from_str(&response.text()).unwrap_or_default()
    }

    /// Sends readings, and waits until this many are stored.
    async fn store(&self, readings: Value, device: &str, count: usize) {
        assert_eq!(self.site.post(readings).await.status, 202);
        let path = format!("/v1/readings?device={device}&{DAY}");
        until_async("the readings are stored", LIMIT, async || {
            let points = &self.get(&path).await["series"][0]["points"];
            points.as_array().map_or(0, Vec::len) == count
        })
        .await;
    }

    /// What the first hour of the probe adds up to, beyond the large value.
    async fn rounded(&self) -> f64 {
        let path = format!("/v1/readings?device=probe&{HOUR}&resolution=1h&aggregates=sum");
        let body = self.get(&path).await;
        body["series"][0]["points"][0]["sum"].as_f64().unwrap() - LARGE
    }

    /// Waits until roll-ups of the probe are used, which has so many ones.
    async fn wait_for_rollups(&self, ones: i64) {
        let ones = ones as f64;
        until_async("roll-ups are used", LIMIT, async || {
            self.rounded().await == ones
        })
        .await;
    }

    /// Answers that roll-ups can give.
    async fn answers(&self) -> Vec<Value> {
        let mut answers = vec![self.get(&format!("/v1/daily?device=m&{DAY}")).await];
        let aggregates = "min,max,mean,twa,sum,count,first,last";
        for query in [
            "resolution=15m",
            "resolution=1h",
            "resolution=1d",
            "max_points=5",
        ] {
            let path = format!("/v1/readings?device=m&{DAY}&{query}&aggregates={aggregates}");
            let answer = self.get(&path).await;
            assert!(
                answer["next"].is_null() && answer["series"][0].is_object(),
                "{answer}"
            );
            answers.push(answer);
        }
        answers
    }
}

fn run(site: &Site, arguments: &[String], admin: &str) -> Process {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let directory = site.directory.path();
    let mut process = Process::start(program(), &arguments, admin, directory).unwrap();
    process.wait_ready();
    process
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roll_ups_change_no_answer_and_late_readings_are_in_it_at_once() {
    let mut standalone = Standalone::start();
    // The probe comes last, and so do its roll-ups.
    standalone.store(meter(), "m", 2_880).await;
    let ones = usize::try_from(ONES).unwrap();
    standalone.store(probe(), "probe", ones + 1).await;
    let before = standalone.answers().await;

    standalone.restart();
    standalone.wait_for_rollups(ONES).await;
    assert_eq!(standalone.answers().await, before);

    let late = json!([reading("m", "p", 45, 7_000.0)]);
    standalone.store(late, "m", 2_881).await;
    let with_late = standalone.answers().await;
    let day = &with_late[0]["series"][0]["points"][0];
    assert_eq!(
        (&day["count"], &day["max"]),
        (&json!(2_881), &json!(7_000.0)),
        "{day}"
    );
    for answer in &with_late[1..] {
        let first = &answer["series"][0]["points"][0];
        assert_eq!(first["max"], json!(7_000.0), "{answer}");
    }

    let late = json!([reading("probe", "p", 900 + ONES, 2.0)]);
    standalone.store(late, "probe", ones + 2).await;
    // The old roll-ups are not used: the readings are, or new roll-ups.
    let rounded = standalone.rounded().await;
    assert!(rounded != ONES as f64, "{rounded}");
    standalone.wait_for_rollups(ONES + 2).await;
    assert_eq!(standalone.answers().await, with_late);
    assert!(standalone.process.terminate().unwrap().success());
}

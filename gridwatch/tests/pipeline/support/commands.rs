//! Commands that ask a standalone process with an embedded database.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use testbed::wait::until_async;

use super::{Client, LIMIT, Standalone, gridwatch, http_client};

/// A standalone process with an embedded database, for commands.
pub(crate) struct Server {
    pub url: String,
    pub client: Client,
    pub directory: tempfile::TempDir,
    standalone: Standalone,
}

impl Server {
    /// Starts a process, and waits until it is ready.
    pub(crate) fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let standalone = Standalone::ready(directory.path(), more);
        Self {
            url: format!("http://{}", standalone.listen),
            client: http_client(),
            standalone,
            directory,
        }
    }

    /// Ends the process, which must succeed.
    pub(crate) fn stop(self) {
        self.standalone.stop();
    }

    /// Writes a file.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs a command against this process, which must end with this exit code.
    pub(crate) fn run(&self, arguments: &[&str], code: i32) -> Texts {
        let output = gridwatch(&[arguments, &["--url", &self.url]].concat());
        let texts = Texts::of(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {texts:?}");
        texts
    }

    /// Imports a file, with this exit code.
    pub(crate) fn import(&self, file: &Path, flags: &[&str], code: i32) -> Texts {
        let arguments = [&["import", file.to_str().unwrap()], flags].concat();
        self.run(&arguments, code)
    }

    /// The body of a response below `/v1`.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let uri = format!("{}/v1{path}", self.url).parse().unwrap();
        let response = self.client.get(uri).await.unwrap();
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    }

    /// The readings of a device in 2018 and later, when there are as many.
    pub(crate) async fn stored(&self, device: &str, metric: &str, count: usize) -> Vec<Value> {
        let path =
            format!("/readings?device={device}&metric={metric}&from=2018-01-01&to=2030-01-01");
        until_async("the readings are stored", LIMIT, async || {
            let uri = format!("{}/v1{path}", self.url).parse().unwrap();
            let body = self.client.get(uri).await.unwrap().json();
            let points = body["series"][0]["points"].as_array().map_or(0, Vec::len);
            assert!(points <= count, "{points} readings");
            points == count
        })
        .await;
        let body = self.get(&path).await;
        body["series"][0]["points"].as_array().unwrap().clone()
    }
}

/// What a command printed.
#[derive(Debug)]
pub(crate) struct Texts {
    pub stdout: String,
    pub stderr: String,
}

impl Texts {
    /// The output of a command.
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Asserts that each text was printed.
    pub(crate) fn assert_stdout(&self, expected: &[&str]) {
        for expected in expected {
            assert!(
                self.stdout.contains(expected),
                "{expected:?} is not in {self:?}"
            );
        }
    }
}

/// The samples of the tests.
pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

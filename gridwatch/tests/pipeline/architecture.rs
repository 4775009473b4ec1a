//! The dependency rules of docs/ARCHITECTURE.md, checked against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::root;

/// Which crates of the workspace a crate may depend on, besides in tests and benchmarks.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("schema", &[]),
    ("monitoring", &["schema"]),
    ("service", &["schema"]),
    ("transport", &["schema", "service"]),
    ("store", &["schema", "service"]),
    ("ingest-api", &["schema", "service", "transport", "store"]),
    ("worker", &["schema", "service", "transport", "store"]),
    ("query-api", &["schema", "service", "store"]),
    ("testbed", &["schema"]),
    ("loadtest", &["schema", "testbed"]),
    (
        "gridwatch",
        &[
            "schema",
            "service",
            "transport",
            "store",
            "ingest-api",
            "worker",
            "query-api",
            "loadtest",
        ],
    ),
];

/// External crates that only these crates may depend on, besides in tests and benchmarks.
const RESERVED: [(&str, &[&str]); 6] = [
    ("lapin", &["transport"]),
    // gridwatch opens the embedded database; loadtest and testbed read tables from outside.
    (
        "tokio-postgres",
        &["store", "gridwatch", "loadtest", "testbed"],
    ),
    ("deadpool-postgres", &["store", "gridwatch"]),
    ("refinery", &["store"]),
    ("pglite-oxide", &["gridwatch"]),
    ("axum", &["service", "ingest-api", "query-api"]),
];

/// Crates that do I/O, which `schema` must not depend on.
const IO: [&str; 6] = [
    "tokio",
    "hyper",
    "axum",
    "lapin",
    "tokio-postgres",
    "rustix",
];

/// The packages of the workspace.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The dependencies of every crate of the workspace, without those of its tests, which are
/// development dependencies or those of the feature `testing`.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let used = all.filter(|dependency| {
            let features = dependency["features"].as_array().unwrap();
            let feature = format!("dep:{}", text(&dependency["name"]));
            let testing = package["features"]["testing"].as_array();
            let is_for_tests = dependency["kind"] == "dev"
                || testing.is_some_and(|testing| testing.contains(&feature.into()));
            assert!(
                is_for_tests || !features.contains(&"testing".into()),
                "{} uses the feature 'testing' outside its tests",
                package["name"]
            );
            !is_for_tests
        });
        used.map(|dependency| text(&dependency["name"])).collect()
    };
    packages()
        .iter()
        .map(|package| (text(&package["name"]), dependencies(package)))
        .collect()
}

#[test]
fn every_crate_depends_only_on_the_crates_below_it() {
    let dependencies = dependencies();
    let crates: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let ruled: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    assert_eq!(crates, ruled, "each crate of the workspace needs its rule");
    for (name, allowed) in ALLOWED {
        let forbidden: Vec<_> = dependencies[name]
            .iter()
            .filter(|other| crates.contains(other.as_str()) && !allowed.contains(&other.as_str()))
            .collect();
        assert!(
            forbidden.is_empty(),
            "{name} must not depend on {forbidden:?}"
        );
    }
}

#[test]
fn the_released_binary_contains_the_load_generator_without_its_harness() {
    let packages = packages();
    let gridwatch = packages
        .iter()
        .find(|package| package["name"] == "gridwatch");
    let dependencies = gridwatch.unwrap()["dependencies"].as_array().unwrap();
    let loadtest: Vec<_> = dependencies
        .iter()
        .filter(|dependency| dependency["name"] == "loadtest" && dependency["kind"].is_null())
        .collect();
    assert_eq!(loadtest.len(), 1, "{loadtest:?}");
    assert_eq!(loadtest[0]["uses_default_features"], false);
    assert_eq!(loadtest[0]["features"], Value::Array(Vec::new()));
}

#[test]
fn brokers_and_databases_are_known_only_to_their_crates() {
    for (name, used) in dependencies() {
        for (external, owners) in RESERVED {
            assert!(
                !used.contains(external) || owners.contains(&name.as_str()),
                "{name} must not depend on {external}, only {owners:?} may"
            );
        }
    }
}

#[test]
fn schema_depends_on_nothing_that_does_io() {
    let schema = &dependencies()["schema"];
    for external in IO {
        assert!(!schema.contains(external), "schema depends on {external}");
    }
}

/// The files of the repository with this extension, without build output.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if path.extension().is_some_and(|own| own == extension) {
                found.push(path);
            }
        }
    }
    found
}

/// The texts in backticks of every document.
fn quoted(documents: &[PathBuf]) -> Vec<(PathBuf, String)> {
    let mut quoted = Vec::new();
    for path in documents {
        let text = std::fs::read_to_string(path).unwrap();
        let texts = text.split('`').skip(1).step_by(2);
        quoted.extend(texts.map(|text| (path.clone(), text.to_owned())));
    }
    quoted
}

#[test]
fn the_documentation_names_tests_and_files_that_exist() {
    let sources: Vec<String> = files("rs")
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let is_test_name = |text: &str| {
        text.matches('_').count() >= 4
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !text.starts_with("gridwatch_")
    };
    let is_source = |text: &str| text.ends_with(".rs") && text.contains("/src/");
    let mut checked = 0;
    for (document, text) in quoted(&files("md")) {
        let document = document.display();
        if is_test_name(&text) {
            let function = format!("fn {text}(");
            let exists = sources.iter().any(|source| source.contains(&function));
            assert!(
                exists,
                "{document} names the test {text}, which does not exist"
            );
            checked += 1;
        }
        // `a/{b,c}.rs` and `NAME.rs` are patterns, not files.
        if is_source(&text) && !text.contains(['{', '…']) && !text.contains("NAME") {
            let exists = root().join(&text).is_file();
            assert!(
                exists,
                "{document} names the file {text}, which does not exist"
            );
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} names were found");
}

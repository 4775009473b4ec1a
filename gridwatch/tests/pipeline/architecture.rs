//! The dependency rules of docs/ARCHITECTURE.md, checked against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Which crates of the workspace a crate may depend on, besides in tests and benchmarks.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("schema", &[]),
    ("service", &["schema"]),
    ("transport", &["schema", "service"]),
    ("store", &["schema", "service"]),
    ("ingest-api", &["schema", "service", "transport", "store"]),
    ("worker", &["schema", "service", "transport", "store"]),
    ("testbed", &[]),
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
            "loadtest",
        ],
    ),
];

/// External crates that only these crates may depend on, besides in tests and benchmarks.
const RESERVED: [(&str, &[&str]); 6] = [
    ("lapin", &["transport"]),
    // gridwatch opens the embedded database, and loadtest verifies the tables from outside.
    ("tokio-postgres", &["store", "gridwatch", "loadtest"]),
    ("deadpool-postgres", &["store", "gridwatch"]),
    ("refinery", &["store"]),
    ("pglite-oxide", &["gridwatch"]),
    ("axum", &["service", "ingest-api", "gridwatch"]),
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

/// The dependencies of every crate of the workspace, without those of its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let used = all.filter(|dependency| dependency["kind"] != "dev");
        used.map(|dependency| text(&dependency["name"])).collect()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
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

//! The dashboards are valid by Grafana's own types.
//!
//! Grafana publishes them as TypeScript (npm `@grafana/schema`), and no JSON Schema of them:
//! `grafana-schema.sh` derives one. It refuses members that the types do not have. What the types
//! leave open, they check no further: the queries, which the test with a real Prometheus evaluates.

use serde_json::{Value, json};

/// The schemas by name.
const SCHEMAS: &str = include_str!("grafana-schema.json");
/// Members of an annotation that belong to the plugin of Prometheus, and not to the type.
const OF_PROMETHEUS: [&str; 5] = ["expr", "step", "tagKeys", "titleFormat", "useValueForTime"];

fn dashboards() -> Vec<Value> {
    let files = monitoring::files().unwrap().into_iter();
    let files = files.filter(|file| file.path.ends_with(".json"));
    files
        .map(|file| serde_json::from_str(&file.text).unwrap())
        .collect()
}

/// What is wrong with a document, by the schema of this name.
fn errors(name: &str, document: &Value) -> Vec<String> {
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap();
    let validator = jsonschema::validator_for(&schemas[name]).unwrap();
    let errors = validator.iter_errors(document);
    errors
        .map(|error| format!("{name}{}: {error}", error.instance_path()))
        .collect()
}

fn check(dashboard: &Value) -> Vec<String> {
    let mut common = dashboard.clone();
    for annotation in common["annotations"]["list"].as_array_mut().unwrap() {
        let annotation = annotation.as_object_mut().unwrap();
        annotation.retain(|name, _| !OF_PROMETHEUS.contains(&name.as_str()));
    }
    let mut found = errors("dashboard", &common);
    for panel in dashboard["panels"].as_array().unwrap() {
        found.extend(errors("panel", panel));
        let kind = panel["type"].as_str().unwrap();
        found.extend(errors(kind, &panel["options"]));
        let custom = &panel["fieldConfig"]["defaults"]["custom"];
        match kind {
            "stat" => assert_eq!(custom, &json!({})),
            _ => found.extend(errors(&format!("{kind}Field"), custom)),
        }
    }
    found
}

#[test]
fn every_dashboard_is_valid_by_the_types_of_grafana() {
    for dashboard in dashboards() {
        let found = check(&dashboard);
        assert!(found.is_empty(), "{}: {found:#?}", dashboard["title"]);
    }
}

#[test]
fn a_member_that_grafana_does_not_know_and_a_wrong_value_are_found() {
    let valid = dashboards().remove(0);
    for (pointer, value) in [
        ("/grafTooltip", json!(1)),
        ("/graphTooltip", json!("shared")),
        ("/panels/0/tittle", json!("x")),
        ("/panels/0/options/colorMode", json!("colour")),
        ("/panels/8/fieldConfig/defaults/custom/lineWith", json!(1)),
        ("/panels/8/options/legend/placement", json!("left")),
    ] {
        let mut dashboard = valid.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        dashboard.pointer_mut(parent).unwrap()[name] = value;
        assert!(!check(&dashboard).is_empty(), "{pointer} is not found");
    }
}

#[test]
fn panels_do_not_overlap_and_titles_are_unique() {
    for dashboard in monitoring::dashboards::all() {
        let mut titles: Vec<&str> = dashboard.panels.iter().map(|panel| panel.title).collect();
        titles.sort_unstable();
        let count = titles.len();
        titles.dedup();
        assert_eq!(count, titles.len(), "{}", dashboard.title);
    }
    for dashboard in dashboards() {
        let mut cells = std::collections::BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(
                        x < 24 && cells.insert((x, y)),
                        "{}: {}",
                        dashboard["title"],
                        panel["title"]
                    );
                }
            }
        }
    }
}

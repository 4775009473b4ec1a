//! The files on the disk are the generated ones, and every alert has its section in the runbook.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use monitoring::rules::alerts;

/// The directory of the repository.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap().to_owned()
}

#[test]
fn the_files_on_the_disk_are_the_generated_ones() {
    let files = monitoring::files().unwrap();
    for file in &files {
        let text = std::fs::read_to_string(root().join(&file.path)).unwrap_or_default();
        assert!(
            text == file.text,
            "{} is not what monitoring/src generates; run 'cargo run -p monitoring'",
            file.path
        );
    }
    // A dashboard that was renamed leaves no file behind.
    let directory = "deploy/grafana/dashboards";
    for entry in std::fs::read_dir(root().join(directory)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("{directory}/{name}");
        assert!(
            files.iter().any(|file| file.path == path),
            "{path} is not generated; remove it"
        );
    }
}

#[test]
fn every_alert_has_a_section_and_every_section_is_of_an_alert_or_an_error_code() {
    let alerts: BTreeSet<&str> = alerts::all().iter().map(|alert| alert.name).collect();
    let sections: BTreeSet<&str> = service::runbook::sections().map(|(name, _)| name).collect();
    for alert in &alerts {
        assert!(
            sections.contains(alert),
            "docs/runbook.md: add a section '## {alert}'"
        );
    }
    for section in sections {
        assert!(
            alerts.contains(section) || service::api_error::CODES.contains(&section),
            "docs/runbook.md: {section} is neither an alert nor an error code"
        );
    }
}

#[test]
fn the_panels_that_the_runbook_names_exist() {
    let titles: BTreeSet<&str> = monitoring::dashboards::all()
        .iter()
        .flat_map(|dashboard| dashboard.panels.iter().map(|panel| panel.title))
        .collect();
    let dashboards: BTreeSet<String> = monitoring::dashboards::all()
        .iter()
        .map(|dashboard| dashboard.title.to_owned())
        .collect();
    // A panel is in italics. Bold text and code are no panels.
    let text = service::runbook::TEXT.replace("**", "");
    let text: String = text.split('`').step_by(2).collect();
    for name in text.split('*').skip(1).step_by(2) {
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_dashboard = dashboards
            .iter()
            .any(|title| *title == name || *title == format!("Gridwatch: {}", name.to_lowercase()))
            || name == "Worker and PostgreSQL";
        let is_panel = titles.contains(name.as_str());
        assert!(
            is_dashboard || is_panel,
            "docs/runbook.md names '{name}', which is no panel"
        );
    }
}

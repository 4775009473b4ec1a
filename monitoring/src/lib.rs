//! Grafana dashboards and Prometheus rules, as data.
//!
//! In: the names of the metrics in [`schema::metric`]; a metric that is renamed there does not
//! compile here. Out: the files of [`files`], which `cargo run -p monitoring` writes and a test
//! compares with those on the disk. An alert that links to a panel that does not exist is an error.
//!
//! [`promql`] builds queries, [`dashboards`] has one module for each dashboard, [`rules`] has the
//! recording rules, the alerts, and for each alert the fault that it is tested with.

pub mod dashboard;
pub mod dashboards;
pub mod promql;
pub mod rules;
mod unused;

pub use unused::UNUSED;

/// A generated file.
#[derive(Debug, Clone)]
pub struct File {
    /// Its path in the repository.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// Every generated file.
///
/// # Errors
/// An alert links to a panel that does not exist.
pub fn files() -> anyhow::Result<Vec<File>> {
    let dashboards = dashboards::all();
    let alerts = rules::alerts::all();
    let mut files: Vec<File> = dashboards
        .iter()
        .map(|dashboard| File {
            path: format!("deploy/grafana/dashboards/{}.json", dashboard.uid),
            text: dashboard.text(),
        })
        .collect();
    files.push(File {
        path: "deploy/prometheus/rules/gridwatch.yml".into(),
        text: rules::yaml::rules(&alerts, &dashboards)?,
    });
    files.push(File {
        path: "deploy/prometheus/rules/gridwatch.test.yml".into(),
        text: rules::yaml::tests(&alerts, &dashboards)?,
    });
    Ok(files)
}

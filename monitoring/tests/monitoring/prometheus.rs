//! `promtool` accepts the rules; each alert fires on its fault, and no other does.

use std::process::Command;

use crate::files::root;

fn promtool(arguments: &[&str]) {
    let promtool = testbed::prometheus::promtool().unwrap();
    let output = Command::new(promtool)
        .args(arguments)
        .current_dir(root().join("deploy/prometheus/rules"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "promtool {arguments:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(&["check", "rules", "gridwatch.yml"]);
}

#[test]
fn each_alert_fires_on_its_fault_and_no_other_one_does() {
    promtool(&["test", "rules", "gridwatch.test.yml"]);
}

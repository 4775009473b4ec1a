//! What the benchmarks of Gridwatch share: the program under test, the load, and the output file.

pub(crate) mod load;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use testbed::free_port;

// Arguments of every benchmark. A doc comment would replace the description in `--help`.
#[derive(Debug, clap::Args)]
pub(crate) struct CommonArguments {
    /// The gridwatch program to measure; default: the one of this build. The same benchmark can
    /// thus compare two builds. A relative path starts at the root of the workspace
    #[arg(long, value_name = "PATH")]
    gridwatch: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl CommonArguments {
    /// The absolute path of the program under test.
    ///
    /// # Errors
    /// There is no such file.
    pub(crate) fn program(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.gridwatch {
            Some(path) => in_workspace(path),
            None => PathBuf::from(env!("CARGO_BIN_EXE_gridwatch")),
        };
        let program = path
            .canonicalize()
            .with_context(|| format!("--gridwatch {}", path.display()))?;
        println!("program under test: {}", program.display());
        Ok(program)
    }
}

/// A relative path starts at the root of the workspace: cargo runs a benchmark in the directory of
/// its package.
fn in_workspace(path: &Path) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Writes the report as JSON, and prints the path.
pub(crate) fn write_report(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let file = in_workspace(path);
    std::fs::create_dir_all(file.parent().context("--out has no directory")?)?;
    std::fs::write(&file, serde_json::to_string_pretty(report)?)?;
    println!("written to {}", path.display());
    Ok(())
}

/// A free address of loopback.
pub(crate) fn free_address() -> anyhow::Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

/// Creates the tables of Gridwatch in a database.
pub(crate) fn migrate(program: &Path, url: &str) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(["migrate", "--database-url", url])
        .output()?;
    ensure!(
        output.status.success(),
        "gridwatch migrate: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

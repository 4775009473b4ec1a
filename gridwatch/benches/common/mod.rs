//! What the benchmarks have in common.

use std::path::Path;

use testbed::free_port;

/// The program that is measured.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gridwatch"))
}

/// An address of loopback that is free now.
pub fn address() -> anyhow::Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

/// The middle one of these values, or 0 where there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

//! Writes the generated files: `cargo run -p monitoring`.

use std::path::Path;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own.parent().context("the crate is not in a workspace")?;
    for file in monitoring::files()? {
        let path = root.join(&file.path);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        std::fs::write(&path, file.text).with_context(|| path.display().to_string())?;
        println!("{}", file.path);
    }
    Ok(())
}

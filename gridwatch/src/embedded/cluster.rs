//! Makes a data directory whole: no file of the database is read from a template any more.
//!
//! PGlite creates a database as a layer over a template in its cache. It copies a file of the
//! template at the first write. A kill in the middle of that copy leaves a shorter file, which
//! PGlite then uses as the whole one ("could not read blocks 0..0"). It also writes the manifests
//! of the layer at each start, and does not start if a kill has left half of one.
//!
//! In: a data directory, before the database starts. Out: a directory with every file, which PGlite
//! opens without a template. An interrupted copy is made again. It is recognised by its bytes: they
//! are the first ones of the file in the template, which is not so in a file that PostgreSQL has
//! changed. A kill in the middle of this repair loses nothing: the next start repeats it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::Deserialize;

/// Where PGlite keeps its files in the data directory, and the tables in there.
const ROOT: &str = "tmp/pglite";
const TABLES: &str = "base";
/// As long as this file is there, the tables are a layer over the template that it names.
const LAYER_MANIFEST: &str = ".pglite-oxide-pgdata-overlay.json";
/// PGlite writes it at each start, and does without it.
const RUNTIME_MANIFEST: &str = ".pglite-oxide-runtime-layout.json";
/// The templates in the cache, each in a directory with its digest as name.
const TEMPLATES: &str = "pglite-oxide/pgdata-template/v2";
/// What a file of the layer is named that hides one of the template.
const HIDDEN_PREFIX: &str = ".wh.";
/// A copy that is not complete.
const INCOMPLETE: &str = ".gridwatch-incomplete";

/// Makes the data directory whole, if it exists, is a layer, and its template is in the cache.
///
/// # Errors
/// A file cannot be read or written; the sentence names the directory.
pub(super) fn make_whole(directory: &Path) -> anyhow::Result<()> {
    let root = directory.join(ROOT);
    let tables = root.join(TABLES);
    let manifest = tables.join(LAYER_MANIFEST);
    let described = |error: io::Error| {
        anyhow::Error::new(error).context(format!("cannot repair {}", tables.display()))
    };
    remove_if_present(&root.join(RUNTIME_MANIFEST)).map_err(described)?;
    if !manifest.is_file() {
        return Ok(());
    }
    let named = fs::read_to_string(&manifest).map_err(described)?;
    let Some(template) = template(&templates(), &named).map_err(described)? else {
        return Ok(());
    };
    let incomplete = tables.join(INCOMPLETE);
    let mut hidden = Vec::new();
    let repaired = copy_missing(&template, &tables, &incomplete, &mut hidden).map_err(described)?;
    // The copies are on disk before they are relied on.
    fs::File::open(&tables)
        .and_then(|opened| Ok(rustix::fs::syncfs(opened)?))
        .map_err(described)?;
    // From here on the files are those of the directory.
    fs::remove_file(&manifest).map_err(described)?;
    for path in hidden {
        remove_if_present(&path).map_err(described)?;
    }
    if repaired > 0 {
        tracing::warn!(
            files = repaired,
            "files of the embedded PostgreSQL were incomplete after a crash and were repaired"
        );
    }
    Ok(())
}

/// What the repair needs to know of a layer's manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayerManifest {
    /// The name of its template in the cache.
    template_archive_sha256: Option<String>,
}

/// Where PGlite keeps its templates.
pub(super) fn templates() -> PathBuf {
    let cache = match env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache"),
    };
    cache.join(TEMPLATES)
}

/// The tables of the template that a manifest names, if they are in this directory of templates.
/// If the manifest is damaged: those that its text names, or else those of the only template.
/// Files of another template than that of the layer would destroy the database.
pub(super) fn template(templates: &Path, manifest: &str) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(templates) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry?;
        let tables = entry.path().join(TABLES);
        if tables.join("PG_VERSION").is_file() {
            found.push((entry.file_name().to_string_lossy().into_owned(), tables));
        }
    }
    let intact: Option<LayerManifest> = serde_json::from_str(manifest).ok();
    let named = found.iter().position(|(digest, _)| match &intact {
        Some(layer) => layer.template_archive_sha256.as_ref() == Some(digest),
        None => manifest.contains(digest),
    });
    if let Some(index) = named {
        return Ok(Some(found.swap_remove(index).1));
    }
    let is_only = intact.is_none() && found.len() == 1;
    Ok(found.pop().filter(|_| is_only).map(|(_, tables)| tables))
}

/// Copies what the directory does not have, or has only a beginning of, and collects the files that
/// hide others. Returns how many were a beginning only.
fn copy_missing(
    template: &Path,
    directory: &Path,
    incomplete: &Path,
    hidden: &mut Vec<PathBuf>,
) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    let mut repaired = 0;
    for entry in fs::read_dir(template)? {
        let entry = entry?;
        let (from, to) = (entry.path(), directory.join(entry.file_name()));
        let hiding = directory.join(hidden_name(&entry.file_name()));
        if hiding.exists() {
            hidden.push(hiding);
            continue;
        }
        if entry.file_type()?.is_dir() {
            repaired += copy_missing(&from, &to, incomplete, hidden)?;
            continue;
        }
        let exists = to.exists();
        if exists && !is_beginning(&to, &from)? {
            continue;
        }
        fs::copy(&from, incomplete)?;
        fs::rename(incomplete, &to)?;
        repaired += usize::from(exists);
    }
    Ok(repaired)
}

fn hidden_name(name: &OsStr) -> OsString {
    let mut hidden = OsString::from(HIDDEN_PREFIX);
    hidden.push(name);
    hidden
}

/// Whether a file is shorter than another one and begins as that one does.
fn is_beginning(file: &Path, whole: &Path) -> io::Result<bool> {
    if fs::metadata(file)?.len() >= fs::metadata(whole)?.len() {
        return Ok(false);
    }
    Ok(fs::read(whole)?.starts_with(&fs::read(file)?))
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_damaged_manifest_is_repaired_with_a_template_that_it_does_not_name() {
        let cache = tempfile::tempdir().unwrap();
        let add = |digest: &str| {
            let tables = cache.path().join(digest).join(TABLES);
            fs::create_dir_all(&tables).unwrap();
            fs::write(tables.join("PG_VERSION"), "17").unwrap();
        };
        let named = |digest: &str| format!("{{\"templateArchiveSha256\": \"{digest}\"}}");
        let found = |manifest: &str| {
            let tables = template(cache.path(), manifest).unwrap()?;
            let digest = tables.parent()?.file_name()?;
            Some(digest.to_str()?.to_owned())
        };
        add("aa");
        assert_eq!(found(&named("aa")).as_deref(), Some("aa"));
        assert_eq!(found(&named("bb")), None);
        assert_eq!(found("{}"), None);
        for damaged in ["", "{\n  \"templ", "\0\0"] {
            assert_eq!(found(damaged).as_deref(), Some("aa"), "{damaged:?}");
        }
        add("bb");
        assert_eq!(found(&named("bb")).as_deref(), Some("bb"));
        assert_eq!(found(&named("cc")), None);
        assert_eq!(
            found("{\"templateArchiveSha256\": \"bb").as_deref(),
            Some("bb")
        );
        assert_eq!(found("{"), None);
    }
}

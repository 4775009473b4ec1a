//! Remembers an import: an entry in `/v1/imports` of the query API, which `--list` shows.
//!
//! In: a file that is about to be imported, and at the end what became of it. Out: an entry, which
//! is not complete until the end. An entry that cannot be written does not affect the import: a
//! line on stderr says so.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use service::client::Method;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::summary::Summary;
use crate::config::{Import, ImportKind};
use crate::output::note;
use crate::query_client::QueryApi;

/// How long writing an entry may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the file that are read at a time.
const CHUNK: usize = 1024 * 1024;
/// The length from which reading a file may take a while, so that a line on stderr announces it.
const LARGE: u64 = 128 * 1024 * 1024;
/// Upper bound on the name of a file in an entry.
const MAX_NAME_BYTES: usize = 1_000;

/// The entry of an import.
pub(super) struct Record {
    /// None: it is not written.
    api: Option<QueryApi>,
    id: Uuid,
    name: String,
    digest: Option<String>,
    kind: &'static str,
}

impl Record {
    /// Writes the entry of an import that starts. Call it when the file and the flags are known to
    /// be right. When `stop` is cancelled, the file is not read further.
    pub(super) async fn begin(arguments: &Import, stop: &CancellationToken) -> Self {
        let (path, stop) = (arguments.file().to_owned(), stop.clone());
        let reading = tokio::task::spawn_blocking(move || digest(&path, &stop));
        let mut record = Self {
            api: QueryApi::new("--query-url", arguments.query_url()).ok(),
            id: Uuid::now_v7(),
            name: name(arguments.file()),
            digest: reading.await.ok().flatten(),
            kind: match arguments.kind {
                ImportKind::Readings => "readings",
                ImportKind::Factories => "factories",
                ImportKind::Sprockets => "sprockets",
            },
        };
        record.write(&Summary::default(), false).await;
        record
    }

    /// Writes what became of the import.
    pub(super) async fn end(mut self, summary: &Summary, complete: bool) {
        self.write(summary, complete).await;
    }

    async fn write(&mut self, summary: &Summary, complete: bool) {
        let Some(api) = &self.api else {
            return;
        };
        let body = json!({
            "name": self.name, "digest": self.digest, "kind": self.kind,
            "accepted": summary.accepted, "left_out": summary.rejected, "complete": complete,
        });
        let headers = [("x-actor", "gridwatch import")];
        let path = format!("/imports/{}", self.id);
        let writing = api.write(Method::PUT, &path, &headers, &body);
        let reason = match tokio::time::timeout(TIMEOUT, writing).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("{} did not respond in time", api.url()),
        };
        note(format_args!(
            "'gridwatch import --list' will not show this import: {reason}"
        ));
        self.api = None;
    }
}

/// The name of a file without control characters.
fn name(path: &Path) -> String {
    let name = path.display().to_string();
    let name = name.chars().filter(|c| !c.is_control());
    let mut bytes = 0;
    name.take_while(|c| {
        bytes += c.len_utf8();
        bytes <= MAX_NAME_BYTES
    })
    .collect()
}

/// SHA-256 of a file. None for a pipe, which can be read once only, and after `stop`.
fn digest(path: &Path, stop: &CancellationToken) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() {
        return None;
    }
    if metadata.len() >= LARGE {
        let name = path.display();
        note(format_args!("{name}: computing the SHA-256 of the file"));
    }
    let mut file = File::open(path).ok()?;
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    while !stop.is_cancelled() {
        match file.read(&mut chunk).ok()? {
            0 => {
                let bytes: [u8; 32] = digest.finalize().into();
                return Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
            }
            count => digest.update(&chunk[..count]),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_is_not_read_further_after_the_stop() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        let stop = CancellationToken::new();
        let whole = digest(file.path(), &stop).unwrap();
        assert!(whole.starts_with("ba7816bf8f01cfea"), "{whole}");
        stop.cancel();
        assert_eq!(digest(file.path(), &stop), None);
    }
}

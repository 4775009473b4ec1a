//! The spool: a durable queue on disk, in the process. It is a sink and a source.
//!
//! In: payloads, each with its number of readings. Out: the same payloads in the same order, each
//! at least once, until they are acknowledged. A payload is on the disk before its append returns;
//! one sync covers all appends that are waiting for it.
//!
//! The queue is a directory of segments, which are files of checksummed [`record`]s. The position
//! up to which records are acknowledged is a record too, so that there is only one file to sync. A
//! segment is deleted when all of its records are acknowledged.
//!
//! | failure | effect |
//! |---|---|
//! | the size limit is reached | appends are refused |
//! | a write fails (disk full) | appends are refused; the incomplete write is truncated |
//! | a sync fails | fatal: the content of the disk is unknown, and a retry could falsely succeed |
//! | crash | opening truncates a torn tail, of which no append returned |
//! | damage inside a segment | opening quarantines and counts it, and continues after it |
//! | another process opens the directory | its opening fails |

mod monitor;
pub mod record;
mod recovery;
mod segment;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use schema::reading::Micros;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::recovery::recover;
use self::writer::{Command, Writer};
use crate::SinkError;

pub use self::monitor::monitor;
pub use self::sink::Spool;
pub use self::source::{Record, SpoolSource};

/// Number of commands that can be queued for the writer. At the limit an append waits.
const COMMAND_CAPACITY: usize = 4_096;

/// Where a spool is, and its limits.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory, which is created if it does not exist.
    pub directory: PathBuf,
    /// Upper bound on the bytes of all segments. Cursors may exceed it.
    pub max_bytes: u64,
    /// Number of bytes from which a segment is closed and another one is started.
    pub segment_bytes: u64,
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// An I/O error.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Why a payload was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The size limit is reached.
    #[error("the spool is full")]
    Full,
    /// The payload has more than [`record::MAX_PAYLOAD`] bytes.
    #[error("the payload is too large for the spool")]
    TooLarge,
    /// The write failed, and nothing of it is on the disk.
    #[error("cannot write to the spool: {0}")]
    Io(String),
    /// The disk failed, and the payload may be on it. The process has to end.
    #[error("the spool has failed: {0}")]
    Failed(String),
}

impl From<AppendError> for SinkError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Failed(_) => Self::Unconfirmed(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// What is in a spool and not acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Number of payloads.
    pub records: u64,
    /// Number of readings in them.
    pub readings: u64,
    /// Their size on disk in bytes.
    pub bytes: u64,
    /// When the oldest unacknowledged record that was handed out was appended.
    pub oldest: Option<Micros>,
}

/// Lengths of the segments in bytes, by the sequences of their first records.
type Segments = BTreeMap<u64, u64>;

/// What the writer, the source and the handles share.
#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// Upper bound on the bytes of all segments.
    max_bytes: u64,
    /// The seed of every checksum.
    key: u32,
    state: Mutex<State>,
    /// Notified when `state` has more to read, or is closed.
    changed: Condvar,
    failed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// The segments, as far as they are synced.
    segments: Segments,
    depth: Depth,
    /// Number of readings acknowledged since the spool was opened.
    acknowledged: u64,
    /// Number of groups synced since the spool was opened.
    syncs: u64,
    /// Why the last append was refused.
    refusal: Option<&'static str>,
    /// Appends fail, and the reader ends.
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // If a thread panicked while it held the lock, the state is still a valid one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the lock of the directory, and stops the writer.
#[derive(Debug)]
pub struct Guard {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    writer: Option<std::thread::JoinHandle<()>>,
    _lock: File,
}

/// Opens the spool of a directory, or creates one, and starts its writer. The source hands out what
/// is not acknowledged, at most `prefetch` payloads before it waits for acknowledgements.
///
/// # Errors
/// [`OpenError`]. Damage is not an error: it is moved to `quarantine/` and counted.
pub fn open(config: Config, prefetch: usize) -> Result<(Spool, SpoolSource, Guard), OpenError> {
    open_with(config, prefetch, File::sync_data)
}

/// Like [`open`], with the function that syncs a file.
fn open_with(
    config: Config,
    prefetch: usize,
    sync: fn(&File) -> io::Result<()>,
) -> Result<(Spool, SpoolSource, Guard), OpenError> {
    let directory = config.directory.clone();
    let failed = |error| OpenError::Io(directory.clone(), error);
    fs::create_dir_all(&directory).map_err(failed)?;
    let lock = File::create(directory.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(directory)),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let recovered = recover(&directory).map_err(failed)?;
    let depth = recovered.depth;
    if depth.records > 0 {
        tracing::info!(
            directory = %directory.display(),
            records = depth.records,
            readings = depth.readings,
            bytes = depth.bytes,
            "the spool has undelivered readings"
        );
    }
    // The writer adds the segments.
    let state = State {
        depth,
        ..State::default()
    };
    let shared = Arc::new(Shared {
        directory: directory.clone(),
        max_bytes: config.max_bytes,
        key: recovered.key,
        state: Mutex::new(state),
        changed: Condvar::new(),
        failed: CancellationToken::new(),
    });
    let (commands, receiver) = mpsc::channel(COMMAND_CAPACITY);
    let acknowledged = recovered.acknowledged;
    let writer =
        Writer::start(config, recovered, shared.clone(), receiver, sync).map_err(failed)?;
    let source = SpoolSource::start(acknowledged, prefetch, shared.clone(), commands.clone())
        .map_err(failed)?;
    let spool = Spool::new(commands.clone(), shared.clone());
    let guard = Guard {
        shared,
        commands,
        writer: Some(writer),
        _lock: lock,
    };
    Ok((spool, source, guard))
}

impl Guard {
    /// Waits until all appends and acknowledgements are on the disk, and unlocks the directory.
    /// Later appends fail.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        // If the channel is full, the writer is busy and checks `closed` after its next group.
        let _ = self.commands.try_send(Command::Close);
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the spool panicked");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop();
    }
}

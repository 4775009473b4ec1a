//! The spool: a durable queue on disk, in process. It is a sink and a source.
//!
//! In: payloads, each with its number of readings. Out: the same payloads, in their order, at least once each, until they
//! are acknowledged. What was appended is on the disk before the append returns: one fsync serves everyone who waits for
//! it. The queue is a folder of [`segment`]s of checksummed [`record`]s; how far it is acknowledged is a
//! record too, so that there is one file to sync. A segment is deleted once all of it is acknowledged.
//!
//! | failure | what happens |
//! |---|---|
//! | the size limit is reached | appending is refused |
//! | a write fails (disk full) | appending is refused; what was written of it is cut off again |
//! | a sync fails | fatal: nobody knows what the disk holds, and a further sync would say that all is well |
//! | crash | opening cuts a torn tail off; nobody was told that it is safe |
//! | damage in the middle | opening moves it into `quarantine/`, counts it, and goes on behind it |
//! | a second process on the folder | opening fails |

pub mod record;
pub mod segment;
mod source;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::reading::Micros;
use schema::{Batch, clock, metric};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::source::{Record, SpoolSource};
use self::writer::{Append, Command, Writer};
use crate::health::Part;
use crate::sink::{Sink, SinkError};

/// Commands that may wait for the writer; past that whoever appends waits here.
const COMMANDS: usize = 4_096;

/// Time between two looks at what waits.
const LOOK: Duration = Duration::from_secs(1);
/// Weight of the last second in the rate at which the spool empties.
const LAST: f64 = 0.3;

/// Where a spool is and how large it may become.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its folder; made where it is missing.
    pub folder: PathBuf,
    /// Most bytes of all segments. Room for the records that say what is acknowledged is beyond it.
    pub max_bytes: u64,
    /// Bytes after which a segment is closed and another begun.
    pub segment_bytes: u64,
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// The disk says no.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Why something was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The size limit is reached.
    #[error("the spool is full")]
    Full,
    /// A payload of more than [`record::MAX_PAYLOAD`] bytes.
    #[error("too large for the spool")]
    TooLarge,
    /// The disk took nothing of it.
    #[error("the spool cannot be written: {0}")]
    Io(String),
    /// The disk failed; the process has to end.
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

/// What waits in a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Payloads.
    pub records: u64,
    /// Readings in them.
    pub readings: u64,
    /// Bytes of them on disk.
    pub bytes: u64,
    /// When the oldest that was handed out and not acknowledged was appended.
    pub oldest: Option<Micros>,
}

/// What writer, source and handles share.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// What every checksum begins with.
    key: u32,
    state: Mutex<State>,
    grown: Condvar,
    failed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// The segments, by the sequence of their first record, with the bytes that are safe on disk.
    segments: BTreeMap<u64, u64>,
    depth: Depth,
    /// Readings acknowledged since the spool was opened.
    acknowledged: u64,
    /// Groups that were synced since the spool was opened.
    syncs: u64,
    /// Why the last append was refused.
    refusing: Option<&'static str>,
    /// Nothing more is appended, and nobody reads any more.
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while holding the lock leaves a state that is still one of the valid ones.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that appends. Clones share everything.
#[derive(Debug, Clone)]
pub struct Spool {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// Keeps the folder ours, and ends the writer in order.
#[derive(Debug)]
pub struct Guard {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    writer: Option<std::thread::JoinHandle<()>>,
    _lock: File,
}

/// Opens the spool of a folder, or makes one, and starts its writer. The source hands out what is not acknowledged, at most
/// `prefetch` payloads ahead of the acknowledgements.
///
/// # Errors
/// [`OpenError`]. Damage is no error: it is moved into `quarantine/` and counted.
pub fn open(config: Config, prefetch: usize) -> Result<(Spool, SpoolSource, Guard), OpenError> {
    open_with(config, prefetch, File::sync_data)
}

fn open_with(
    config: Config,
    prefetch: usize,
    sync: fn(&File) -> io::Result<()>,
) -> Result<(Spool, SpoolSource, Guard), OpenError> {
    let folder = config.folder.clone();
    let failed = |error| OpenError::Io(folder.clone(), error);
    fs::create_dir_all(&folder).map_err(failed)?;
    let lock = File::create(folder.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(folder)),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let found = recover(&folder).map_err(failed)?;
    if found.depth.records > 0 {
        let Depth {
            records,
            readings,
            bytes,
            ..
        } = found.depth;
        tracing::info!(folder = %folder.display(), records, readings, bytes, "the spool holds what is not delivered yet");
    }
    let state = State {
        segments: found.segments.clone(),
        depth: found.depth,
        ..State::default()
    };
    let shared = Arc::new(Shared {
        folder: folder.clone(),
        key: found.key,
        state: Mutex::new(state),
        grown: Condvar::new(),
        failed: CancellationToken::new(),
    });
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let writer = Writer::start(config, &found, shared.clone(), receiver, sync).map_err(failed)?;
    let source = SpoolSource::start(
        found.acknowledged,
        prefetch,
        shared.clone(),
        commands.clone(),
    )
    .map_err(failed)?;
    let spool = Spool {
        commands: commands.clone(),
        shared: shared.clone(),
    };
    Ok((
        spool,
        source,
        Guard {
            shared,
            commands,
            writer: Some(writer),
            _lock: lock,
        },
    ))
}

impl Spool {
    /// Appends a payload and returns when it is on the disk.
    ///
    /// # Errors
    /// [`AppendError`]: it is not there, or, where the disk failed, not known to be.
    pub async fn append(&self, payload: Bytes, readings: u32) -> Result<(), AppendError> {
        if payload.len() > record::MAX_PAYLOAD {
            return Err(AppendError::TooLarge);
        }
        let gone = || AppendError::Failed("its writer has ended".into());
        let (reply, outcome) = oneshot::channel();
        let append = Append {
            payload,
            readings,
            appended_at: clock::now(),
            reply,
        };
        self.commands
            .send(Command::Append(append))
            .await
            .map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// What waits.
    pub fn depth(&self) -> Depth {
        self.shared.lock().depth
    }

    /// Readings acknowledged since the spool was opened.
    pub fn acknowledged(&self) -> u64 {
        self.shared.lock().acknowledged
    }

    /// Groups that were synced since the spool was opened.
    pub fn syncs(&self) -> u64 {
        self.shared.lock().syncs
    }

    /// Cancelled when the disk has failed: the process has to end.
    pub fn failed(&self) -> CancellationToken {
        self.shared.failed.clone()
    }
}

impl Sink for Spool {
    fn deliver(
        &self,
        batch: Arc<Batch>,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<(), SinkError>> {
        // A batch has at most 4,096 readings.
        let readings = batch.len() as u32;
        async move { Ok(self.append(batch.encode().into(), readings).await?) }.boxed()
    }
}

/// Says every second what waits in the spool, for the metrics, and whether it takes more, for the health; until `stop`.
pub async fn watch(spool: Spool, part: Part, stop: CancellationToken) {
    let gauge = |metric: schema::metric::Metric| metrics::gauge!(metric.name);
    let (mut before, mut rate) = (0, 0.0);
    loop {
        let (depth, acknowledged, refusing) = {
            let state = spool.shared.lock();
            (state.depth, state.acknowledged, state.refusing)
        };
        rate += LAST * ((acknowledged - before) as f64 / LOOK.as_secs_f64() - rate);
        before = acknowledged;
        gauge(metric::SPOOL_READINGS).set(depth.readings as f64);
        gauge(metric::SPOOL_BYTES).set(depth.bytes as f64);
        let age = depth
            .oldest
            .map_or(0.0, |oldest| (clock::now() - oldest).max(0) as f64 / 1e6);
        gauge(metric::SPOOL_AGE).set(age);
        gauge(metric::SPOOL_TIME_TO_EMPTY).set(match depth.readings {
            0 => 0.0,
            readings if rate >= 1.0 => readings as f64 / rate,
            _ => f64::INFINITY,
        });
        match (spool.shared.failed.is_cancelled(), refusing) {
            (true, _) => part.unready("its disk has failed"),
            (_, Some(reason)) => part.unready(reason),
            _ => part.ready(),
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(LOOK))
            .await
            .is_none()
        {
            return;
        }
    }
}

impl Guard {
    /// Waits until everything that was appended or acknowledged is on the disk, and gives the folder free. Appending
    /// fails from now on.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.lock().closed = true;
        self.shared.grown.notify_all();
        // Where there is no room, the writer has something to do and looks at `closed` afterwards.
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
        self.end();
    }
}

/// What opening finds in a folder.
#[derive(Debug, Default)]
struct Found {
    key: u32,
    segments: BTreeMap<u64, u64>,
    /// Everything up to here is acknowledged.
    acknowledged: u64,
    /// The sequence that comes next.
    next: u64,
    depth: Depth,
}

/// Reads every segment; cuts the torn tail off, moves damage into quarantine, and counts what is there.
///
/// From the last to the first, because a cursor tells of the records before it: so each is met after every cursor that
/// covers it, and nothing needs to be remembered but sums.
fn recover(folder: &Path) -> io::Result<Found> {
    let (key, firsts) = segment::list(folder)?;
    let key = key.unwrap_or_else(|| uuid::Uuid::new_v4().as_fields().0);
    let mut found = Found {
        key,
        next: 1,
        ..Found::default()
    };
    let mut missing = 0;
    // The sequence that the segment behind begins with.
    let mut behind: Option<u64> = None;
    for first in firsts.into_iter().rev() {
        let path = segment::path(folder, key, first);
        let bytes = fs::read(&path)?;
        let mut payloads = Vec::new();
        let scan = segment::scan(&bytes, key, first, |header| match header.kind {
            record::Kind::Cursor => found.acknowledged = found.acknowledged.max(header.sequence),
            record::Kind::Payload => {
                payloads.push((header.sequence, header.readings, header.size() as u64))
            }
        });
        let mut damage = scan.damage.clone();
        if scan.end < bytes.len() && behind.is_some() {
            damage.push(scan.end..bytes.len());
        }
        if !damage.is_empty() {
            quarantine(folder, first, &bytes, &damage)?;
            rewrite(
                folder,
                &path,
                scan.sound.iter().map(|range| &bytes[range.clone()]),
            )?;
        } else if scan.end < bytes.len() {
            let cut = bytes.len() - scan.end;
            tracing::warn!(
                segment = first,
                bytes = cut,
                "cut off what a crash left half written"
            );
            let file = File::options().write(true).open(&path)?;
            file.set_len(scan.end as u64)?;
            file.sync_all()?;
        }
        if payloads
            .iter()
            .any(|&(sequence, ..)| sequence > found.acknowledged)
        {
            missing += scan.missing;
        }
        if let Some(behind) = behind
            && behind > found.acknowledged
        {
            missing += behind.saturating_sub(scan.next.max(found.acknowledged + 1));
        }
        for (_, readings, bytes) in payloads
            .into_iter()
            .filter(|&(sequence, ..)| sequence > found.acknowledged)
        {
            found.depth.records += 1;
            found.depth.readings += u64::from(readings);
            found.depth.bytes += bytes;
        }
        let length: usize = scan.sound.iter().map(ExactSizeIterator::len).sum();
        found.segments.insert(first, length as u64);
        found.next = found.next.max(scan.next);
        behind = Some(first);
    }
    if let Some(first) = behind {
        missing += (first - 1).saturating_sub(found.acknowledged);
    }
    if missing > 0 {
        metrics::counter!(metric::SPOOL_MISSING.name).increment(missing);
        tracing::error!(folder = %folder.display(), records = missing, "records are missing from the spool");
    }
    found.next = found.next.max(found.acknowledged + 1);
    segment::sync_folder(folder)?;
    Ok(found)
}

/// Copies damaged bytes into files of their own, beside the segments.
fn quarantine(
    folder: &Path,
    first: u64,
    bytes: &[u8],
    damage: &[std::ops::Range<usize>],
) -> io::Result<()> {
    let aside = folder.join("quarantine");
    fs::create_dir_all(&aside)?;
    for range in damage {
        let path = aside.join(format!(
            "{first:020}-{}-{}.damaged",
            range.start,
            clock::now()
        ));
        let mut file = File::create(&path)?;
        file.write_all(&bytes[range.clone()])?;
        file.sync_all()?;
        metrics::counter!(metric::SPOOL_DAMAGED.name).increment(range.len() as u64);
        tracing::error!(
            segment = first,
            offset = range.start,
            bytes = range.len(),
            kept_in = %path.display(),
            "a segment of the spool is damaged; what was readable goes on"
        );
    }
    segment::sync_folder(&aside)
}

/// Puts the sound parts of a segment in its place, in one step.
fn rewrite<'a>(
    folder: &Path,
    path: &Path,
    parts: impl Iterator<Item = &'a [u8]>,
) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    segment::sync_folder(folder)
}

//! The writer: one thread that appends groups of records and syncs each group once.
//!
//! In: appends and acknowledgements. Out: answers, each after the sync that covers it. While a sync runs, what arrives joins
//! the next group. After each sync the segments that are acknowledged to their end are deleted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use metrics::Counter;
use schema::metric;
use schema::reading::Micros;
use tokio::sync::{mpsc, oneshot};

use super::record::{HEADER, Header, Kind};
use super::{AppendError, Config, Found, Shared, segment};

/// Bytes after which a group takes nothing more.
const GROUP: usize = 4 * 1024 * 1024;

/// A payload for the disk, and who waits for it.
#[derive(Debug)]
pub struct Append {
    pub payload: Bytes,
    pub readings: u32,
    pub appended_at: Micros,
    pub reply: oneshot::Sender<Result<(), AppendError>>,
}

/// What the writer is asked.
#[derive(Debug)]
pub enum Command {
    Append(Append),
    Acknowledge(Acknowledged),
    /// Ends the writer once everything before is done.
    Close,
}

/// Everything up to a sequence is done.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    pub through: u64,
    /// How many records that were not acknowledged before; readings and bytes likewise.
    pub records: u64,
    pub readings: u64,
    pub bytes: u64,
}

/// See the module.
pub struct Writer {
    config: Config,
    shared: Arc<Shared>,
    sync: fn(&File) -> io::Result<()>,
    /// The segments with their lengths; the last one is written.
    segments: BTreeMap<u64, u64>,
    file: File,
    first: u64,
    length: u64,
    next: u64,
    acknowledged: u64,
    /// What the disk knows to be acknowledged.
    cursor: u64,
    /// The last write failed.
    disk_is_full: bool,
    spooled: Counter,
    delivered: Counter,
}

impl Writer {
    /// Starts the thread; it ends when the spool is closed or nobody can ask it any more.
    pub fn start(
        config: Config,
        found: &Found,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        sync: fn(&File) -> io::Result<()>,
    ) -> io::Result<JoinHandle<()>> {
        let mut segments = found.segments.clone();
        let first = match segments.last_key_value() {
            Some((&first, _)) => first,
            None => {
                segments.insert(found.next, 0);
                found.next
            }
        };
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(segment::path(&config.folder, shared.key, first))?;
        segment::sync_folder(&config.folder)?;
        let length = segments.get(&first).copied().unwrap_or_default();
        shared.lock().segments.clone_from(&segments);
        let writer = Self {
            config,
            shared,
            sync,
            segments,
            file,
            first,
            length,
            next: found.next,
            acknowledged: found.acknowledged,
            cursor: found.acknowledged,
            disk_is_full: false,
            spooled: metrics::counter!(metric::SPOOLED.name),
            delivered: metrics::counter!(metric::SPOOL_DELIVERED.name),
        };
        std::thread::Builder::new()
            .name("spool-writer".into())
            .spawn(move || writer.run(commands))
    }

    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut failure: Option<String> = None;
        while let Some(command) = commands.blocking_recv() {
            let mut appends = Vec::new();
            let mut bytes = 0;
            let mut next = Some(command);
            while let Some(command) = next.take() {
                match command {
                    Command::Append(append) => {
                        bytes += HEADER + append.payload.len();
                        appends.push(append);
                    }
                    Command::Acknowledge(done) => self.acknowledge(done),
                    Command::Close => commands.close(),
                }
                if bytes < GROUP {
                    next = commands.try_recv().ok();
                }
            }
            if let Some(reason) = &failure {
                refuse(appends, &AppendError::Failed(reason.clone()));
                continue;
            }
            if let Err(error) = self.commit(appends) {
                tracing::error!(%error, folder = %self.config.folder.display(), "the disk of the spool has failed");
                failure = Some(error.to_string());
                self.shared.failed.cancel();
            }
            if self.shared.lock().closed {
                // Whoever closes may have found no room for the command to do it.
                commands.close();
            }
        }
    }

    fn acknowledge(&mut self, done: Acknowledged) {
        self.acknowledged = self.acknowledged.max(done.through);
        self.delivered.increment(done.readings);
        let mut state = self.shared.lock();
        state.depth.records = state.depth.records.saturating_sub(done.records);
        state.depth.readings = state.depth.readings.saturating_sub(done.readings);
        state.depth.bytes = state.depth.bytes.saturating_sub(done.bytes);
        state.acknowledged += done.readings;
        // Until an append is refused again.
        state.refusing = None;
    }

    /// Writes a group, and before it begins a new segment where that is due. An error is fatal; everyone has been answered.
    fn commit(&mut self, appends: Vec<Append>) -> io::Result<()> {
        let need: usize = appends
            .iter()
            .map(|append| HEADER + append.payload.len())
            .sum();
        // No room, and acknowledged to its end: the next segment lets this one go.
        let in_the_way =
            self.acknowledged + 1 >= self.next && (self.disk_is_full || !self.fits(need as u64));
        let is_used = self.next > self.first;
        if is_used
            && (self.length >= self.config.segment_bytes || in_the_way)
            && let Err(error) = self.begin_segment().and_then(|()| self.group(Vec::new()))
        {
            refuse(appends, &AppendError::Failed(error.to_string()));
            return Err(error);
        }
        self.group(appends)
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let path = segment::path(&self.config.folder, self.shared.key, self.next);
        match File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
        {
            Ok(file) => {
                segment::sync_folder(&self.config.folder)?;
                (self.file, self.first, self.length) = (file, self.next, 0);
                self.segments.insert(self.first, 0);
                Ok(())
            }
            Err(error) => {
                // The present segment goes on: too long is better than refused.
                tracing::warn!(%error, path = %path.display(), "cannot begin a segment of the spool");
                Ok(())
            }
        }
    }

    /// Writes, syncs, answers, and deletes what is acknowledged. An error is fatal; everyone has been answered.
    fn group(&mut self, appends: Vec<Append>) -> io::Result<()> {
        let group = self.write(appends)?;
        if group.length > 0
            && let Err(error) = (self.sync)(&self.file)
        {
            refuse(group.taken, &AppendError::Failed(error.to_string()));
            refuse(group.refused, &AppendError::Full);
            return Err(error);
        }
        self.publish(group);
        self.delete();
        Ok(())
    }

    fn fits(&self, bytes: u64) -> bool {
        self.segments.values().sum::<u64>() + bytes <= self.config.max_bytes
    }

    /// Writes what there is room for behind the present segment, without a sync.
    fn write(&mut self, appends: Vec<Append>) -> io::Result<Group> {
        let mut group = Group {
            acknowledged: self.acknowledged,
            next: self.next,
            ..Group::default()
        };
        let mut buffer = Vec::new();
        if self.cursor != self.acknowledged || (self.length == 0 && self.acknowledged > 0) {
            let (kind, sequence) = (Kind::Cursor, self.acknowledged);
            Header {
                kind,
                sequence,
                appended_at: 0,
                readings: 0,
                length: 0,
            }
            .write(&[], self.shared.key, &mut buffer);
        }
        for append in appends {
            if !self.fits((buffer.len() + HEADER + append.payload.len()) as u64) {
                group.refused.push(append);
                continue;
            }
            let Append {
                payload,
                readings,
                appended_at,
                ..
            } = &append;
            let length = payload.len() as u32;
            let header = Header {
                kind: Kind::Payload,
                sequence: group.next,
                appended_at: *appended_at,
                readings: *readings,
                length,
            };
            header.write(payload, self.shared.key, &mut buffer);
            group.next += 1;
            group.readings += u64::from(*readings);
            group.bytes += header.size() as u64;
            group.taken.push(append);
        }
        group.length = buffer.len() as u64;
        if let Err(error) = self.file.write_all_at(&buffer, self.length) {
            // Half a record must not stand in front of whole ones.
            let cut = self
                .file
                .set_len(self.length)
                .and_then(|()| (self.sync)(&self.file));
            let reason = error.to_string();
            let answer = if cut.is_ok() {
                AppendError::Io(reason)
            } else {
                AppendError::Failed(reason)
            };
            tracing::warn!(%error, "the spool cannot be written");
            self.disk_is_full = true;
            self.shared.lock().refusing = Some("its disk cannot be written");
            refuse(group.taken, &answer);
            refuse(group.refused, &AppendError::Full);
            cut?;
            return Ok(Group {
                acknowledged: self.cursor,
                next: self.next,
                ..Group::default()
            });
        }
        self.disk_is_full &= group.length == 0;
        Ok(group)
    }

    /// A group is on the disk: counts it, and answers.
    fn publish(&mut self, group: Group) {
        self.length += group.length;
        self.segments.insert(self.first, self.length);
        self.cursor = group.acknowledged;
        let records = group.next - self.next;
        self.next = group.next;
        self.spooled.increment(group.readings);
        {
            let mut state = self.shared.lock();
            if !(group.taken.is_empty() && group.refused.is_empty()) {
                state.refusing = (!group.refused.is_empty()).then_some("full");
            }
            state.segments.insert(self.first, self.length);
            state.syncs += u64::from(group.length > 0);
            state.depth.records += records;
            state.depth.readings += group.readings;
            state.depth.bytes += group.bytes;
        }
        self.shared.grown.notify_all();
        for append in group.taken {
            // Whoever has gone does not hear it; the payload is in the queue all the same.
            let _ = append.reply.send(Ok(()));
        }
        refuse(group.refused, &AppendError::Full);
    }

    /// Deletes the segments of which the disk knows that all is acknowledged.
    fn delete(&mut self) {
        while let Some((&first, _)) = self.segments.first_key_value()
            && let Some((&behind, _)) = self.segments.range(first + 1..).next()
            && behind <= self.cursor + 1
        {
            let path = segment::path(&self.config.folder, self.shared.key, first);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "cannot delete a segment of the spool");
                return;
            }
            self.segments.remove(&first);
            self.shared.lock().segments.remove(&first);
        }
    }
}

/// What was written and is not synced yet.
#[derive(Default)]
struct Group {
    taken: Vec<Append>,
    refused: Vec<Append>,
    acknowledged: u64,
    next: u64,
    readings: u64,
    /// Bytes of the payloads' records.
    bytes: u64,
    /// Bytes of all of it.
    length: u64,
}

fn refuse(appends: Vec<Append>, reason: &AppendError) {
    for append in appends {
        let _ = append.reply.send(Err(reason.clone()));
    }
}

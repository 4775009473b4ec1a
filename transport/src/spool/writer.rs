//! The writer: one thread that appends groups of records and syncs each group once.
//!
//! In: appends and acknowledgements. Out: replies, each after the sync that covers its append. What
//! arrives during a sync joins the next group. After each sync the writer deletes the segments
//! whose records are all acknowledged. A failed write refuses its group; a failed sync refuses
//! everything from then on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use metrics::Counter;
use schema::metric;
use schema::reading::Micros;
use service::log_limit::LogLimit;
use tokio::sync::{mpsc, oneshot};

use super::record::{HEADER, Header, Kind};
use super::recovery::Recovered;
use super::{AppendError, Config, Segments, Shared, segment};

/// Number of bytes from which a group is complete.
const MAX_GROUP_BYTES: usize = 4 * 1024 * 1024;

/// A payload to append, and where the result goes.
#[derive(Debug)]
pub(super) struct Append {
    pub payload: Bytes,
    pub readings: u32,
    pub appended_at: Micros,
    pub reply: oneshot::Sender<Result<(), AppendError>>,
}

impl Append {
    /// Length of the record on disk in bytes.
    fn size(&self) -> usize {
        HEADER + self.payload.len()
    }
}

#[derive(Debug)]
pub(super) enum Command {
    Append(Append),
    Acknowledge(Acknowledgement),
    /// Ends the writer after the commands before this one.
    Close,
}

/// Everything up to a sequence is acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledgement {
    pub through: u64,
    /// Number of records that were not acknowledged before.
    pub records: u64,
    /// Number of readings in them.
    pub readings: u64,
    /// Their size on disk in bytes.
    pub bytes: u64,
}

/// The state of the writer's thread.
pub(super) struct Writer {
    config: Config,
    shared: Arc<Shared>,
    sync: fn(&File) -> io::Result<()>,
    /// The segments. The last one is the current one, which is written.
    segments: Segments,
    /// The file of the current segment.
    file: File,
    /// The first sequence of the current segment.
    first: u64,
    /// The length of the current segment in bytes.
    length: u64,
    /// The sequence of the next payload.
    next_sequence: u64,
    /// Everything up to this sequence is acknowledged.
    acknowledged: u64,
    /// The acknowledged sequence that is on the disk.
    cursor: u64,
    /// The last write failed.
    write_failed: bool,
    /// Limits the line about failed writes: on a full disk every group fails.
    write_log: LogLimit,
    spooled: Counter,
    delivered: Counter,
}

impl Writer {
    /// Starts the thread. It ends when the spool is closed, or when no sender of commands is left.
    ///
    /// # Errors
    /// The current segment cannot be opened, or the thread cannot be started.
    pub(super) fn start(
        config: Config,
        recovered: Recovered,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        sync: fn(&File) -> io::Result<()>,
    ) -> io::Result<JoinHandle<()>> {
        let mut segments = recovered.segments;
        let (first, length) = match segments.last_key_value() {
            Some((&first, &length)) => (first, length),
            None => {
                segments.insert(recovered.next_sequence, 0);
                (recovered.next_sequence, 0)
            }
        };
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(segment::path(&config.directory, shared.key, first))?;
        segment::sync_directory(&config.directory)?;
        shared.lock().segments.clone_from(&segments);
        let writer = Self {
            config,
            shared,
            sync,
            segments,
            file,
            first,
            length,
            next_sequence: recovered.next_sequence,
            acknowledged: recovered.acknowledged,
            cursor: recovered.acknowledged,
            write_failed: false,
            write_log: LogLimit::new(),
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
                        bytes += append.size();
                        appends.push(append);
                    }
                    Command::Acknowledge(acknowledgement) => self.acknowledge(acknowledgement),
                    Command::Close => commands.close(),
                }
                if bytes < MAX_GROUP_BYTES {
                    next = commands.try_recv().ok();
                }
            }
            if let Some(reason) = &failure {
                refuse(appends, &AppendError::Failed(reason.clone()));
                continue;
            }
            if let Err(error) = self.commit(appends) {
                let directory = self.config.directory.display();
                tracing::error!(%error, %directory, "the disk of the spool has failed");
                failure = Some(error.to_string());
                self.shared.failed.cancel();
            }
            if self.shared.lock().closed {
                // The channel may have been too full for the command to close.
                commands.close();
            }
        }
    }

    fn acknowledge(&mut self, acknowledgement: Acknowledgement) {
        let Acknowledgement {
            through,
            records,
            readings,
            bytes,
        } = acknowledgement;
        self.acknowledged = self.acknowledged.max(through);
        self.delivered.increment(readings);
        let mut state = self.shared.lock();
        state.depth.records = state.depth.records.saturating_sub(records);
        state.depth.readings = state.depth.readings.saturating_sub(readings);
        state.depth.bytes = state.depth.bytes.saturating_sub(bytes);
        state.acknowledged += readings;
        // Appends may be possible again; the next one shows.
        state.refusal = None;
    }

    /// Writes a group. Before it, starts another segment if the current one is long enough.
    ///
    /// # Errors
    /// Fatal. Every append has received its reply.
    fn commit(&mut self, appends: Vec<Append>) -> io::Result<()> {
        // With the cursor that may precede them.
        let bytes = HEADER + appends.iter().map(Append::size).sum::<usize>();
        // If there is no room and everything is acknowledged, another segment makes room, because
        // the current one can then be deleted.
        let all_acknowledged = self.acknowledged + 1 >= self.next_sequence;
        let makes_room = all_acknowledged && (self.write_failed || !self.fits(bytes as u64));
        let is_used = self.next_sequence > self.first;
        if is_used
            && (self.length >= self.config.segment_bytes || makes_room)
            && let Err(error) = self
                .start_segment()
                .and_then(|()| self.write_group(Vec::new()))
        {
            refuse(appends, &AppendError::Failed(error.to_string()));
            return Err(error);
        }
        self.write_group(appends)
    }

    fn start_segment(&mut self) -> io::Result<()> {
        let path = segment::path(&self.config.directory, self.shared.key, self.next_sequence);
        match File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
        {
            Ok(file) => {
                segment::sync_directory(&self.config.directory)?;
                (self.file, self.first, self.length) = (file, self.next_sequence, 0);
                self.segments.insert(self.first, 0);
            }
            Err(error) => {
                // The writer continues with the current segment, because a segment that is too long
                // is better than a refused append.
                let path = path.display();
                tracing::warn!(%error, %path, "cannot create a segment of the spool");
            }
        }
        Ok(())
    }

    /// Writes and syncs a group, replies to its appends, and deletes acknowledged segments.
    ///
    /// # Errors
    /// Fatal. Every append has received its reply.
    fn write_group(&mut self, appends: Vec<Append>) -> io::Result<()> {
        let group = self.write(appends)?;
        if group.length > 0
            && let Err(error) = (self.sync)(&self.file)
        {
            refuse(group.written, &AppendError::Failed(error.to_string()));
            refuse(group.refused, &AppendError::Full);
            return Err(error);
        }
        self.publish(group);
        self.delete_acknowledged();
        Ok(())
    }

    fn fits(&self, bytes: u64) -> bool {
        self.segments.values().sum::<u64>() + bytes <= self.config.max_bytes
    }

    /// Writes the appends that fit to the end of the current segment, without a sync.
    ///
    /// # Errors
    /// Fatal. Every append has received its reply.
    fn write(&mut self, appends: Vec<Append>) -> io::Result<Group> {
        let (group, buffer) = self.encode(appends);
        let Err(error) = self.file.write_all_at(&buffer, self.length) else {
            // An empty group writes nothing, and shows nothing about the disk.
            self.write_failed &= group.length == 0;
            return Ok(group);
        };
        // An incomplete record must not precede complete ones.
        let truncated = self
            .file
            .set_len(self.length)
            .and_then(|()| (self.sync)(&self.file));
        let reason = error.to_string();
        let refusal = match truncated {
            Ok(()) => AppendError::Io(reason),
            Err(_) => AppendError::Failed(reason),
        };
        if let Some(groups) = self.write_log.count() {
            let directory = self.config.directory.display();
            tracing::warn!(%error, %directory, groups, "cannot write to the spool; refusing readings");
        }
        self.write_failed = true;
        self.shared.lock().refusal = Some("its disk cannot be written");
        refuse(group.written, &refusal);
        refuse(group.refused, &AppendError::Full);
        truncated?;
        Ok(Group {
            acknowledged: self.cursor,
            next_sequence: self.next_sequence,
            ..Group::default()
        })
    }

    /// The bytes of a cursor, if one is due, and of the appends that fit.
    fn encode(&self, appends: Vec<Append>) -> (Group, Vec<u8>) {
        let mut group = Group {
            acknowledged: self.acknowledged,
            next_sequence: self.next_sequence,
            ..Group::default()
        };
        let mut buffer = Vec::new();
        let is_new_segment = self.length == 0 && self.acknowledged > 0;
        if self.cursor != self.acknowledged || is_new_segment {
            let cursor = Header {
                kind: Kind::Cursor,
                sequence: self.acknowledged,
                appended_at: 0,
                readings: 0,
                length: 0,
            };
            cursor.write(&[], self.shared.key, &mut buffer);
        }
        for append in appends {
            if !self.fits((buffer.len() + append.size()) as u64) {
                group.refused.push(append);
                continue;
            }
            let header = Header {
                kind: Kind::Payload,
                sequence: group.next_sequence,
                appended_at: append.appended_at,
                readings: append.readings,
                length: append.payload.len() as u32,
            };
            header.write(&append.payload, self.shared.key, &mut buffer);
            group.next_sequence += 1;
            group.readings += u64::from(append.readings);
            group.payload_bytes += header.size() as u64;
            group.written.push(append);
        }
        group.length = buffer.len() as u64;
        (group, buffer)
    }

    /// Counts a group that is on the disk, and replies to its appends.
    fn publish(&mut self, group: Group) {
        self.length += group.length;
        self.segments.insert(self.first, self.length);
        self.cursor = group.acknowledged;
        let records = group.next_sequence - self.next_sequence;
        self.next_sequence = group.next_sequence;
        self.spooled.increment(group.readings);
        {
            let mut state = self.shared.lock();
            if !(group.written.is_empty() && group.refused.is_empty()) {
                state.refusal = (!group.refused.is_empty()).then_some("full");
            }
            state.segments.insert(self.first, self.length);
            state.syncs += u64::from(group.length > 0);
            state.depth.records += records;
            state.depth.readings += group.readings;
            state.depth.bytes += group.payload_bytes;
        }
        self.shared.changed.notify_all();
        for append in group.written {
            // An error means that the caller no longer waits; the payload is in the queue.
            let _ = append.reply.send(Ok(()));
        }
        refuse(group.refused, &AppendError::Full);
    }

    /// Deletes the segments that the cursor on the disk covers completely.
    fn delete_acknowledged(&mut self) {
        while let Some((&first, _)) = self.segments.first_key_value()
            && let Some((&following, _)) = self.segments.range(first + 1..).next()
            && following <= self.cursor + 1
        {
            let path = segment::path(&self.config.directory, self.shared.key, first);
            if let Err(error) = fs::remove_file(&path) {
                let path = path.display();
                tracing::warn!(%error, %path, "cannot delete a segment of the spool");
                return;
            }
            self.segments.remove(&first);
            self.shared.lock().segments.remove(&first);
        }
    }
}

/// The appends that are written together.
#[derive(Default)]
struct Group {
    written: Vec<Append>,
    refused: Vec<Append>,
    /// The cursor after the group.
    acknowledged: u64,
    /// The sequence after the group.
    next_sequence: u64,
    /// Number of readings in the payloads.
    readings: u64,
    /// Size of the payloads' records in bytes.
    payload_bytes: u64,
    /// Size of the group in bytes, the cursor included.
    length: u64,
}

fn refuse(appends: Vec<Append>, reason: &AppendError) {
    for append in appends {
        // An error means that the caller no longer waits.
        let _ = append.reply.send(Err(reason.clone()));
    }
}

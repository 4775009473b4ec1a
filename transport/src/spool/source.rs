//! The source of the spool: records in their order, from the first one that is not acknowledged.
//!
//! In: the segments, as far as they are synced. Out: records, at most `prefetch` of them
//! unacknowledged. A thread reads a bounded number of records ahead of the consumer. If it cannot
//! read a record, the spool has failed and the process has to end; opening repairs the segment.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::metric;
use tokio::sync::mpsc;

use super::record::{self, HEADER, Header, Kind, MAX_PAYLOAD};
use super::writer::{Acknowledgement, Command};
use super::{Shared, segment};
use crate::{Delivery, DeliveryTag, Payload, Source};

/// Number of records that are read ahead of the consumer.
const READ_AHEAD: usize = 64;
/// Number of bytes read from a segment at a time; more if a record is longer.
const READ_BYTES: usize = 256 * 1024;
/// There is one connection, which never breaks.
const GENERATION: u64 = 1;

/// A record that was handed out.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its header.
    pub header: Header,
    /// The payload as it was appended.
    pub payload: Bytes,
}

/// Reads from the spool.
#[derive(Debug)]
pub struct SpoolSource {
    records: mpsc::Receiver<Record>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    prefetch: usize,
    /// The records that were handed out and not acknowledged, in their order.
    unacknowledged: VecDeque<Header>,
    /// Those of them that were rejected. They count as acknowledged once all records before them
    /// do.
    rejected: BTreeSet<u64>,
}

impl SpoolSource {
    pub(super) fn start(
        acknowledged: u64,
        prefetch: usize,
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
    ) -> io::Result<Self> {
        let (sender, records) = mpsc::channel(READ_AHEAD);
        let reader = Reader {
            shared: shared.clone(),
            records: sender,
            next_sequence: acknowledged + 1,
        };
        std::thread::Builder::new()
            .name("spool-reader".into())
            .spawn(move || reader.run())?;
        Ok(Self {
            records,
            commands,
            shared,
            prefetch,
            unacknowledged: VecDeque::new(),
            rejected: BTreeSet::new(),
        })
    }

    /// Waits for the next record. Never completes while `prefetch` records are unacknowledged, or
    /// after the spool was closed. Cancel-safe.
    pub async fn next_record(&mut self) -> Record {
        if self.unacknowledged.len() < self.prefetch
            && let Some(record) = self.records.recv().await
        {
            return self.hand_out(record);
        }
        std::future::pending().await
    }

    /// A record that was read already, if there is one.
    pub fn try_next_record(&mut self) -> Option<Record> {
        if self.unacknowledged.len() >= self.prefetch {
            return None;
        }
        let record = self.records.try_recv().ok()?;
        Some(self.hand_out(record))
    }

    /// Number of records that were read and not handed out.
    #[cfg(test)]
    pub(crate) fn read_ahead(&self) -> usize {
        self.records.len()
    }

    fn hand_out(&mut self, record: Record) -> Record {
        self.unacknowledged.push_back(record.header);
        if self.unacknowledged.len() == 1 {
            self.update_oldest();
        }
        record
    }

    fn update_oldest(&self) {
        let oldest = self.unacknowledged.front().map(|header| header.appended_at);
        self.shared.lock().depth.oldest = oldest;
    }

    /// Acknowledges everything up to and including this sequence.
    pub async fn acknowledge(&mut self, through: u64) {
        let mut acknowledgement = Acknowledgement {
            through,
            records: 0,
            readings: 0,
            bytes: 0,
        };
        while let Some(header) = self.unacknowledged.front()
            && (header.sequence <= through || self.rejected.contains(&header.sequence))
        {
            acknowledgement.through = header.sequence;
            acknowledgement.records += 1;
            acknowledgement.readings += u64::from(header.readings);
            acknowledgement.bytes += header.size() as u64;
            self.rejected.remove(&header.sequence);
            self.unacknowledged.pop_front();
        }
        if acknowledgement.records > 0 {
            self.update_oldest();
            // An error means that the writer has ended; the records are delivered again.
            let command = Command::Acknowledge(acknowledgement);
            let _ = self.commands.send(command).await;
        }
    }

    /// Copies a record that is not a valid batch to `rejected/`, and acknowledges it. Returns false
    /// when that failed; the record is then delivered again after a restart.
    pub(crate) async fn quarantine_rejected(&mut self, sequence: u64) -> bool {
        if let Err(error) = copy_to_rejected(&self.shared, sequence) {
            tracing::error!(
                %error,
                sequence,
                "cannot quarantine a rejected record; it will be delivered again after a restart"
            );
            return false;
        }
        self.rejected.insert(sequence);
        self.acknowledge(0).await;
        true
    }
}

impl Source for SpoolSource {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        self.next_record().map(delivery).boxed()
    }

    fn try_next(&mut self) -> Option<Delivery> {
        self.try_next_record().map(delivery)
    }

    fn acknowledge_through(&mut self, tag: DeliveryTag) -> BoxFuture<'_, ()> {
        self.acknowledge(tag.tag).boxed()
    }

    fn reject(&mut self, tag: DeliveryTag) -> BoxFuture<'_, bool> {
        self.quarantine_rejected(tag.tag).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        // The next process hands out again what is not acknowledged.
        self.records.close();
        std::future::ready(()).boxed()
    }
}

fn delivery(record: Record) -> Delivery {
    Delivery {
        tag: DeliveryTag {
            generation: GENERATION,
            tag: record.header.sequence,
        },
        payload: Payload::Message(record.payload),
    }
}

/// Copies the payload of a record to a file in `rejected/`. It searches the whole segment, which is
/// cheap enough because rejections are rare.
fn copy_to_rejected(shared: &Shared, sequence: u64) -> io::Result<()> {
    let first = shared
        .lock()
        .segments
        .range(..=sequence)
        .next_back()
        .map_or(sequence, |(&first, _)| first);
    let bytes = fs::read(segment::path(&shared.directory, shared.key, first))?;
    let mut at = 0;
    while let Some((header, payload)) = bytes
        .get(at..)
        .and_then(|bytes| record::read(bytes, shared.key))
    {
        if header.kind == Kind::Payload && header.sequence == sequence {
            let rejected = shared.directory.join("rejected");
            fs::create_dir_all(&rejected)?;
            let mut file = File::create(rejected.join(format!("{sequence:020}.message")))?;
            file.write_all(payload)?;
            file.sync_all()?;
            return segment::sync_directory(&rejected);
        }
        at += header.size();
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no such record"))
}

/// The thread that reads ahead.
struct Reader {
    shared: Arc<Shared>,
    records: mpsc::Sender<Record>,
    /// The sequence of the next record; records before it are skipped.
    next_sequence: u64,
}

impl Reader {
    fn run(mut self) {
        let mut first = None;
        let mut at = 0;
        let mut file = None;
        loop {
            let Some((segment, limit)) = self.wait(first, at) else {
                return;
            };
            if first != Some(segment) {
                (first, at, file) = (Some(segment), 0, None);
            }
            match self.read(segment, &mut file, at, limit) {
                Ok(Some(end)) => at = end,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(
                        %error,
                        segment,
                        offset = at,
                        "cannot read the spool; the process has to end"
                    );
                    self.shared.failed.cancel();
                    return;
                }
            }
        }
    }

    /// Waits until there is something to read. Returns the segment and its synced length, or `None`
    /// when the spool is closed.
    fn wait(&self, first: Option<u64>, at: u64) -> Option<(u64, u64)> {
        let mut state = self.shared.lock();
        loop {
            if state.closed {
                return None;
            }
            let current = first.and_then(|first| Some((first, *state.segments.get(&first)?)));
            if let Some((first, length)) = current.filter(|&(_, length)| length > at) {
                return Some((first, length));
            }
            let from = first.map_or(0, |first| first + 1);
            // A segment before the last one is empty if all of it was damaged.
            if let Some((&first, &length)) = state
                .segments
                .range(from..)
                .find(|&(_, &length)| length > 0)
            {
                return Some((first, length));
            }
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Hands out records of a segment between `at` and `limit`. Returns the position after the last
    /// one, or `None` when the source is closed.
    fn read(
        &mut self,
        first: u64,
        file: &mut Option<File>,
        at: u64,
        limit: u64,
    ) -> io::Result<Option<u64>> {
        let key = self.shared.key;
        let file = match file {
            Some(file) => file,
            None => file.insert(File::open(segment::path(
                &self.shared.directory,
                key,
                first,
            ))?),
        };
        let mut size = READ_BYTES;
        let buffer = loop {
            let length = usize::try_from(limit - at).unwrap_or(size).min(size);
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, at)?;
            if record::read(&buffer, key).is_some() || size > HEADER + MAX_PAYLOAD {
                break Bytes::from(buffer);
            }
            // The record is longer than what was read, or damaged.
            size = HEADER + MAX_PAYLOAD + 1;
        };
        let mut done = 0;
        while let Some((header, payload)) = record::read(&buffer[done..], key) {
            done += header.size();
            if header.kind == Kind::Payload && header.sequence >= self.next_sequence {
                self.next_sequence = header.sequence + 1;
                let payload = buffer.slice_ref(payload);
                let record = Record { header, payload };
                if self.records.blocking_send(record).is_err() {
                    return Ok(None);
                }
            }
        }
        if done == 0 {
            // The disk no longer holds what was written or recovered. Opening repairs that.
            metrics::counter!(metric::SPOOL_DAMAGED.name).increment(1);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a record is damaged; a restart quarantines it",
            ));
        }
        Ok(Some(at + done as u64))
    }
}

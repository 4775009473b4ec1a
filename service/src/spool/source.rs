//! The side of the spool that hands out: records in their order, from the first that is not acknowledged.
//!
//! A thread reads ahead of the consumer, by a bounded number of records; what it reads is on the disk already. In: the
//! segments. Out: records, at most `prefetch` of them unacknowledged.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schema::metric;
use tokio::sync::mpsc;

use super::record::{self, HEADER, Header, Kind, MAX_PAYLOAD};
use super::writer::{Acknowledged, Command};
use super::{Shared, segment};
use crate::source::{Delivery, Payload, Source, Token};

/// Records that are read ahead of the consumer.
const AHEAD: usize = 64;
/// Bytes read from a segment at a time; more where a record is longer.
const CHUNK: usize = 256 * 1024;

/// A record that was handed out.
#[derive(Debug, Clone)]
pub struct Record {
    /// What it says of itself.
    pub header: Header,
    /// What was appended.
    pub payload: Bytes,
}

/// See the module.
#[derive(Debug)]
pub struct SpoolSource {
    records: mpsc::Receiver<Record>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    prefetch: usize,
    /// Handed out and not acknowledged, in their order.
    held: VecDeque<Header>,
    /// Those of them that were rejected, and are done once everything before is.
    rejected: BTreeSet<u64>,
}

impl SpoolSource {
    pub(super) fn start(
        acknowledged: u64,
        prefetch: usize,
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
    ) -> io::Result<Self> {
        let (sender, records) = mpsc::channel(AHEAD);
        let reader = Reader {
            shared: shared.clone(),
            records: sender,
            next: acknowledged + 1,
        };
        std::thread::Builder::new()
            .name("spool-reader".into())
            .spawn(move || reader.run())?;
        Ok(Self {
            records,
            commands,
            shared,
            prefetch,
            held: VecDeque::new(),
            rejected: BTreeSet::new(),
        })
    }

    /// The next record; waits for one, and while as many are held as may be. Never again after the spool was closed.
    /// Cancel-safe.
    pub async fn take(&mut self) -> Record {
        if self.held.len() < self.prefetch
            && let Some(record) = self.records.recv().await
        {
            return self.hold(record);
        }
        std::future::pending().await
    }

    /// A record that is there already, if any.
    pub fn take_ready(&mut self) -> Option<Record> {
        if self.held.len() >= self.prefetch {
            return None;
        }
        let record = self.records.try_recv().ok()?;
        Some(self.hold(record))
    }

    fn hold(&mut self, record: Record) -> Record {
        self.held.push_back(record.header);
        if self.held.len() == 1 {
            self.note_oldest();
        }
        record
    }

    fn note_oldest(&self) {
        self.shared.lock().depth.oldest = self.held.front().map(|header| header.appended_at);
    }

    /// Everything up to this sequence is done.
    pub async fn acknowledge(&mut self, through: u64) {
        let mut done = Acknowledged {
            through,
            records: 0,
            readings: 0,
            bytes: 0,
        };
        while let Some(header) = self.held.front()
            && (header.sequence <= through || self.rejected.remove(&header.sequence))
        {
            done.through = header.sequence;
            done.records += 1;
            done.readings += u64::from(header.readings);
            done.bytes += header.size() as u64;
            self.rejected.remove(&header.sequence);
            self.held.pop_front();
        }
        if done.records > 0 {
            self.note_oldest();
            // A writer that has ended: what is not noted is delivered again.
            let _ = self.commands.send(Command::Acknowledge(done)).await;
        }
    }

    /// Keeps a record aside, in the folder `rejected`, and counts it as done.
    async fn keep_aside(&mut self, sequence: u64) -> bool {
        let kept = keep_aside(&self.shared, sequence);
        if let Err(error) = kept {
            tracing::error!(%error, sequence, "cannot keep a rejected record aside; it comes again after a restart");
            return false;
        }
        self.rejected.insert(sequence);
        self.acknowledge(0).await;
        true
    }
}

impl Source for SpoolSource {
    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        self.take().map(delivery).boxed()
    }

    fn ready(&mut self) -> Option<Delivery> {
        self.take_ready().map(delivery)
    }

    fn acknowledge_through(&mut self, token: Token) -> BoxFuture<'_, ()> {
        self.acknowledge(token.tag).boxed()
    }

    fn reject(&mut self, token: Token) -> BoxFuture<'_, bool> {
        self.keep_aside(token.tag).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        // What is not acknowledged is handed out again by the next process.
        self.records.close();
        std::future::ready(()).boxed()
    }
}

fn delivery(record: Record) -> Delivery {
    Delivery {
        token: Token {
            generation: 1,
            tag: record.header.sequence,
        },
        payload: Payload::Message(record.payload),
    }
}

/// Writes a record of a segment into a file of its own. Rejecting is rare, so that searching the segment is cheap enough.
fn keep_aside(shared: &Shared, sequence: u64) -> io::Result<()> {
    let first = shared
        .lock()
        .segments
        .range(..=sequence)
        .next_back()
        .map(|(&first, _)| first);
    let bytes = fs::read(segment::path(
        &shared.folder,
        shared.key,
        first.unwrap_or(sequence),
    ))?;
    let mut at = 0;
    while let Some((header, payload)) = bytes
        .get(at..)
        .and_then(|bytes| record::read(bytes, shared.key))
    {
        if header.kind == Kind::Payload && header.sequence == sequence {
            let aside = shared.folder.join("rejected");
            fs::create_dir_all(&aside)?;
            let mut file = File::create(aside.join(format!("{sequence:020}.message")))?;
            file.write_all(payload)?;
            file.sync_all()?;
            return segment::sync_folder(&aside);
        }
        at += header.size();
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no such record"))
}

/// The thread that reads ahead.
struct Reader {
    shared: Arc<Shared>,
    records: mpsc::Sender<Record>,
    /// Sequence of the next record; those before it are passed over.
    next: u64,
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
                    tracing::error!(%error, segment, offset = at, "cannot read the spool; the process has to end");
                    self.shared.failed.cancel();
                    return;
                }
            }
        }
    }

    /// The segment to read and up to where, as soon as there is something to read; none once the spool is closed.
    fn wait(&self, first: Option<u64>, at: u64) -> Option<(u64, u64)> {
        let mut state = self.shared.lock();
        loop {
            if state.closed {
                return None;
            }
            let present = first.and_then(|first| Some((first, *state.segments.get(&first)?)));
            if let Some((first, length)) = present.filter(|&(_, length)| length > at) {
                return Some((first, length));
            }
            let from = first.map_or(0, |first| first + 1);
            // One that is not the last may be empty: all of it was damaged.
            if let Some((&first, &length)) = state
                .segments
                .range(from..)
                .find(|&(_, &length)| length > 0)
            {
                return Some((first, length));
            }
            state = self
                .shared
                .grown
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Hands out the records of a segment between `at` and `limit`. Returns where it stands; none where nobody listens.
    fn read(
        &mut self,
        first: u64,
        file: &mut Option<File>,
        at: u64,
        limit: u64,
    ) -> io::Result<Option<u64>> {
        let file = match file {
            Some(file) => file,
            None => file.insert(File::open(segment::path(
                &self.shared.folder,
                self.shared.key,
                first,
            ))?),
        };
        let mut size = CHUNK;
        let buffer = loop {
            let length = usize::try_from(limit - at).unwrap_or(size).min(size);
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, at)?;
            if record::read(&buffer, self.shared.key).is_some() || size > HEADER + MAX_PAYLOAD {
                break Bytes::from(buffer);
            }
            // A record longer than what was read, or damage.
            size = HEADER + MAX_PAYLOAD + 1;
        };
        let mut done = 0;
        while let Some((header, payload)) = record::read(&buffer[done..], self.shared.key) {
            let payload = buffer.slice_ref(payload);
            done += header.size();
            if header.kind == Kind::Payload && header.sequence >= self.next {
                self.next = header.sequence + 1;
                if self
                    .records
                    .blocking_send(Record { header, payload })
                    .is_err()
                {
                    return Ok(None);
                }
            }
        }
        if done == 0 {
            // The disk has changed what it holds since it was checked at opening, or written. Opening sorts it out.
            metrics::counter!(metric::SPOOL_DAMAGED.name).increment(1);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a record is damaged: restart, to move it aside",
            ));
        }
        Ok(Some(at + done as u64))
    }
}

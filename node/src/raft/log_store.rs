//! The Raft log as openraft sees it: appends go into memory and to the writer, reads come from memory or, for
//! what is old, from the engine.
//!
//! `append` runs on Raft's core task: it enqueues and returns. All writes, votes included, take one queue in
//! order; the writer (`log_writer.rs`) syncs once for whatever waits and then fires the callbacks in order.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use pinrail_proto::log as pb;
use prost::Message as _;

use crate::env::Env;
use crate::storage::{LogEngine, LogOp, LogRead, damaged};

use super::log_writer::{Done, Job, LogWriter};
use super::types::{
    Entry, LogId, TypeConfig, Vote, decode_entry, get_log_id, get_vote, put_entry, put_log_id,
    put_vote,
};

/// Encoded entries kept in memory: openraft reads each twice, for replication and for apply.
const CACHE_BYTES: usize = 32 << 20;
/// Bytes that one read for replication hands out, unless a single entry is larger.
const READ_BYTES: usize = 1 << 20;

/// Entries that are measured at once.
const MEASURED: u64 = 32;

#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    index: Mutex<Index>,
    reader: Box<dyn LogRead>,
    writer: LogWriter,
    appended_bytes: AtomicU64,
}

#[derive(Default)]
struct Index {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    recent: BTreeMap<u64, Bytes>,
    recent_bytes: usize,
}

impl LogStore {
    /// Opens the log of an engine and starts its writer.
    ///
    /// # Errors
    /// When what is stored does not decode.
    pub(crate) fn open(engine: Box<dyn LogEngine>, env: &Env) -> io::Result<Self> {
        let loaded = engine.load()?;
        let reader = engine.reader();
        let mut index = Index::default();
        if let Some(vote) = loaded.vote {
            index.vote = Some(get_vote(Some(decode::<pb::Vote>(vote)?)));
        }
        if let Some(purged) = loaded.purged {
            index.purged = Some(get_log_id(decode::<pb::LogId>(purged)?));
        }
        index.last = match loaded.entries {
            Some((_, last)) => match reader.read(last..last + 1)?.pop() {
                Some(entry) => Some(decode_entry(entry)?.log_id),
                None => index.purged,
            },
            None => index.purged,
        };
        let begins = loaded.entries.map(|(first, _)| first);
        let wanted = index.purged.map_or(0, |purged| purged.index() + 1);
        if let Some(begins) = begins.filter(|begins| *begins > wanted) {
            return Err(damaged(format!("entries {wanted} to {} are missing", begins - 1)));
        }
        let writer = LogWriter::start(engine, env);
        let shared =
            Shared { index: Mutex::new(index), reader, writer, appended_bytes: AtomicU64::new(0) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Ends the writer; reads go on. Nothing can be written after it.
    pub(crate) async fn close(&self) {
        self.shared.writer.close().await;
    }

    /// Bytes appended since the store was opened: what snapshots are triggered by.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.shared.appended_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the entries behind an index, counted until they are `most`.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn bytes_behind(&self, index: u64, most: u64) -> io::Result<u64> {
        let last = self.shared.index.lock().last.map_or(0, |id| id.index());
        let (mut next, mut bytes) = (index + 1, 0);
        while next <= last && bytes < most {
            let end = last.min(next + MEASURED) + 1;
            let entries = self.shared.reader.read(next..end)?;
            bytes += entries.iter().map(|entry| entry.len() as u64).sum::<u64>();
            next = end;
        }
        Ok(bytes)
    }

    /// Whether there is anything: a vote, an entry, a purge.
    pub(crate) fn is_empty(&self) -> bool {
        let index = self.shared.index.lock();
        index.vote.is_none() && index.last.is_none()
    }

    /// The vote and the last entry, written or on their way.
    pub(crate) fn end(&self) -> (Option<Vote>, Option<LogId>) {
        let index = self.shared.index.lock();
        (index.vote, index.last)
    }

    /// The last entry that the log dropped, for a snapshot has it.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.index.lock().purged
    }

    /// Queues changes and waits until they are durable.
    async fn write(&self, ops: Vec<LogOp>) -> io::Result<()> {
        let (done, wait) = tokio::sync::oneshot::channel();
        self.shared.writer.submit(Job { ops, done: Done::Reply(done) });
        wait.await.map_err(|_| io::Error::other("the log writer is gone"))?
    }

    fn entries(&self, range: impl RangeBounds<u64>, limit_bytes: usize) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let (end, oldest) = {
            let index = self.shared.index.lock();
            let behind = index.last.map_or(0, |last| last.index() + 1);
            let end = match range.end_bound() {
                Bound::Included(end) => (end + 1).min(behind),
                Bound::Excluded(end) => (*end).min(behind),
                Bound::Unbounded => behind,
            };
            (end, index.recent.keys().next().copied().unwrap_or(behind))
        };
        let mut encoded = Vec::new();
        if start < oldest {
            encoded = self.shared.reader.read(start..end.min(oldest))?;
        }
        let from = start.max(oldest);
        if from < end {
            let index = self.shared.index.lock();
            encoded.extend(index.recent.range(from..end).map(|(_, entry)| entry.clone()));
        }
        let mut bytes = 0;
        let mut entries = Vec::with_capacity(encoded.len());
        for entry in encoded {
            bytes += entry.len();
            if bytes > limit_bytes && !entries.is_empty() {
                break;
            }
            entries.push(decode_entry(entry)?);
        }
        Ok(entries)
    }
}

impl Index {
    fn push(&mut self, log_id: LogId, entry: Bytes) {
        self.recent_bytes += entry.len();
        self.recent.insert(log_id.index(), entry);
        self.last = Some(log_id);
    }

    /// Entries that are durable may leave memory; the newest stay.
    fn shrink(&mut self, durable: u64) {
        while self.recent_bytes > CACHE_BYTES {
            let Some(oldest) = self.recent.first_entry() else { return };
            if *oldest.key() > durable {
                return;
            }
            self.recent_bytes -= oldest.remove().len();
        }
    }

    fn keep(&mut self, keep: impl Fn(u64) -> bool) {
        self.recent.retain(|index, _| keep(*index));
        self.recent_bytes = self.recent.values().map(Bytes::len).sum();
    }
}

fn decode<M: prost::Message + Default>(bytes: Bytes) -> io::Result<M> {
    M::decode(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.entries(range, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.index.lock().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.entries(start..end, READ_BYTES)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let index = self.shared.index.lock();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.write(vec![LogOp::Vote(Bytes::from(put_vote(vote).encode_to_vec()))]).await?;
        self.shared.index.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut ops = Vec::new();
        let mut bytes = 0;
        {
            let mut index = self.shared.index.lock();
            for entry in entries {
                let encoded = Bytes::from(put_entry(&entry).encode_to_vec());
                bytes += encoded.len();
                ops.push(LogOp::Put { index: entry.log_id.index(), entry: encoded.clone() });
                index.push(entry.log_id, encoded);
            }
            index.shrink(self.shared.writer.durable_index());
        }
        self.shared.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.shared.writer.submit(Job { ops, done: Done::Flushed(callback) });
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |last| last.index() + 1);
        {
            let mut index = self.shared.index.lock();
            if index.last <= last_log_id {
                return Ok(());
            }
            index.keep(|at| at < from);
            index.last = last_log_id;
        }
        self.write(vec![LogOp::TruncateFrom { index: from }]).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        {
            let mut index = self.shared.index.lock();
            index.keep(|at| at > log_id.index());
            index.purged = Some(log_id);
            // A snapshot may lie beyond the log's end: the log goes on behind the hole.
            if index.last.is_none_or(|last| last.index() <= log_id.index()) {
                index.last = Some(log_id);
            }
        }
        let position = Bytes::from(put_log_id(&log_id).encode_to_vec());
        self.write(vec![LogOp::PurgeTo { index: log_id.index(), position }]).await
    }
}

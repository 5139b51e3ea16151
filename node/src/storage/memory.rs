//! Engines in memory for the simulation, which model what was synced and what was not: a crash keeps of a log what
//! was synced and perhaps a part of the rest, and of a state what was flushed or checkpointed. A disk may also fail.
//! A [`Disk`] outlives the node that uses it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use pinrail_proto::log::SnapshotManifest;
use pinrail_state_machine::invariants;
use pinrail_state_machine::key::RowKey;
use pinrail_state_machine::store::{Fault, MemoryStore, Read, Writes};

use crate::env::Engines;

use super::snapshot::IncomingFiles;
use super::{
    Checkpoint, Files, Incoming, LogEngine, LogLoaded, LogOp, LogRead, POSITION_KEY, Snapshot,
    StateEngine,
};

/// Name of the one file of a snapshot.
const IMAGE: &str = "image";

/// The disk of one simulated node.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    log: Arc<Mutex<Log>>,
    state: Arc<Mutex<State>>,
}

/// What a disk refuses until it is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The next write of the log fails and leaves nothing.
    LogWrite,
    /// The next sync of the log fails, and what it was for no later one makes durable, though they succeed: the kernel has given it
    /// up ([Can Applications Recover from fsync Failures?](https://www.usenix.org/conference/atc20/presentation/rebello)).
    LogSync,
    /// Entries cannot be read.
    LogRead,
    StateWrite,
}

impl Failure {
    pub const ALL: [Self; 4] = [Self::LogWrite, Self::LogSync, Self::LogRead, Self::StateWrite];
}

/// What was written to a log, synced or not.
#[derive(Debug, Default)]
pub struct Written {
    pub votes: Vec<Bytes>,
    /// Each with its index.
    pub entries: Vec<(u64, Bytes)>,
}

#[derive(Debug, Default)]
struct Log {
    written: Rows,
    synced: Rows,
    /// What nobody has asked for yet.
    fresh: Written,
    /// Changes that a crash may forget, one write after the other.
    unsynced: Vec<Vec<LogOp>>,
    failure: Option<Failure>,
    /// How often a crash really lost something: a simulation that never does proves little.
    lost: u64,
}

#[derive(Debug, Default, Clone)]
struct Rows {
    vote: Option<Bytes>,
    purged: Option<Bytes>,
    entries: BTreeMap<u64, Bytes>,
}

#[derive(Debug, Default)]
struct State {
    current: MemoryStore,
    flushed: MemoryStore,
    dirty: bool,
    /// Writes after which it is flushed without being asked, as a full memtable is; 0: never.
    flush_every: u64,
    writes: u64,
    snapshot: Option<Snapshot>,
    lost: u64,
    fails: bool,
}

impl Disk {
    /// A disk whose state is flushed by itself every so many writes; 0: only when that is asked for.
    #[must_use]
    pub fn flushed_every(writes: u64) -> Self {
        let disk = Self::default();
        disk.state.lock().flush_every = writes;
        disk
    }

    /// What a loss of power leaves: what was synced of the log and the first `torn_permille` of the writes that were not, what
    /// was flushed of the state.
    pub fn crash(&self, torn_permille: usize) {
        let mut log = self.log.lock();
        let kept = log.unsynced.len() * torn_permille / 1_000;
        if kept < log.unsynced.len() {
            log.lost += 1;
        }
        let unsynced = std::mem::take(&mut log.unsynced);
        for op in unsynced.iter().take(kept).flatten() {
            log.synced.apply(op);
        }
        log.written = log.synced.clone();
        let mut state = self.state.lock();
        if state.dirty {
            state.lost += 1;
        }
        state.current = state.flushed.clone();
        state.dirty = false;
    }

    /// From now on it fails, until it is repaired.
    pub fn fail(&self, failure: Failure) {
        self.log.lock().failure = Some(failure);
        self.state.lock().fails = failure == Failure::StateWrite;
    }

    pub fn repair(&self) {
        self.log.lock().failure = None;
        self.state.lock().fails = false;
    }

    /// Index of the last entry that was written, synced or not; 0: none was.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.log.lock().written.entries.keys().next_back().copied().unwrap_or(0)
    }

    /// What was written to the log since this was last asked.
    #[must_use]
    pub fn take_written(&self) -> Written {
        std::mem::take(&mut self.log.lock().fresh)
    }

    /// The vote that no crash takes away.
    #[must_use]
    pub fn synced_vote(&self) -> Option<Bytes> {
        self.log.lock().synced.vote.clone()
    }

    /// What the state breaks of what is promised of it at every moment.
    ///
    /// # Errors
    /// When a row of it does not decode.
    pub fn broken_promises(&self) -> Result<Vec<String>, Fault> {
        let broken = invariants::check(&self.state.lock().current)?;
        Ok(broken.iter().map(|broken| format!("{}: {}", broken.promise, broken.detail)).collect())
    }

    /// How often crashes lost unsynced log writes and unflushed state.
    #[must_use]
    pub fn losses(&self) -> (u64, u64) {
        (self.log.lock().lost, self.state.lock().lost)
    }
}

impl Engines for Disk {
    fn open_log(&self, _directory: &Path) -> io::Result<Box<dyn LogEngine>> {
        Ok(Box::new(MemoryLog { log: Arc::clone(&self.log) }))
    }

    fn open_state(&self, _directory: &Path, _memory: u64) -> io::Result<Arc<dyn StateEngine>> {
        Ok(Arc::new(MemoryState { state: Arc::clone(&self.state) }))
    }

    fn is_durable(&self) -> bool {
        false
    }
}

impl Written {
    fn add(&mut self, op: &LogOp) {
        match op {
            LogOp::Put { index, entry } => self.entries.push((*index, entry.clone())),
            LogOp::Vote(vote) => self.votes.push(vote.clone()),
            LogOp::TruncateFrom { .. } | LogOp::PurgeTo { .. } => {}
        }
    }
}

impl Rows {
    fn apply(&mut self, op: &LogOp) {
        match op {
            LogOp::Put { index, entry } => {
                self.entries.insert(*index, entry.clone());
            }
            LogOp::TruncateFrom { index } => {
                self.entries.split_off(index);
            }
            LogOp::PurgeTo { index, position } => {
                self.entries = self.entries.split_off(&index.saturating_add(1));
                self.purged = Some(position.clone());
            }
            LogOp::Vote(vote) => self.vote = Some(vote.clone()),
        }
    }
}

#[derive(Debug)]
struct MemoryLog {
    log: Arc<Mutex<Log>>,
}

impl LogEngine for MemoryLog {
    fn load(&self) -> io::Result<LogLoaded> {
        let log = self.log.lock();
        let entries = &log.written.entries;
        let first = entries.keys().next().copied();
        Ok(LogLoaded {
            vote: log.written.vote.clone(),
            purged: log.written.purged.clone(),
            entries: first.zip(entries.keys().next_back().copied()),
        })
    }

    fn reader(&self) -> Box<dyn LogRead> {
        Box::new(Self { log: Arc::clone(&self.log) })
    }

    fn write(&mut self, ops: &[LogOp], sync: bool) -> io::Result<()> {
        let mut log = self.log.lock();
        let fails = |when| if log.failure == Some(when) { Err(refused()) } else { Ok(()) };
        if !ops.is_empty() {
            fails(Failure::LogWrite)?;
        }
        let synced = if sync { fails(Failure::LogSync) } else { Ok(()) };
        for op in ops {
            log.written.apply(op);
            log.fresh.add(op);
        }
        if !ops.is_empty() {
            log.unsynced.push(ops.to_vec());
        }
        if let Err(error) = synced {
            log.unsynced.clear();
            log.failure = None;
            return Err(error);
        }
        if sync {
            for op in std::mem::take(&mut log.unsynced).iter().flatten() {
                log.synced.apply(op);
            }
        }
        Ok(())
    }
}

impl LogRead for MemoryLog {
    fn read(&self, range: Range<u64>) -> io::Result<Vec<Bytes>> {
        let log = self.log.lock();
        if log.failure == Some(Failure::LogRead) {
            return Err(refused());
        }
        Ok(log.written.entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

#[derive(Debug)]
struct MemoryState {
    state: Arc<Mutex<State>>,
}

impl StateEngine for MemoryState {
    fn read(&self, reader: &mut dyn FnMut(&dyn Read) -> Result<(), Fault>) -> Result<(), Fault> {
        reader(&self.state.lock().current)
    }

    fn write(&self, writes: Writes, position: Bytes) -> Result<(), Fault> {
        let mut state = self.state.lock();
        if state.fails {
            return Err(Fault(refused().to_string()));
        }
        state.current.write(writes);
        state.current.write([(RowKey::from_slice(POSITION_KEY), Some(position))]);
        state.dirty = true;
        state.writes += 1;
        if state.flush_every > 0 && state.writes.is_multiple_of(state.flush_every) {
            state.flush();
        }
        Ok(())
    }

    fn position(&self) -> Result<Option<Bytes>, Fault> {
        self.state.lock().current.get(POSITION_KEY)
    }

    fn checkpoint(&self, _name: &str) -> io::Result<Checkpoint> {
        let mut state = self.state.lock();
        state.flush();
        let mut image = BytesMut::new();
        for (key, value) in state.current.rows() {
            for part in [&**key, value] {
                image.put_u64(part.len() as u64);
                image.put_slice(part);
            }
        }
        let files = Files::Memory(Arc::new(BTreeMap::from([(IMAGE.to_owned(), image.freeze())])));
        Ok(Checkpoint::new(move || Ok(files)))
    }

    fn seal(&self, files: Files, manifest: SnapshotManifest) -> io::Result<Snapshot> {
        let snapshot = Snapshot { manifest, files };
        self.state.lock().snapshot = Some(snapshot.clone());
        Ok(snapshot)
    }

    fn newest_snapshot(&self) -> io::Result<Option<Snapshot>> {
        Ok(self.state.lock().snapshot.clone())
    }

    fn receive(&self, manifest: SnapshotManifest) -> io::Result<Incoming> {
        Ok(Incoming { manifest, files: IncomingFiles::Memory(BTreeMap::new()) })
    }

    fn received(&self, incoming: Incoming) -> io::Result<Snapshot> {
        let IncomingFiles::Memory(files) = incoming.files else {
            return Err(io::Error::other("files on disk belong to another engine"));
        };
        let files = files.into_iter().map(|(name, data)| (name, Bytes::from(data))).collect();
        let files = Files::Memory(Arc::new(files));
        files.verify(&incoming.manifest)?;
        self.seal(files, incoming.manifest)
    }

    fn install(&self, snapshot: &Snapshot) -> io::Result<()> {
        let store = decode(&snapshot.files)?;
        let mut state = self.state.lock();
        state.flushed = store.clone();
        state.current = store;
        state.dirty = false;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.state.lock().flush();
        Ok(())
    }
}

impl State {
    fn flush(&mut self) {
        self.flushed = self.current.clone();
        self.dirty = false;
    }
}

fn refused() -> io::Error {
    io::Error::other("the simulated disk fails")
}

fn decode(files: &Files) -> io::Result<MemoryStore> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "the image does not decode");
    let mut image = files.read(IMAGE, 0, usize::MAX)?;
    let mut next = || -> io::Result<Option<Bytes>> {
        if image.is_empty() {
            return Ok(None);
        }
        let length = image.try_get_u64().map_err(|_| broken())?;
        let length = usize::try_from(length).map_err(|_| broken())?;
        if image.len() < length { Err(broken()) } else { Ok(Some(image.split_to(length))) }
    };
    let mut store = MemoryStore::default();
    while let Some(key) = next()? {
        let value = next()?.ok_or_else(broken)?;
        store.write([(RowKey::from_slice(&key), Some(value))]);
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_nothing_else() {
        let disk = Disk::default();
        let mut log = disk.open_log(Path::new("")).unwrap();
        let put = |index| LogOp::Put { index, entry: Bytes::from_static(b"x") };
        log.write(&[put(1)], true).unwrap();
        log.write(&[put(2)], false).unwrap();
        let state = disk.open_state(Path::new(""), 0).unwrap();
        let row = || BTreeMap::from([(RowKey::from_slice(&[1]), Some(Bytes::from_static(b"v")))]);
        state.write(row(), Bytes::from_static(b"1")).unwrap();
        state.flush().unwrap();
        state.write(row(), Bytes::from_static(b"2")).unwrap();
        disk.crash(0);
        assert_eq!(log.load().unwrap().entries, Some((1, 1)));
        assert_eq!(state.position().unwrap().as_deref(), Some(b"1".as_slice()));
        assert_eq!(disk.losses(), (1, 1));
    }

    #[test]
    fn a_torn_crash_keeps_whole_writes_in_their_order() {
        let disk = Disk::default();
        let mut log = disk.open_log(Path::new("")).unwrap();
        let put = |index| LogOp::Put { index, entry: Bytes::from_static(b"x") };
        log.write(&[put(1)], false).unwrap();
        log.write(&[put(2), put(3)], false).unwrap();
        log.write(&[put(4)], false).unwrap();
        disk.crash(700);
        assert_eq!(log.load().unwrap().entries, Some((1, 3)));
        assert_eq!(disk.losses().0, 1);
    }

    #[test]
    fn a_failed_sync_leaves_what_was_written_to_chance() {
        let disk = Disk::flushed_every(1);
        let mut log = disk.open_log(Path::new("")).unwrap();
        let put = |index| LogOp::Put { index, entry: Bytes::from_static(b"x") };
        disk.fail(Failure::LogSync);
        log.write(&[put(1)], true).unwrap_err();
        disk.repair();
        assert_eq!(log.load().unwrap().entries, Some((1, 1)));
        disk.crash(0);
        assert_eq!(log.load().unwrap().entries, None);
        let state = disk.open_state(Path::new(""), 0).unwrap();
        state.write(BTreeMap::new(), Bytes::from_static(b"1")).unwrap();
        disk.fail(Failure::StateWrite);
        state.write(BTreeMap::new(), Bytes::from_static(b"2")).unwrap_err();
        disk.crash(0);
        assert_eq!(
            state.position().unwrap().as_deref(),
            Some(b"1".as_slice()),
            "flushed by itself"
        );
    }

    #[test]
    fn an_image_holds_the_state() {
        let (one, two) = (Disk::default(), Disk::default());
        let from = one.open_state(Path::new(""), 0).unwrap();
        let row = BTreeMap::from([(RowKey::from_slice(&[7]), Some(Bytes::from_static(b"v")))]);
        from.write(row, Bytes::from_static(b"9")).unwrap();
        let files = from.checkpoint("x").unwrap().wait().unwrap();
        let snapshot = from.seal(files, SnapshotManifest::default()).unwrap();
        let to = two.open_state(Path::new(""), 0).unwrap();
        to.install(&snapshot).unwrap();
        assert_eq!(to.position().unwrap().as_deref(), Some(b"9".as_slice()));
    }
}

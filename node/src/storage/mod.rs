//! Where bytes are kept: the log's engine, the state's engine, snapshots, the data directory.
//!
//! The only place that knows RocksDB. It knows neither Raft's types nor what a command means: entries, votes and
//! positions are bytes here.
//!
//! ```text
//!   raft/       the log: entries, vote, purge position. Every write is synced before it is acknowledged.
//!   state/      the state: no WAL, the log is its WAL. Position and data are written together.
//!   snapshots/  checkpoints of the state with a manifest, a checksum a file
//!   (archive)   for tests, elsewhere: every entry that was applied
//! ```

mod archive;
mod data_dir;
mod drain;
mod hot_rows;
#[cfg(feature = "simulation")]
pub mod memory;
mod moment;
mod recent;
mod rocks_log;
mod rocks_options;
mod rocks_state;
mod snapshot;
mod snapshots;

use std::fmt;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use pinrail_proto::log::SnapshotManifest;
use pinrail_state_machine::store::{Fault, Read, Writes};

pub use archive::{Archive, Record, read as read_archive};
pub use data_dir::{DataDir, DataDirError, Identity};
pub use rocks_log::RocksLog;
pub use rocks_state::Rocks;
#[cfg(feature = "testing")]
pub(crate) use snapshot::checked as file_of;
pub use snapshot::{Files, Incoming, Snapshot};
pub(crate) use snapshot::{MANIFEST, sync_directory, write_durably};

/// What is on the disk is damaged or gone, and asking it again may get a false answer: the process ends, and the others go on.
pub(crate) fn stop_damaged(what: &str, error: &dyn fmt::Display) -> ! {
    tracing::error!(what, %error, "it is damaged or its disk fails, and the node stops: see docs/RECOVERY.md");
    std::process::abort();
}

/// One change of the log.
#[derive(Debug, Clone)]
pub enum LogOp {
    Put {
        index: u64,
        entry: Bytes,
    },
    /// Forgets entries from this index on.
    TruncateFrom {
        index: u64,
    },
    /// Forgets entries up to this index; `position` is kept beside.
    PurgeTo {
        index: u64,
        position: Bytes,
    },
    Vote(Bytes),
}

/// What a log holds when it is opened.
#[derive(Debug, Clone, Default)]
pub struct LogLoaded {
    pub vote: Option<Bytes>,
    pub purged: Option<Bytes>,
    /// Indexes of the first and last entry.
    pub entries: Option<(u64, u64)>,
}

/// A log on disk. One thread writes; others may read what was written.
pub trait LogEngine: fmt::Debug + Send {
    /// # Errors
    /// When the disk fails, or what is on it is damaged.
    fn load(&self) -> io::Result<LogLoaded>;
    /// A handle for reading entries from other threads.
    fn reader(&self) -> Box<dyn LogRead>;
    /// Writes all changes, and syncs them when `sync` is set, in one go.
    ///
    /// # Errors
    /// When the disk fails. What is on it is unknown then: the caller must not go on.
    fn write(&mut self, ops: &[LogOp], sync: bool) -> io::Result<()>;
}

/// Reads entries of a log.
pub trait LogRead: fmt::Debug + Send + Sync {
    /// Entries of a range of indexes that are there, in order.
    ///
    /// # Errors
    /// When the disk fails.
    fn read(&self, range: Range<u64>) -> io::Result<Vec<Bytes>>;
}

/// A checkpoint on its way.
pub struct Checkpoint(Box<dyn FnOnce() -> io::Result<Files> + Send + Sync>);

impl Checkpoint {
    fn new(wait: impl FnOnce() -> io::Result<Files> + Send + Sync + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Blocks until its files are whole.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn wait(self) -> io::Result<Files> {
        (self.0)()
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").finish_non_exhaustive()
    }
}

/// A state on disk.
pub trait StateEngine: fmt::Debug + Send + Sync {
    /// Shows one moment of the state.
    ///
    /// # Errors
    /// The reader's fault, or the store's.
    fn read(&self, reader: &mut dyn FnMut(&dyn Read) -> Result<(), Fault>) -> Result<(), Fault>;
    /// Writes changes and the position that they belong to, both or neither.
    ///
    /// # Errors
    /// When the store fails: the node must stop.
    fn write(&self, writes: Writes, position: Bytes) -> Result<(), Fault>;
    /// The position of the last write.
    ///
    /// # Errors
    /// When the store fails.
    fn position(&self) -> Result<Option<Bytes>, Fault>;
    /// Takes a checkpoint: files that hold the state of this moment, without a manifest yet.
    ///
    /// # Errors
    /// When the disk fails.
    fn checkpoint(&self, name: &str) -> io::Result<Checkpoint>;
    /// Seals a checkpoint with its manifest, which makes it a snapshot; older ones may go.
    ///
    /// # Errors
    /// When the disk fails.
    fn seal(&self, files: Files, manifest: SnapshotManifest) -> io::Result<Snapshot>;
    /// The newest snapshot that is whole.
    ///
    /// # Errors
    /// When the disk fails.
    fn newest_snapshot(&self) -> io::Result<Option<Snapshot>>;
    /// Begins to receive a snapshot from elsewhere.
    ///
    /// # Errors
    /// When the disk fails.
    fn receive(&self, manifest: SnapshotManifest) -> io::Result<Incoming>;
    /// Ends receiving: every file is checked against the manifest.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the disk fails.
    fn received(&self, incoming: Incoming) -> io::Result<Snapshot>;
    /// Replaces the state by a snapshot's, durably. Readers see the old state until then.
    ///
    /// # Errors
    /// When the disk fails.
    fn install(&self, snapshot: &Snapshot) -> io::Result<()>;
    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// When the disk fails.
    fn flush(&self) -> io::Result<()>;
}

/// The key of the position, before all keys of the state machine, which never sees it.
pub(crate) const POSITION_KEY: &[u8] = &[0];

pub(crate) fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// What is on the disk is not what was written there.
pub(crate) fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// An error of RocksDB; damage is told apart, for it has a way out of its own.
fn rocks(error: rocksdb::Error) -> io::Error {
    let text = error.to_string();
    let damage = error.kind() == rocksdb::ErrorKind::Corruption
        || text.contains("No such file or directory");
    if damage { damaged(text) } else { other(error) }
}

/// Whether a database may be made here: where one has been, a file that is missing would else be answered with an empty state.
fn is_new(directory: &std::path::Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_data =
            name.ends_with(".sst") || (name.ends_with(".log") && entry.metadata()?.len() > 0);
        if is_data || name == "CURRENT" {
            return Ok(false);
        }
    }
    Ok(true)
}

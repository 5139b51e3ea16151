//! The log in a RocksDB of its own. Its WAL is what is synced; the memtable only indexes it.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DB, DBRecoveryMode, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions};

use super::{LogEngine, LogLoaded, LogOp, LogRead, damaged, is_new, rocks};

/// Kinds of rows. Persisted numbers.
const ENTRY: u8 = 1;
const VOTE: &[u8] = &[2];
const PURGED: &[u8] = &[3];

#[derive(Debug)]
pub struct RocksLog {
    db: Arc<DB>,
}

impl RocksLog {
    /// # Errors
    /// When it cannot be opened or finds damage before its last synced record.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = options();
        options.create_if_missing(is_new(path)?);
        options.set_max_background_jobs(2);
        options.set_write_buffer_size(16 << 20);
        options.set_max_write_buffer_number(3);
        options.set_bytes_per_sync(1 << 20);
        options.set_wal_bytes_per_sync(1 << 20);
        options.set_keep_log_file_num(2);
        Ok(Self { db: Arc::new(DB::open(&options, path).map_err(rocks)?) })
    }

    /// Opens a log that nobody uses to look at it: nothing of its directory changes, and nothing can be written.
    ///
    /// # Errors
    /// As [`RocksLog::open`], and when there is none.
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        let db = DB::open_for_read_only(&options(), path, false).map_err(rocks)?;
        Ok(Self { db: Arc::new(db) })
    }
}

/// How a log is read, whoever opens it.
fn options() -> Options {
    let mut options = Options::default();
    options.set_max_open_files(64);
    // Only a torn tail is forgiven; recycled files would force a mode that drops what lies behind a flipped bit.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_recycle_log_file_num(0);
    options.set_paranoid_checks(true);
    options
}

impl LogEngine for RocksLog {
    fn load(&self) -> io::Result<LogLoaded> {
        let vote = self.db.get(VOTE).map_err(rocks)?.map(Bytes::from);
        let purged = self.db.get(PURGED).map_err(rocks)?.map(Bytes::from);
        Ok(LogLoaded { vote, purged, entries: entries(&self.db)? })
    }

    fn reader(&self) -> Box<dyn LogRead> {
        Box::new(RocksLogReader { db: Arc::clone(&self.db) })
    }

    fn write(&mut self, ops: &[LogOp], sync: bool) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        for op in ops {
            match op {
                LogOp::Put { index, entry } => batch.put(key(*index), entry),
                LogOp::TruncateFrom { index } => batch.delete_range(key(*index), key(u64::MAX)),
                LogOp::PurgeTo { index, position } => {
                    batch.delete_range(key(0), key(index.saturating_add(1)));
                    batch.put(PURGED, position);
                }
                LogOp::Vote(vote) => batch.put(VOTE, vote),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(rocks)
    }
}

#[derive(Debug)]
struct RocksLogReader {
    db: Arc<DB>,
}

impl LogRead for RocksLogReader {
    fn read(&self, range: Range<u64>) -> io::Result<Vec<Bytes>> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(key(range.start));
        options.set_iterate_upper_bound(key(range.end));
        self.db
            .iterator_opt(IteratorMode::Start, options)
            .map(|row| row.map(|(_, entry)| Bytes::from(entry)).map_err(rocks))
            .collect()
    }
}

fn key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Indexes of the first and last entry. Looks at every one, so that a file which lost its end, or a block that is damaged, is
/// found before the member votes.
fn entries(db: &DB) -> io::Result<Option<(u64, u64)>> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(key(0));
    options.set_iterate_upper_bound(key(u64::MAX));
    options.fill_cache(false);
    let mut found: Option<(u64, u64)> = None;
    for row in db.iterator_opt(IteratorMode::Start, options) {
        let (key, _) = row.map_err(rocks)?;
        let Some(index) = key.get(1..).and_then(|index| index.try_into().ok()) else {
            return Err(damaged(format!("an entry has the key {key:?}")));
        };
        let index = u64::from_be_bytes(index);
        found = match found {
            None => Some((index, index)),
            Some((first, last)) if index == last + 1 => Some((first, index)),
            Some((_, last)) => {
                return Err(damaged(format!("entries {} to {} are missing", last + 1, index - 1)));
            }
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: u64) -> LogOp {
        LogOp::Put { index, entry: Bytes::from(index.to_string()) }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RocksLog::open(dir.path()).unwrap();
        assert!(log.load().unwrap().entries.is_none());
        let ops = [LogOp::Vote(Bytes::from_static(b"vote")), put(1), put(2), put(3), put(4)];
        log.write(&ops, true).unwrap();
        log.write(&[LogOp::TruncateFrom { index: 4 }], true).unwrap();
        let purge = LogOp::PurgeTo { index: 1, position: Bytes::from_static(b"at 1") };
        log.write(&[purge], true).unwrap();
        drop(log);
        let log = RocksLog::open(dir.path()).unwrap();
        let loaded = log.load().unwrap();
        assert_eq!(loaded.entries, Some((2, 3)));
        assert_eq!(loaded.vote.as_deref(), Some(b"vote".as_slice()));
        assert_eq!(loaded.purged.as_deref(), Some(b"at 1".as_slice()));
        assert_eq!(log.reader().read(0..10).unwrap(), ["2", "3"]);
    }

    #[test]
    fn a_log_with_a_hole_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RocksLog::open(dir.path()).unwrap();
        log.write(&[put(1), put(2), put(4)], true).unwrap();
        let error = log.load().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(error.to_string(), "entries 3 to 3 are missing");
    }

    #[test]
    fn a_log_whose_files_are_gone_is_not_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RocksLog::open(dir.path()).unwrap();
        log.write(&[put(1)], true).unwrap();
        drop(log);
        std::fs::remove_file(dir.path().join("CURRENT")).unwrap();
        RocksLog::open(dir.path()).unwrap_err();
    }
}

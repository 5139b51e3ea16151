//! The state in a RocksDB of its own, without a WAL: the Raft log is its WAL, and a restart applies the gap again.
//!
//! `state/N/` is a generation; `state/CURRENT` names the one in use. Installing a snapshot makes the next
//! generation from its files and then moves the name, so that a crash leaves the old state or the new one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use pinrail_proto::log::SnapshotManifest;
use pinrail_state_machine::store::{Fault, KeyRange, Order, Read, Row};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, ErrorKind, IteratorMode,
    Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::hot_rows::HotRows;
use super::snapshot::{Files, Incoming, IncomingFiles, Snapshot, sync_directory, write_durably};
use super::snapshots::{Snapshots, name_of};
use super::{POSITION_KEY, StateEngine, damaged, is_new, rocks, stop_damaged};

/// Part of the node's memory that holds blocks which were read. The rest of what a node holds has bounds of its own.
const CACHE_PART: u64 = 16;
/// Part of the node's memory that holds rows of the newest moment.
const HOT_PART: u64 = 64;
/// Small, so that a search for the place of a row stays in the processor's caches: of one table of 32 MiB, a step took a
/// fifth more of the processor.
const MEMTABLE_BYTES: usize = 8 << 20;
/// So many are written out as one file.
const MEMTABLES_MERGED: i32 = 4;
/// Part of a memtable that a filter of its keys may take.
const MEMTABLE_BLOOM: f64 = 0.05;
/// A file is merged at once when so much of it is deletions. Not by what neighbours in it are: each step deletes its timer,
/// so that every file has a stretch of deletions.
const DELETED_RATIO: f64 = 0.5;

#[derive(Debug)]
pub struct Rocks {
    state: PathBuf,
    /// Bytes that the whole node aims to stay below.
    memory: u64,
    snapshots: Snapshots,
    current: ArcSwap<Generation>,
    /// Held while the store goes from one moment to the next.
    hot: Mutex<HotRows>,
}

#[derive(Debug)]
struct Generation {
    number: u64,
    db: DB,
}

impl Rocks {
    /// Opens the state of a data directory.
    ///
    /// # Errors
    /// When it cannot be opened or is damaged.
    pub fn open(data: &Path, memory: u64) -> io::Result<Self> {
        let state = data.join("state");
        fs::create_dir_all(&state)?;
        let snapshots = Snapshots::open(data.join("snapshots"))?;
        let number = generation(&state)?;
        let db = open_db(&state.join(number.to_string()), memory)?;
        let engine = Self {
            state,
            snapshots,
            memory,
            current: ArcSwap::from_pointee(Generation { number, db }),
            hot: Mutex::new(HotRows::new(part(memory, HOT_PART))),
        };
        engine.tidy_up()?;
        Ok(engine)
    }

    /// Removes what a crash left behind: other generations, unfinished snapshots.
    fn tidy_up(&self) -> io::Result<()> {
        let current = self.current.load().number.to_string();
        for entry in fs::read_dir(&self.state)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && name != current {
                fs::remove_dir_all(entry.path())?;
            }
        }
        self.snapshots.tidy_up()
    }
}

/// The generation in use. A name without its generation is damage: to begin an empty one would forget everything.
fn generation(state: &Path) -> io::Result<u64> {
    let number = match fs::read_to_string(state.join("CURRENT")) {
        Ok(text) => text.trim().parse().map_err(|_| damaged(format!("CURRENT holds {text:?}")))?,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged("CURRENT holds no number"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let mut others = false;
    for entry in fs::read_dir(state)? {
        others |= entry?.file_type()?.is_dir();
    }
    if !state.join(number.to_string()).is_dir() && (others || number != 0) {
        return Err(damaged(format!("generation {number}, which CURRENT means, is not there")));
    }
    Ok(number)
}

impl StateEngine for Rocks {
    fn read(&self, reader: &mut dyn FnMut(&dyn Read) -> Result<(), Fault>) -> Result<(), Fault> {
        let newest = self.hot.lock();
        let generation = self.current.load_full();
        let (snapshot, number) = (generation.db.snapshot(), newest.moment());
        drop(newest);
        reader(&Moment { snapshot, number, hot: &self.hot })
    }

    fn write(
        &self,
        writes: BTreeMap<Vec<u8>, Option<Bytes>>,
        position: Bytes,
    ) -> Result<(), Fault> {
        let mut batch = WriteBatch::default();
        for (key, value) in &writes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch.put(POSITION_KEY, position);
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        // The keys are in order: each is searched for from where the one before went.
        options.set_memtable_insert_hint_per_batch(true);
        let mut hot = self.hot.lock();
        self.current.load().db.write_opt(batch, &options).map_err(fault)?;
        hot.wrote(writes);
        Ok(())
    }

    fn position(&self) -> Result<Option<Bytes>, Fault> {
        Ok(self.current.load().db.get(POSITION_KEY).map_err(fault)?.map(Bytes::from))
    }

    fn checkpoint(&self, name: &str) -> io::Result<Files> {
        let directory = self.snapshots.unfinished(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        let generation = self.current.load_full();
        let checkpoint = Checkpoint::new(&generation.db).map_err(rocks)?;
        checkpoint.create_checkpoint(&directory).map_err(rocks)?;
        Ok(Files::Directory(Arc::new(directory)))
    }

    fn seal(&self, files: Files, manifest: SnapshotManifest) -> io::Result<Snapshot> {
        match files {
            Files::Directory(directory) => self.snapshots.seal(&directory, manifest),
            Files::Memory(_) => Err(io::Error::other("files in memory belong to another engine")),
        }
    }

    fn newest_snapshot(&self) -> io::Result<Option<Snapshot>> {
        self.snapshots.newest()
    }

    fn receive(&self, manifest: SnapshotManifest) -> io::Result<Incoming> {
        // The same snapshot again goes on where it stopped: whole files are not sent twice.
        let directory = self.snapshots.unfinished(&format!("incoming-{}", name_of(&manifest)));
        fs::create_dir_all(&directory)?;
        Ok(Incoming { manifest, files: IncomingFiles::Directory(directory) })
    }

    fn received(&self, incoming: Incoming) -> io::Result<Snapshot> {
        let IncomingFiles::Directory(directory) = incoming.files else {
            return Err(io::Error::other("files in memory belong to another engine"));
        };
        let files = Files::Directory(Arc::new(directory));
        files.verify(&incoming.manifest)?;
        self.seal(files, incoming.manifest)
    }

    fn install(&self, snapshot: &Snapshot) -> io::Result<()> {
        let Files::Directory(from) = &snapshot.files else {
            return Err(io::Error::other("files in memory belong to another engine"));
        };
        let number = self.current.load().number + 1;
        let target = self.state.join(number.to_string());
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::create_dir(&target)?;
        for file in &snapshot.manifest.files {
            let (source, copy) = (from.join(&file.name), target.join(&file.name));
            // Sorted tables never change and can be shared; the database rewrites the others.
            if file.name.ends_with(".sst") {
                fs::hard_link(&source, &copy)?;
            } else {
                fs::copy(&source, &copy)?;
                fs::File::open(&copy)?.sync_all()?;
            }
        }
        sync_directory(&target)?;
        let db = open_db(&target, self.memory)?;
        write_durably(&self.state.join("CURRENT"), number.to_string().as_bytes())?;
        let mut hot = self.hot.lock();
        let old = self.current.swap(Arc::new(Generation { number, db }));
        hot.forget();
        drop(hot);
        let old_path = self.state.join(old.number.to_string());
        // Readers may still hold it: files that are open stay readable after their names are gone.
        drop(old);
        let _ = fs::remove_dir_all(old_path);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.current.load().db.flush().map_err(rocks)
    }
}

fn part(memory: u64, part: u64) -> usize {
    usize::try_from(memory / part).unwrap_or(usize::MAX)
}

fn open_db(path: &Path, memory: u64) -> io::Result<DB> {
    let cache = Cache::new_lru_cache(part(memory, CACHE_PART));
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // The filter of a file with two million keys is larger than a shard of the cache: in one piece, every read of a key
    // would read and check all of it again.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_format_version(6);
    let mut options = Options::default();
    options.create_if_missing(is_new(path)?);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_min_write_buffer_number_to_merge(MEMTABLES_MERGED);
    // While they are written out, as many again may come.
    options.set_max_write_buffer_number(2 * MEMTABLES_MERGED);
    // Most of what a command looks for is not in the memtable, and a skip list says so only after a search.
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM);
    options.set_memtable_whole_key_filtering(true);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_paranoid_checks(true);
    // Runs that are forgotten leave deleted rows by the million, and scans step over them until they are compacted.
    options.add_compact_on_deletion_collector_factory(0, 0, DELETED_RATIO);
    // Raft has its own back pressure; stalls here would only hide it.
    options.set_level_zero_slowdown_writes_trigger(64);
    options.set_level_zero_stop_writes_trigger(1 << 20);
    DB::open(&options, path).map_err(rocks)
}

/// One moment of the state.
struct Moment<'a> {
    snapshot: rocksdb::Snapshot<'a>,
    number: u64,
    hot: &'a Mutex<HotRows>,
}

impl Read for Moment<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if let Some(value) = self.hot.lock().get(self.number, key) {
            return Ok(value);
        }
        let value = self.snapshot.get(key).map_err(fault)?.map(Bytes::from);
        self.hot.lock().keep(self.number, key, value.as_ref());
        Ok(value)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(range.start.clone());
        options.set_iterate_upper_bound(range.end.clone());
        let mode = match order {
            Order::Ascending => IteratorMode::Start,
            Order::Descending => IteratorMode::End,
        };
        self.snapshot
            .iterator_opt(mode, options)
            .take(limit)
            .map(|row| {
                row.map(|(key, value)| (Bytes::from(key), Bytes::from(value))).map_err(fault)
            })
            .collect()
    }
}

fn fault(error: rocksdb::Error) -> Fault {
    if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::IOError) {
        stop_damaged("state", &error);
    }
    Fault(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u32 = 8;

    fn key(number: u32) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    fn rows(read: &dyn Read) -> Vec<Option<Bytes>> {
        (0..KEYS).map(|number| read.get(&key(number)).unwrap()).collect()
    }

    #[test]
    fn a_reader_sees_its_moment_whatever_is_written_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Rocks::open(folder.path(), 64 << 20).unwrap();
        let mut expected = vec![None; KEYS as usize];
        for round in 0_u32..200 {
            // Puts, marks and deletions of some rows, the others as they are.
            let change = |number: u32| match (number + round) % 4 {
                0 => Some(Some(Bytes::from(format!("{round}")))),
                1 => Some(Some(Bytes::new())),
                2 => Some(None),
                _ => None,
            };
            let writes: BTreeMap<Vec<u8>, Option<Bytes>> = (0..KEYS)
                .filter(|number| number % 3 == round % 3)
                .filter_map(|number| Some((key(number), change(number)?)))
                .collect();
            engine
                .read(&mut |before| {
                    assert_eq!(rows(before), expected);
                    engine.write(writes.clone(), Bytes::from_static(b"position"))?;
                    assert_eq!(rows(before), expected, "of the moment before the write");
                    Ok(())
                })
                .unwrap();
            for number in 0..KEYS {
                if let Some(value) = writes.get(&key(number)) {
                    expected[number as usize].clone_from(value);
                }
            }
        }
    }

    #[test]
    fn a_stretch_of_deleted_timers_does_not_have_the_state_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Rocks::open(folder.path(), 64 << 20).unwrap();
        let write = |writes| engine.write(writes, Bytes::from_static(b"position")).unwrap();
        let timers = 0..20_000;
        write(timers.clone().map(|number| (key(number), Some(Bytes::new()))).collect());
        write((30_000..60_000).map(|number| (key(number), Some(Bytes::new()))).collect());
        write(timers.map(|number| (key(number), None)).collect());
        engine.flush().unwrap();
        let generation = engine.current.load();
        let value = |name: &str| generation.db.property_int_value(name).unwrap();
        assert_eq!(value("rocksdb.compaction-pending"), Some(0));
        assert_eq!(value("rocksdb.num-running-compactions"), Some(0));
        assert_eq!(value("rocksdb.num-files-at-level0"), Some(1), "as it was written out");
    }
}

//! The state in a RocksDB of its own, without a WAL: the Raft log is its WAL, and a restart applies the gap again.
//!
//! A write stays in memory at first (`recent`), and is taken to RocksDB with many others (`drain`).
//!
//! `state/N/` is a generation; `state/CURRENT` names the one in use. Installing a snapshot makes the next
//! generation from its files and then moves the name, so that a crash leaves the old state or the new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use crossbeam_channel::Receiver;
use parking_lot::{Condvar, Mutex};
use pinrail_proto::log::SnapshotManifest;
use pinrail_state_machine::key::RowKey;
use pinrail_state_machine::store::{Fault, Read, Writes};
use rocksdb::{DB, ErrorKind, Options};

use super::drain::{Drain, Job, ended};
use super::hot_rows::HotRows;
use super::moment::Moment;
use super::recent::Recent;
use super::rocks_options::options;
use super::snapshot::{Files, Incoming, IncomingFiles, Snapshot, sync_directory, write_durably};
use super::snapshots::{Snapshots, name_of};
use super::{Checkpoint, POSITION_KEY, StateEngine, damaged, is_new, rocks, stop_damaged};

/// Part of the node's memory that may hold rows before they are taken to RocksDB; while they are, as many again may come.
const RECENT_PART: u64 = 32;
/// Part of the node's memory that holds rows which were read of RocksDB.
const HOT_PART: u64 = 64;

#[derive(Debug)]
pub struct Rocks {
    state: PathBuf,
    snapshots: Snapshots,
    shared: Arc<Shared>,
    drain: Drain,
}

/// What the thread that takes rows to RocksDB shares with everybody else.
#[derive(Debug)]
pub(super) struct Shared {
    /// Bytes that the whole node aims to stay below.
    pub(super) memory: u64,
    /// Changes together with the recent rows, whose lock is held for it.
    current: ArcSwap<Generation>,
    recent: Mutex<Recent>,
    arrived: Condvar,
    /// Rows of RocksDB as it is since something last arrived there.
    hot: Mutex<HotRows>,
    /// Why rows are not taken to RocksDB any more.
    failed: Mutex<Option<String>>,
}

pub(super) struct Generation {
    number: u64,
    pub(super) db: DB,
    pub(super) options: Options,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Generation {
    fn open(state: &Path, number: u64, memory: u64) -> io::Result<Self> {
        let path = state.join(number.to_string());
        let mut options = options(memory).map_err(rocks)?;
        options.create_if_missing(is_new(&path)?);
        let db = DB::open(&options, path).map_err(rocks)?;
        Ok(Self { number, db, options })
    }
}

impl Shared {
    pub(super) fn generation(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// So many of the oldest layers are in RocksDB now.
    pub(super) fn arrived(&self, layers: usize) {
        let mut recent = self.recent.lock();
        recent.arrived(layers);
        self.hot.lock().forget();
        drop(recent);
        self.arrived.notify_all();
    }

    pub(super) fn fail(&self, why: String) {
        // Whoever is about to wait for an arrival holds it.
        let recent = self.recent.lock();
        *self.failed.lock() = Some(why);
        drop(recent);
        self.arrived.notify_all();
    }

    fn must_work(&self) -> Result<(), Fault> {
        self.failed.lock().clone().map_or(Ok(()), |why| Err(Fault(why)))
    }

    fn limit(&self) -> usize {
        usize::try_from(self.memory / RECENT_PART).unwrap_or(usize::MAX)
    }
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
        let hot = usize::try_from(memory / HOT_PART).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            memory,
            current: ArcSwap::from_pointee(Generation::open(&state, number, memory)?),
            recent: Mutex::default(),
            arrived: Condvar::new(),
            hot: Mutex::new(HotRows::new(hot)),
            failed: Mutex::default(),
        });
        let drain = Drain::start(Arc::clone(&shared))?;
        let engine = Self { state, snapshots, shared, drain };
        engine.tidy_up()?;
        Ok(engine)
    }

    /// Removes what a crash left behind: other generations, unfinished snapshots.
    fn tidy_up(&self) -> io::Result<()> {
        let current = self.shared.current.load().number.to_string();
        for entry in fs::read_dir(&self.state)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && name != current {
                fs::remove_dir_all(entry.path())?;
            }
        }
        self.snapshots.tidy_up()
    }

    /// Has all rows taken to RocksDB, and a checkpoint taken of just that. What is answered ends when both are done.
    fn drain(&self, checkpoint: Option<PathBuf>) -> io::Result<Receiver<io::Result<()>>> {
        let (done, wait) = crossbeam_channel::bounded(1);
        let mut recent = self.shared.recent.lock();
        self.drain.send(Job { layers: recent.leave(), checkpoint, done: Some(done) })?;
        Ok(wait)
    }
}

fn wait(drained: &Receiver<io::Result<()>>) -> io::Result<()> {
    drained.recv().unwrap_or_else(|_| Err(ended()))
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
        let recent = self.shared.recent.lock();
        let generation = self.shared.generation();
        let layers = recent.layers().clone();
        let (snapshot, store) = (generation.db.snapshot(), self.shared.hot.lock().store());
        drop(recent);
        reader(&Moment { layers, snapshot, store, hot: &self.shared.hot })
    }

    fn write(&self, mut writes: Writes, position: Bytes) -> Result<(), Fault> {
        writes.insert(RowKey::from_slice(POSITION_KEY), Some(position));
        let mut recent = self.shared.recent.lock();
        self.shared.must_work()?;
        recent.write(writes);
        if recent.staying_bytes() < self.shared.limit() {
            return Ok(());
        }
        // What is on its way first: rows must not come faster than they leave.
        while recent.is_leaving() {
            self.shared.arrived.wait(&mut recent);
            self.shared.must_work()?;
        }
        let job = Job { layers: recent.leave(), checkpoint: None, done: None };
        self.drain.send(job).map_err(|error| Fault(error.to_string()))
    }

    fn position(&self) -> Result<Option<Bytes>, Fault> {
        let mut position = None;
        self.read(&mut |read| {
            position = read.get(POSITION_KEY)?;
            Ok(())
        })?;
        Ok(position)
    }

    fn checkpoint(&self, name: &str) -> io::Result<Checkpoint> {
        let directory = self.snapshots.unfinished(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        let drained = self.drain(Some(directory.clone()))?;
        Ok(Checkpoint::new(move || {
            wait(&drained)?;
            Ok(Files::Directory(Arc::new(directory)))
        }))
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
        let number = self.shared.current.load().number + 1;
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
        let generation = Generation::open(&self.state, number, self.shared.memory)?;
        write_durably(&self.state.join("CURRENT"), number.to_string().as_bytes())?;
        // Nothing of the old state may be on its way when the new one takes its place.
        let mut recent = loop {
            self.flush()?;
            let recent = self.shared.recent.lock();
            if !recent.is_leaving() {
                break recent;
            }
        };
        let old = self.shared.current.swap(Arc::new(generation));
        recent.forget();
        self.shared.hot.lock().forget();
        drop(recent);
        let old_path = self.state.join(old.number.to_string());
        // Readers may still hold it: files that are open stay readable after their names are gone.
        drop(old);
        let _ = fs::remove_dir_all(old_path);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        wait(&self.drain(None)?)
    }
}

pub(super) fn fault(error: rocksdb::Error) -> Fault {
    if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::IOError) {
        stop_damaged("state", &error);
    }
    Fault(error.to_string())
}

#[cfg(test)]
mod tests {
    use pinrail_state_machine::store::{KeyRange, Order};

    use super::super::drain::TABLE;
    use super::*;

    const KEYS: u32 = 8;

    fn key(number: u32) -> RowKey {
        RowKey::from_slice(&number.to_be_bytes())
    }

    /// Too little memory for rows to stay in it: each write is taken to RocksDB.
    const NONE: u64 = 1;
    const ENOUGH: u64 = 64 << 20;

    /// By single reads, and by scans either way, which must show the same.
    fn rows(read: &dyn Read) -> Vec<Option<Bytes>> {
        let rows: Vec<_> = (0..KEYS)
            .map(|number| read.get(&key(number)).unwrap().map(|it| (number, it)))
            .collect();
        let there: Vec<_> = rows
            .iter()
            .flatten()
            .map(|(n, it)| (Bytes::copy_from_slice(&key(*n)), it.clone()))
            .collect();
        let range = KeyRange { start: key(0), end: key(KEYS) };
        let scan = |order, limit| read.scan(&range, order, limit).unwrap();
        assert_eq!(scan(Order::Ascending, 100), there);
        assert_eq!(scan(Order::Ascending, 2), there[..there.len().min(2)]);
        let mut last_first = there;
        last_first.reverse();
        assert_eq!(scan(Order::Descending, 100), last_first);
        rows.into_iter().map(|row| row.map(|(_, value)| value)).collect()
    }

    #[test]
    fn a_reader_sees_its_moment_whatever_is_written_meanwhile() {
        for memory in [NONE, ENOUGH] {
            let folder = tempfile::tempdir().unwrap();
            let engine = Rocks::open(folder.path(), memory).unwrap();
            let mut expected = vec![None; KEYS as usize];
            for round in 0_u32..200 {
                // Puts, marks and deletions of some rows, the others as they are.
                let change = |number: u32| match (number + round) % 4 {
                    0 => Some(Some(Bytes::from(format!("{round}")))),
                    1 => Some(Some(Bytes::new())),
                    2 => Some(None),
                    _ => None,
                };
                let writes: Writes = (0..KEYS)
                    .filter(|number| number % 3 == round % 3)
                    .filter_map(|number| Some((key(number), change(number)?)))
                    .collect();
                engine
                    .read(&mut |before| {
                        assert_eq!(rows(before), expected);
                        engine.write(writes.clone(), Bytes::from_static(b"position"))?;
                        if round % 16 == 0 {
                            engine.flush().unwrap();
                        }
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
    }

    #[test]
    fn a_table_that_a_loss_of_power_left_two_names_of_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let row =
            |number| -> Writes { [(key(number), Some(Bytes::from(vec![b'x'; 10_000])))].into() };
        let engine = Rocks::open(folder.path(), ENOUGH).unwrap();
        engine.write(row(1), Bytes::from_static(b"1")).unwrap();
        engine.flush().unwrap();
        drop(engine);
        // The database had taken it in, and that its first name was gone did not reach the disk.
        let database = folder.path().join("state/0");
        let files = fs::read_dir(&database).unwrap().map(|file| file.unwrap().path());
        let table = files.filter(|path| path.extension().is_some_and(|it| it == "sst")).max();
        fs::hard_link(table.unwrap(), database.join(TABLE)).unwrap();
        let engine = Rocks::open(folder.path(), ENOUGH).unwrap();
        engine.write(row(2), Bytes::from_static(b"2")).unwrap();
        engine.flush().unwrap();
        drop(engine);
        let engine = Rocks::open(folder.path(), ENOUGH).unwrap();
        engine
            .read(&mut |read| {
                for number in [1, 2] {
                    let expected = row(number)[&key(number)].clone();
                    assert_eq!(read.get(&key(number))?, expected, "row {number}");
                }
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn what_is_opened_again_is_the_state_of_its_position() {
        let folder = tempfile::tempdir().unwrap();
        let row = |round: u64| -> Writes {
            [(key(1), Some(Bytes::from(round.to_string()))), (key(2), None)].into()
        };
        let mut flushed = 0;
        for round in 1..=20 {
            let engine = Rocks::open(folder.path(), ENOUGH).unwrap();
            let found = engine.position().unwrap();
            let expected = (flushed != 0).then(|| Bytes::from(u64::to_string(&flushed)));
            assert_eq!(found, expected);
            engine
                .read(&mut |read| {
                    assert_eq!(read.get(&key(1))?, expected);
                    Ok(())
                })
                .unwrap();
            engine.write(row(round), Bytes::from(round.to_string())).unwrap();
            // What was not flushed is not there after an end: the log has it.
            if round % 3 == 0 {
                engine.flush().unwrap();
                flushed = round;
            }
        }
    }

    #[test]
    fn a_checkpoint_holds_what_was_written_before_it_and_nothing_that_came_then() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let engine = Rocks::open(folder.path(), ENOUGH).unwrap();
        let write = |value: &'static str| {
            let value = Bytes::from_static(value.as_bytes());
            engine.write([(key(1), Some(value.clone()))].into(), value).unwrap();
        };
        write("before");
        let checkpoint = engine.checkpoint("1").unwrap();
        write("behind");
        engine.flush().unwrap();
        let files = checkpoint.wait().unwrap();
        let manifest = SnapshotManifest { files: files.describe().unwrap(), ..Default::default() };
        let snapshot = engine.seal(files, manifest).unwrap();
        let installed = Rocks::open(other.path(), ENOUGH).unwrap();
        installed.write([(key(2), Some(Bytes::new()))].into(), Bytes::new()).unwrap();
        installed.install(&snapshot).unwrap();
        assert_eq!(installed.position().unwrap().as_deref(), Some(b"before".as_slice()));
        installed
            .read(&mut |read| {
                assert_eq!(read.get(&key(1))?.as_deref(), Some(b"before".as_slice()));
                assert_eq!(read.get(&key(2))?, None, "of the state that was replaced");
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_stretch_of_deleted_timers_does_not_have_the_state_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Rocks::open(folder.path(), 16 * ENOUGH).unwrap();
        let write = |writes| engine.write(writes, Bytes::from_static(b"position")).unwrap();
        let timers = 0..20_000;
        write(timers.clone().map(|number| (key(number), Some(Bytes::new()))).collect());
        write((30_000..60_000).map(|number| (key(number), Some(Bytes::new()))).collect());
        write(timers.map(|number| (key(number), None)).collect());
        engine.flush().unwrap();
        let generation = engine.shared.generation();
        let value = |name: &str| generation.db.property_int_value(name).unwrap();
        assert_eq!(value("rocksdb.compaction-pending"), Some(0));
        assert_eq!(value("rocksdb.num-running-compactions"), Some(0));
        assert_eq!(generation.db.live_files().unwrap().len(), 1, "as it was written out");
    }
}

//! What the log's engine costs, beside raft-engine, a log of segments, and beside the least that any log could: entries
//! appended to a file whose blocks are there already, and synced.
//!
//! ```text
//! make bench-log                   one and three nodes on the disk of /var/tmp
//! make bench-log DISK=/mnt/x       on another one
//! ```
//! All are measured by turns, three times; medians. Each forgets old entries on the way, as a node does.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use pinrail_client::bench::Usage;
use pinrail_node::storage::{LogEngine as _, LogOp, RocksLog};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use tokio::time::Instant;

/// What an entry of one start of a run with an input of 256 bytes takes.
const ENTRY_BYTES: usize = 420;
const FILE_MIB: u64 = 256;
/// So many entries are kept, and as many again until the older half is forgotten.
const KEPT: u64 = 100_000;
const FOR: Duration = Duration::from_secs(1);
const ROUNDS: usize = 3;
/// raft-engine keeps the logs of many groups.
const GROUP: u64 = 1;

/// Appends one batch, and returns when it is on the disk.
type Append = Box<dyn FnMut() -> Result<()> + Send>;

#[derive(Debug, Clone, Copy)]
enum Log {
    Rocks,
    RaftEngine,
    File,
}

impl Log {
    const ALL: [Self; 3] = [Self::Rocks, Self::RaftEngine, Self::File];

    fn open(self, path: &Path, batch: u64) -> Result<Append> {
        match self {
            Self::Rocks => rocks(path, batch),
            Self::RaftEngine => raft_engine(path, batch),
            Self::File => file(path, batch),
        }
    }
}

/// Of all nodes together.
#[derive(Debug, Clone, Copy)]
struct Figures {
    entries_per_second: f64,
    cpu_us_per_entry: f64,
}

fn main() -> Result<()> {
    let disk = std::env::args().nth(1).map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    println!("entries in a second and CPU us for each, of all nodes together");
    println!("nodes  batch            RocksDB        raft-engine               file");
    for nodes in [1, 3] {
        for batch in [1, 16, 64, 256] {
            let mut rounds = Log::ALL.map(|_| Vec::new());
            for _ in 0..ROUNDS {
                for (log, figures) in Log::ALL.into_iter().zip(&mut rounds) {
                    figures.push(measure(log, &disk, nodes, batch)?);
                }
            }
            let [rocks, raft_engine, file] = rounds.map(|figures| cell(median(figures)));
            println!("{nodes:>5} {batch:>6} {rocks} {raft_engine} {file}");
        }
    }
    Ok(())
}

fn cell(figures: Figures) -> String {
    format!("{:>11.0} {:>6.1}", figures.entries_per_second, figures.cpu_us_per_entry)
}

/// So many nodes, each with a log of its own, that append one batch after the other.
fn measure(log: Log, disk: &Path, nodes: usize, batch: u64) -> Result<Figures> {
    let folder = tempfile::tempdir_in(disk)?;
    let open = |node: usize| log.open(&folder.path().join(node.to_string()), batch);
    let appends = (0..nodes).map(open).collect::<Result<Vec<_>>>()?;
    let usage = || Usage::of(std::process::id());
    let (began, before) = (Instant::now(), usage()?);
    let count = std::thread::scope(|scope| -> Result<u64> {
        let work = |mut append: Append| {
            scope.spawn(move || -> Result<u64> {
                let mut count = 0;
                while began.elapsed() < FOR {
                    append()?;
                    count += batch;
                }
                Ok(count)
            })
        };
        let threads: Vec<_> = appends.into_iter().map(work).collect();
        let mut count = 0;
        for thread in threads {
            count += thread.join().map_err(|_| anyhow!("a node panicked"))??;
        }
        Ok(count)
    })?;
    let cpu = usage()?.cpu.saturating_sub(before.cpu);
    Ok(Figures {
        entries_per_second: count as f64 / began.elapsed().as_secs_f64(),
        cpu_us_per_entry: cpu.as_secs_f64() * 1e6 / count as f64,
    })
}

fn rocks(path: &Path, batch: u64) -> Result<Append> {
    let mut log = RocksLog::open(path)?;
    let entry = Bytes::from(vec![7; ENTRY_BYTES]);
    let mut indexes = Indexes::default();
    Ok(Box::new(move || {
        let (next, forget) = indexes.next(batch);
        let put = |index| LogOp::Put { index, entry: entry.clone() };
        let mut ops: Vec<LogOp> = (next..next + batch).map(put).collect();
        let purge = |index| LogOp::PurgeTo { index, position: Bytes::from_static(b"position") };
        ops.extend(forget.map(purge));
        Ok(log.write(&ops, true)?)
    }))
}

/// Entries of protobuf are all that it takes: here bytes, which begin with the index.
struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |index| u64::from_le_bytes(*index))
    }
}

fn raft_engine(path: &Path, batch: u64) -> Result<Append> {
    let config = Config {
        dir: path.to_string_lossy().into_owned(),
        // As ours: entries are not compressed.
        batch_compression_threshold: ReadableSize::kb(0),
        // Segments are there before they are written, and are used again.
        target_file_size: ReadableSize::mb(32),
        purge_threshold: ReadableSize::mb(FILE_MIB),
        enable_log_recycle: true,
        prefill_for_recycle: true,
        ..Config::default()
    };
    let engine = Engine::open(config)?;
    let mut indexes = Indexes::default();
    Ok(Box::new(move || {
        let (next, forget) = indexes.next(batch);
        let entry = |index: u64| {
            let mut entry = BytesValue::new();
            entry.value = vec![7; ENTRY_BYTES];
            entry.value[..size_of::<u64>()].copy_from_slice(&index.to_le_bytes());
            entry
        };
        let entries: Vec<BytesValue> = (next..next + batch).map(entry).collect();
        let mut writes = LogBatch::default();
        writes.add_entries::<Entry>(GROUP, &entries)?;
        engine.write(&mut writes, true)?;
        if let Some(index) = forget {
            engine.compact_to(GROUP, index);
            engine.purge_expired_files()?;
        }
        Ok(())
    }))
}

fn file(path: &Path, batch: u64) -> Result<Append> {
    let file = File::create(path)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..FILE_MIB << 20).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    let entry = vec![7; ENTRY_BYTES];
    let mut at = 0;
    Ok(Box::new(move || {
        let bytes = entry.repeat(usize::try_from(batch)?);
        file.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
        if at + bytes.len() as u64 > FILE_MIB << 20 {
            at = 0;
        }
        Ok(file.sync_data()?)
    }))
}

/// Where a log is.
#[derive(Debug, Default)]
struct Indexes {
    next: u64,
    first: u64,
}

impl Indexes {
    /// The first index of a batch, and up to where entries are to be forgotten with it.
    fn next(&mut self, batch: u64) -> (u64, Option<u64>) {
        let begin = self.next;
        self.next += batch;
        if self.next - self.first < 2 * KEPT {
            return (begin, None);
        }
        self.first = self.next - KEPT;
        (begin, Some(self.first))
    }
}

/// By entries in a second.
fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|one, other| one.entries_per_second.total_cmp(&other.entries_per_second));
    figures[figures.len() / 2]
}

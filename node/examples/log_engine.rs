//! What the log costs beside the least that any log could: entries appended to a file whose blocks are there already, and synced.
//!
//! ```text
//! cargo run --release -p pinrail-node --example log_engine              one and three nodes on the disk of /var/tmp
//! cargo run --release -p pinrail-node --example log_engine -- /mnt/x    on another one
//! ```
//! Both are measured by turns, three times; medians. A log engine of another kind cannot be quicker than the file by more than noise.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use pinrail_client::bench::Usage;
use pinrail_node::storage::{LogEngine as _, LogOp, RocksLog};
use tokio::time::Instant;

/// What an entry of one start of a run with an input of 256 bytes takes.
const ENTRY_BYTES: usize = 420;
const FILE_BYTES: u64 = 256 << 20;
const FOR: Duration = Duration::from_secs(1);
const ROUNDS: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Clone, Copy)]
enum Log {
    Rocks,
    File,
}

/// Of all nodes together.
#[derive(Debug, Clone, Copy)]
struct Figures {
    entries_per_second: f64,
    cpu_us_per_entry: f64,
}

fn main() -> Result<()> {
    let disk = std::env::args().nth(1).unwrap_or_else(|| "/var/tmp".to_owned());
    println!("nodes  batch   RocksDB entries/s  CPU us     file entries/s  CPU us   ratio");
    for nodes in [1, 3] {
        for batch in [1, 16, 64, 256] {
            let (mut rocks, mut file) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                rocks.push(measure(Log::Rocks, Path::new(&disk), nodes, batch)?);
                file.push(measure(Log::File, Path::new(&disk), nodes, batch)?);
            }
            let (rocks, file) = (median(rocks), median(file));
            println!(
                "{nodes:>5} {batch:>6} {:>19.0} {:>7.1} {:>18.0} {:>7.1} {:>7.2}",
                rocks.entries_per_second,
                rocks.cpu_us_per_entry,
                file.entries_per_second,
                file.cpu_us_per_entry,
                rocks.entries_per_second / file.entries_per_second
            );
        }
    }
    Ok(())
}

/// So many nodes, each with a log of its own, that append one batch after the other.
fn measure(log: Log, disk: &Path, nodes: usize, batch: u64) -> Result<Figures> {
    let folder = tempfile::tempdir_in(disk)?;
    let mut appends: Vec<Box<dyn FnMut() -> io::Result<()> + Send>> = Vec::new();
    for node in 0..nodes {
        let path = folder.path().join(node.to_string());
        appends.push(match log {
            Log::Rocks => Box::new(rocks(&path, batch)?),
            Log::File => Box::new(file(&path, batch)?),
        });
    }
    let usage = || Usage::of(std::process::id());
    let (began, before) = (Instant::now(), usage()?);
    let count = std::thread::scope(|scope| -> Result<u64> {
        let work = |mut append: Box<dyn FnMut() -> io::Result<()> + Send>| {
            scope.spawn(move || -> io::Result<u64> {
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
            count += thread.join().map_err(|_| "a node panicked")??;
        }
        Ok(count)
    })?;
    let cpu = usage()?.cpu.saturating_sub(before.cpu);
    Ok(Figures {
        entries_per_second: count as f64 / began.elapsed().as_secs_f64(),
        cpu_us_per_entry: cpu.as_secs_f64() * 1e6 / count as f64,
    })
}

fn rocks(path: &Path, batch: u64) -> io::Result<impl FnMut() -> io::Result<()> + use<>> {
    let mut log = RocksLog::open(path)?;
    let entry = Bytes::from(vec![7; ENTRY_BYTES]);
    let mut next = 0;
    Ok(move || {
        let put = |index| LogOp::Put { index, entry: entry.clone() };
        let ops: Vec<LogOp> = (next..next + batch).map(put).collect();
        next += batch;
        log.write(&ops, true)
    })
}

fn file(path: &Path, batch: u64) -> io::Result<impl FnMut() -> io::Result<()> + use<>> {
    let file = File::create(path)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    let entry = vec![7; ENTRY_BYTES];
    let mut at = 0;
    Ok(move || {
        let bytes = entry.repeat(usize::try_from(batch).unwrap_or(usize::MAX));
        file.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
        if at + bytes.len() as u64 > FILE_BYTES {
            at = 0;
        }
        file.sync_data()
    })
}

/// By entries in a second.
fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|one, other| one.entries_per_second.total_cmp(&other.entries_per_second));
    figures[figures.len() / 2]
}

//! Takes layers of rows to RocksDB, on a thread of its own: each job becomes one sorted table, which RocksDB takes in
//! whole, with the position that belongs to it. So no row goes through a memtable.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};

use super::recent::{Layers, newest};
use super::rocks_state::{Generation, Shared, fault};
use super::{other, rocks};

/// Name of the table that is written, in the folder of its database.
pub(super) const TABLE: &str = "incoming.table";

/// Layers on their way, and what is to be done when they have arrived, before any later ones are.
pub(super) struct Job {
    pub(super) layers: Layers,
    /// A checkpoint is to be taken there.
    pub(super) checkpoint: Option<PathBuf>,
    pub(super) done: Option<Sender<io::Result<()>>>,
}

/// The thread. It ends behind the last job when this is dropped.
#[derive(Debug)]
pub(super) struct Drain {
    jobs: Option<Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drain {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (jobs, taken) = crossbeam_channel::unbounded();
        let thread = thread::Builder::new()
            .name("state-writer".to_owned())
            .spawn(move || work(&shared, &taken))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// # Errors
    /// When the thread has ended, which it does behind a fault.
    pub(super) fn send(&self, job: Job) -> io::Result<()> {
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job).map_err(|_| ended())
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(super) fn ended() -> io::Error {
    io::Error::other("the state is not written any more")
}

fn work(shared: &Shared, jobs: &Receiver<Job>) {
    for job in jobs {
        let done = carry_out(shared, &job);
        let failed = done.as_ref().err().map(ToString::to_string);
        if let Some(asked) = job.done {
            // Who asked may have gone.
            let _ = asked.send(done);
        }
        if let Some(failed) = failed {
            // The next write says so, and the node stops.
            shared.fail(failed);
            return;
        }
    }
}

fn carry_out(shared: &Shared, job: &Job) -> io::Result<()> {
    let generation = shared.generation();
    if !job.layers.is_empty() {
        take_in(&generation, &job.layers)?;
        shared.arrived(job.layers.len());
    }
    if let Some(directory) = &job.checkpoint {
        let checkpoint = Checkpoint::new(&generation.db).map_err(rocks)?;
        checkpoint.create_checkpoint(directory).map_err(rocks)?;
    }
    Ok(())
}

/// Writes the layers as one table, and has the database take it in.
fn take_in(generation: &Generation, layers: &Layers) -> io::Result<()> {
    let table = generation.db.path().join(TABLE);
    remove_leftover(&table)?;
    write(&table, &generation.options, layers).map_err(|error| other(fault(error)))?;
    let mut how = IngestExternalFileOptions::default();
    how.set_move_files(true);
    let taken = generation.db.ingest_external_file_opts(&how, vec![&table]);
    taken.map_err(|error| other(fault(error)))
}

/// Behind a loss of power it may be another name of a table that the database has taken in: to open it for writing would cut that off.
fn remove_leftover(table: &Path) -> io::Result<()> {
    match fs::remove_file(table) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write(table: &Path, options: &Options, layers: &Layers) -> Result<(), rocksdb::Error> {
    let mut writer = SstFileWriter::create(options);
    writer.open(table)?;
    for (key, value) in newest(layers) {
        match value {
            Some(value) => writer.put(&**key, value)?,
            None => writer.delete(&**key)?,
        }
    }
    writer.finish()
}

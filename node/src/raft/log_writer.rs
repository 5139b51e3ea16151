//! The one writer of the log: drains what waits, writes it in one batch, syncs once, then fires the callbacks in
//! order. A thread in production, a task in the simulation; the step is the same.
//!
//! An error of a write or a sync ends the process: what is on the disk is unknown then, and asking the disk again
//! can get a false "yes".

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use pinrail_state_machine::mutant::{Mutant, is_planted};
use tokio::sync::{Notify, oneshot};

use crate::env::Env;
use crate::storage::{LogEngine, LogOp};

use super::types::TypeConfig;

/// Jobs that may wait; Raft itself bounds what it has in flight far below.
const QUEUE: usize = 65_536;
/// What a sync takes in the simulation.
const SIMULATED_SYNC: Duration = Duration::from_millis(2);
/// Jobs written in one go.
const DRAIN: usize = 4_096;

/// Changes, and who wants to know when they are durable.
pub(super) struct Job {
    pub(super) ops: Vec<LogOp>,
    pub(super) done: Done,
}

pub(super) enum Done {
    /// Openraft never hears of it again if this is dropped: it must be completed.
    Flushed(IOFlushed<TypeConfig>),
    Reply(oneshot::Sender<io::Result<()>>),
}

pub(super) struct LogWriter {
    /// Gone once the writer is closed.
    jobs: Mutex<Option<Sender<Job>>>,
    /// Ends without a word when the writer has let go of the engine.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    /// Of a task; a thread wakes by its queue.
    wake: Option<Arc<Notify>>,
    thread: Option<JoinHandle<()>>,
    durable: Arc<AtomicU64>,
}

impl LogWriter {
    pub(super) fn start(engine: Box<dyn LogEngine>, env: &Env) -> Self {
        let (jobs, queue) = bounded(QUEUE);
        let wake = (!env.threads).then(Arc::<Notify>::default);
        let durable = Arc::new(AtomicU64::new(0));
        let (alive, ended) = oneshot::channel();
        let (durable_index, abort) = (Arc::clone(&durable), env.abort_on_fault);
        let step = Step { engine, durable: durable_index, abort, _alive: alive };
        let thread = if let Some(wake) = &wake {
            tokio::spawn(run_task(step, queue, Arc::clone(wake)));
            None
        } else {
            let spawned = std::thread::Builder::new()
                .name("log-writer".to_owned())
                .spawn(move || run_thread(step, &queue));
            match spawned {
                Ok(thread) => Some(thread),
                Err(error) => {
                    tracing::error!(%error, "the log writer's thread cannot be started");
                    std::process::abort();
                }
            }
        };
        let (jobs, ended) = (Mutex::new(Some(jobs)), Mutex::new(Some(ended)));
        Self { jobs, ended, wake, thread, durable }
    }

    pub(super) fn submit(&self, job: Job) {
        let refused = match &*self.jobs.lock() {
            Some(jobs) => jobs.send(job).err().map(crossbeam_channel::SendError::into_inner),
            None => Some(job),
        };
        if let Some(job) = refused {
            complete(job.done, Err(io::Error::other("the log writer has ended")));
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake.notify_one();
        }
    }

    /// Lets the writer work off what waits, and ends it. When this returns, it holds the engine no more.
    pub(super) async fn close(&self) {
        self.jobs.lock().take();
        self.wake();
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            // The error is the message: the other end was dropped.
            let _ = ended.await;
        }
    }

    /// Largest index of an entry that is known to be on disk.
    pub(super) fn durable_index(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }
}

impl Drop for LogWriter {
    /// A thread that closes a database while the process ends finds RocksDB's own globals gone, and aborts: so it is
    /// waited for, also where nobody has closed it.
    fn drop(&mut self) {
        self.jobs.get_mut().take();
        if let Some(thread) = self.thread.take() {
            // It has said why, if it panicked.
            let _ = thread.join();
        }
    }
}

struct Step {
    engine: Box<dyn LogEngine>,
    durable: Arc<AtomicU64>,
    abort: bool,
    /// Dropped after the engine: fields go in order.
    _alive: oneshot::Sender<()>,
}

impl Step {
    /// Writes what came together and syncs it. Answers whether it may go on.
    fn run(&mut self, jobs: Vec<Job>) -> bool {
        let written = self.write(&jobs, is_synced(&jobs));
        self.finish(jobs, written)
    }

    fn write(&mut self, jobs: &[Job], sync: bool) -> io::Result<()> {
        let ops: Vec<LogOp> = jobs.iter().flat_map(|job| job.ops.iter().cloned()).collect();
        let written = self.engine.write(&ops, sync);
        if sync && written.is_err() && is_planted(Mutant::RetriesFailedSyncs) {
            return self.engine.write(&[], true);
        }
        written
    }

    /// Tells whoever waits, in order.
    fn finish(&self, jobs: Vec<Job>, written: io::Result<()>) -> bool {
        if let Err(error) = &written {
            tracing::error!(%error, "the log cannot be written: the node stops");
            if self.abort {
                std::process::abort();
            }
        } else if let Some(last) = jobs.iter().flat_map(|job| &job.ops).filter_map(index_of).last()
        {
            self.durable.store(last, Ordering::Release);
        }
        for job in jobs {
            let result = match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            complete(job.done, result);
        }
        written.is_ok()
    }
}

/// Whether a write is synced before it is acknowledged: always, but for bugs that are planted.
fn is_synced(jobs: &[Job]) -> bool {
    let mut ops = jobs.iter().flat_map(|job| &job.ops);
    let is_forgotten = is_planted(Mutant::AcknowledgesUnsynced)
        || (is_planted(Mutant::VotesUnsynced) && ops.all(|op| matches!(op, LogOp::Vote(_))));
    !is_forgotten
}

fn index_of(op: &LogOp) -> Option<u64> {
    match op {
        LogOp::Put { index, .. } => Some(*index),
        LogOp::TruncateFrom { .. } | LogOp::PurgeTo { .. } | LogOp::Vote(_) => None,
    }
}

fn complete(done: Done, result: io::Result<()>) {
    match done {
        Done::Flushed(callback) => callback.io_completed(result),
        Done::Reply(reply) => {
            // Who waited may have given up; the write counts all the same.
            let _ = reply.send(result);
        }
    }
}

fn run_thread(mut step: Step, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(DRAIN));
        if !step.run(jobs) {
            return;
        }
    }
}

/// The simulation's writer. Between write and sync time passes, so that a crash can fall in between.
async fn run_task(mut step: Step, queue: Receiver<Job>, wake: Arc<Notify>) {
    loop {
        let mut jobs = match queue.try_recv() {
            Ok(first) => vec![first],
            Err(TryRecvError::Empty) => {
                wake.notified().await;
                continue;
            }
            Err(TryRecvError::Disconnected) => return,
        };
        jobs.extend(queue.try_iter().take(DRAIN));
        let mut written = step.write(&jobs, false);
        if written.is_ok() && is_synced(&jobs) {
            tokio::time::sleep(SIMULATED_SYNC).await;
            written = step.write(&[], true);
        }
        if !step.finish(jobs, written) {
            return;
        }
    }
}

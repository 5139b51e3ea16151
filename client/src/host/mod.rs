//! Hosts programs of any language as the worker of a bundle. Built on the worker runtime: a program's step is a handler
//! like another.
//!
//! ```text
//!                                                            +-> pool: a kept-alive child says it on its connection
//!   runtime --step--> engine: the step object goes out ------+-> once: a process for each step, its last line is it
//!                       ^                                    +-> sidecar: a server, the answer to a POST is it
//!                       |                                                   |
//!                       +--------------------- the outcome -----------------+
//!   session: checkpoint, memory, tool, usage … in the middle of a step, on the child's connection or, for the
//!   other two, on as many as they open to the step's own socket (callback)
//! ```
//! `protocol` says what the objects are; `peer` is a connection, `process` a process group. What a program writes to
//! stdout and stderr is a log, stamped with run, step and bundle. One host may serve several bundles.

mod callback;
mod child;
mod once;
mod outcome;
mod peer;
mod pool;
mod process;
mod protocol;
mod session;
mod sidecar;
mod socket;
mod step;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::worker::{Next, StepContext, StepResult, ToolsSeen, Worker, WorkerBuilder};

use once::Once;
use pool::Pool;
use protocol::Hello;
use sidecar::Sidecar;

/// Reason of an attempt whose program could not be started, or ended without an outcome.
const PROGRAM_ENDED: &str = "PROGRAM_ENDED";

/// What is hosted, and for whom.
#[derive(Debug, Clone)]
pub struct Host {
    /// The agent.
    pub agent: String,
    /// The bundle that the program is.
    pub bundle: String,
    /// What does the steps.
    pub source: Source,
    /// Steps at once, at most.
    pub slots: u32,
    /// Steps that it serves; empty: what its first child says, or all.
    pub steps: Vec<String>,
    /// Every effect goes through tools and checkpoints; a child may say so too.
    pub shadow_safe: bool,
    /// What the program was built from.
    pub code: Option<String>,
    /// Unique among live workers; made up when there is none.
    pub worker_id: Option<String>,
}

/// What does the steps of a bundle.
#[derive(Debug, Clone)]
pub enum Source {
    /// Children that are kept alive, each one step at a time.
    Kept(Program),
    /// A process for each step.
    PerStep(Program),
    /// A server beside the host: `http://host:port/path`.
    Http(String),
}

/// A program of whatever language.
#[derive(Debug, Clone)]
pub struct Program {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs; here, when there is none.
    pub dir: Option<PathBuf>,
}

/// Whom a process works for.
#[derive(Debug, Clone)]
struct Served {
    agent: String,
    bundle: String,
    /// Process groups that were told to end and may not have yet.
    ending: TaskTracker,
}

/// Serves them all until `stop` is ready; then finishes or hands back what they hold, and ends their programs. When the
/// cluster refuses one, the others go on.
///
/// # Errors
/// `Invalid` when a program cannot be started, does not say hello in time or, as a server, does not listen; when all are
/// over, the first error of the worker runtime.
pub async fn serve(hosts: Vec<Host>, client: Client, stop: impl Future<Output = ()>) -> Result<()> {
    tokio::pin!(stop);
    let hosted = tokio::select! {
        hosted = try_join_all(hosts.into_iter().map(Hosted::start)) => hosted?,
        () = &mut stop => return Ok(()),
    };
    let (tell, told) = watch::channel(false);
    let workers = hosted.into_iter().map(|hosted| {
        let (client, mut told) = (client.clone(), told.clone());
        hosted.run_until(client, async move { drop(told.wait_for(|stop| *stop).await) })
    });
    let workers = join_all(workers);
    tokio::pin!(workers);
    let ended = tokio::select! {
        ended = &mut workers => ended,
        () = stop => {
            tell.send_replace(true);
            workers.await
        }
    };
    ended.into_iter().collect()
}

/// A host whose program is there.
struct Hosted {
    host: Host,
    hello: Hello,
    engine: Arc<Engine>,
    seen: ToolsSeen,
    ending: TaskTracker,
}

#[derive(Debug)]
enum Engine {
    Pool(Pool),
    Once(Once),
    Sidecar(Sidecar),
}

impl Engine {
    async fn serve(&self, context: StepContext, input: Value) -> StepResult<Next> {
        match self {
            Self::Pool(pool) => pool.serve(context, input).await,
            Self::Once(once) => once.serve(context, input).await,
            Self::Sidecar(sidecar) => sidecar.serve(context, input).await,
        }
    }
}

impl Hosted {
    async fn start(host: Host) -> Result<Self> {
        let (ending, seen) = (TaskTracker::new(), ToolsSeen::new());
        let served = || Served {
            agent: host.agent.clone(),
            bundle: host.bundle.clone(),
            ending: ending.clone(),
        };
        let (engine, hello) = match host.source.clone() {
            Source::Kept(program) => {
                let pool = Pool::new(program, served(), seen.clone())?;
                let hello = pool.first().await;
                (Engine::Pool(pool), hello.map_err(|error| Error::invalid(error.to_string()))?)
            }
            Source::PerStep(program) => {
                (Engine::Once(Once::new(program, served())?), Hello::default())
            }
            Source::Http(url) => {
                let sidecar = Sidecar::new(&url)?;
                sidecar.up().await?;
                (Engine::Sidecar(sidecar), Hello::default())
            }
        };
        Ok(Self { host, hello, engine: Arc::new(engine), seen, ending })
    }

    async fn run_until(self, client: Client, stop: impl Future<Output = ()>) -> Result<()> {
        let Self { host, hello, engine, seen, ending } = self;
        let (agent, bundle) = (host.agent.clone(), host.bundle.clone());
        let ended = worker(host, hello, client, &engine).tools_seen(&seen).run_until(stop).await;
        if let Engine::Pool(pool) = &*engine {
            pool.end().await;
        }
        ending.close();
        ending.wait().await;
        if let Err(error) = &ended {
            eprintln!("{agent} {bundle} is not served any more: {error}");
        }
        ended
    }
}

fn worker(host: Host, hello: Hello, client: Client, engine: &Arc<Engine>) -> WorkerBuilder {
    let mut worker =
        Worker::builder(client).agent(host.agent).bundle(host.bundle).slots(host.slots);
    if let Some(code) = host.code {
        worker = worker.code(code);
    }
    if let Some(worker_id) = host.worker_id {
        worker = worker.worker_id(worker_id);
    }
    if host.shadow_safe || hello.shadow_safe {
        worker = worker.shadow_safe();
    }
    let handler = || {
        let engine = Arc::clone(engine);
        move |context: StepContext, input: Value| {
            let engine = Arc::clone(&engine);
            async move { engine.serve(context, input).await }
        }
    };
    let steps = if host.steps.is_empty() { hello.steps } else { host.steps };
    if steps.is_empty() {
        return worker.any_step(handler());
    }
    steps.into_iter().fold(worker, |worker, step| worker.step(step, handler()))
}

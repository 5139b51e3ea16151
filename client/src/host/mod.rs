//! Hosts programs of any language as the worker of a bundle: kept-alive children that speak JSON over a Unix socket,
//! one object a line, one step at a time each. Built on the worker runtime: a child's step is a handler like another.
//!
//! ```text
//!   runtime --step--> pool --idle child--> session: step ->  <- checkpoint, memory, tool, usage …  <- outcome
//!                       ^------- kept, when it answered in order; else its process group is ended
//! ```
//! `protocol` says what goes over the socket, `child` owns a process, `session` serves one step on one child. What a
//! child writes to stdout and stderr is a log, stamped with run, step and bundle.

mod child;
mod pool;
mod protocol;
mod session;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::worker::{StepContext, Worker};

use pool::Pool;

/// What is hosted, and for whom.
#[derive(Debug, Clone)]
pub struct Host {
    /// The agent.
    pub agent: String,
    /// The bundle that the program is.
    pub bundle: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs; here, when there is none.
    pub dir: Option<PathBuf>,
    /// Children at most, each one step at a time.
    pub slots: u32,
    /// Steps that it serves; empty: what its first child says.
    pub steps: Vec<String>,
    /// Every effect goes through tools and checkpoints; a child may say so too.
    pub shadow_safe: bool,
    /// What the program was built from.
    pub code: Option<String>,
}

impl Host {
    /// Serves until `stop` is ready; then finishes or hands back what it holds, and ends the children.
    ///
    /// # Errors
    /// `Invalid` when the program cannot be started or does not say hello in time; else those of the worker runtime.
    pub async fn run_until(self, client: Client, stop: impl Future<Output = ()>) -> Result<()> {
        let pool = Arc::new(Pool::new(&self)?);
        let hello = pool.first().await.map_err(|error| Error::invalid(error.to_string()))?;
        let mut worker =
            Worker::builder(client).agent(&self.agent).bundle(&self.bundle).slots(self.slots);
        if let Some(code) = self.code {
            worker = worker.code(code);
        }
        if self.shadow_safe || hello.shadow_safe {
            worker = worker.shadow_safe();
        }
        for step in if self.steps.is_empty() { hello.steps } else { self.steps } {
            let pool = Arc::clone(&pool);
            let handle = move |context: StepContext, input: serde_json::Value| {
                let pool = Arc::clone(&pool);
                async move { session::serve(&pool, context, input).await }
            };
            worker = worker.step(step, handle);
        }
        let ended = worker.run_until(stop).await;
        pool.end().await;
        ended
    }
}

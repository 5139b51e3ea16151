//! The children that wait for a step. There are never more than slots: the runtime runs no more steps than that.

use std::io;

use parking_lot::Mutex;
use serde_json::Value;

use crate::worker::{Next, StepContext, StepError, StepResult, ToolsSeen};

use super::child::Child;
use super::outcome::PROTOCOL;
use super::protocol::{Hello, Outcome};
use super::session::{Session, say_tools};
use super::socket::Sockets;
use super::step::{self, step};
use super::{PROGRAM_ENDED, Program, Served};

#[derive(Debug)]
pub(super) struct Pool {
    program: Program,
    served: Served,
    idle: Mutex<Vec<Child>>,
    sockets: Sockets,
    seen: ToolsSeen,
}

impl Pool {
    /// `seen` is told of the tools that children say they see.
    pub(super) fn new(program: Program, served: Served, seen: ToolsSeen) -> crate::Result<Self> {
        Ok(Self { program, served, idle: Mutex::default(), sockets: Sockets::new()?, seen })
    }

    /// Starts the first child, which says what the program serves.
    pub(super) async fn first(&self) -> io::Result<Hello> {
        let child = self.take().await?;
        let hello = child.hello.clone();
        self.keep(child);
        Ok(hello)
    }

    /// Serves a step on an idle child, which is kept when it answered in order.
    pub(super) async fn serve(&self, context: StepContext, input: Value) -> StepResult<Next> {
        let started = self.take().await;
        let mut child =
            started.map_err(|error| StepError::retry(error).with_reason(PROGRAM_ENDED))?;
        child.stamp(step::stamp(&context));
        // Dropped while it works, at the end of a cancelled step's grace say, the child goes with it.
        let outcome = work(&mut child, context, input).await?;
        self.keep(child);
        outcome.into_next()
    }

    /// A child that waits, or a new one.
    async fn take(&self) -> io::Result<Child> {
        loop {
            let waiting = self.idle.lock().pop();
            match waiting {
                Some(mut child) => {
                    if child.is_alive() {
                        return Ok(child);
                    }
                }
                None => break,
            }
        }
        let child = Child::start(&self.program, &self.served, self.sockets.next()).await?;
        say_tools(&self.seen, child.hello.tools.clone());
        Ok(child)
    }

    fn keep(&self, child: Child) {
        self.idle.lock().push(child);
    }

    /// Ends all children.
    pub(super) async fn end(&self) {
        let children = std::mem::take(&mut *self.idle.lock());
        futures::future::join_all(children.into_iter().map(Child::end)).await;
    }
}

async fn work(child: &mut Child, context: StepContext, input: Value) -> StepResult<Outcome> {
    let message = step(&context, input, None);
    let said = match child.send(&message).await {
        Ok(()) => Session::new(context).talk(&mut child.peer).await,
        Err(_) => Ok(None),
    };
    match said {
        Ok(Some(outcome)) => Ok(outcome),
        Ok(None) => Err(StepError::retry(child.obituary().await).with_reason(PROGRAM_ENDED)),
        Err(error) => Err(StepError::retry(error).with_reason(PROTOCOL)),
    }
}

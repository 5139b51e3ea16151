//! A process for each step: the step object on its stdin, the outcome as the last line of its stdout.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::worker::{Next, StepContext, StepError, StepResult};

use super::process::{Process, TERM, log_but_last, say};
use super::protocol::Outcome;
use super::session::Session;
use super::socket::{Socket, Sockets};
use super::step::{self, step};
use super::{PROGRAM_ENDED, Program, Served, callback};

#[derive(Debug)]
pub(super) struct Once {
    program: Program,
    served: Served,
    sockets: Sockets,
}

impl Once {
    pub(super) fn new(program: Program, served: Served) -> crate::Result<Self> {
        Ok(Self { program, served, sockets: Sockets::new()? })
    }

    /// Starts the program for this step and waits for its end. Dropped before, at the end of a cancelled step's grace
    /// say, the process goes with it.
    pub(super) async fn serve(&self, context: StepContext, input: Value) -> StepResult<Next> {
        let failed = |error| StepError::retry(error).with_reason(PROGRAM_ENDED);
        let socket = self.sockets.next();
        let listener = socket.listen().map_err(failed)?;
        let variables = variables(&context, &socket);
        let started = Process::start(&self.program, &self.served, &variables, Stdio::piped());
        let (mut process, stdout) = started.map_err(failed)?;
        process.stamp(step::stamp(&context));
        let last = tokio::spawn(log_but_last(stdout, process.stamped()));
        let mut message = serde_json::to_vec(&step(&context, input, None))?;
        message.push(b'\n');
        let _writes = process.stdin().map(|mut to| {
            // A program that does not read it is a program like another.
            AbortOnDropHandle::new(tokio::spawn(async move { drop(to.write_all(&message).await) }))
        });
        let session = Arc::new(Session::new(context));
        let status = tokio::select! {
            ended = process.wait() => ended.map_err(failed)?,
            never = callback::serve(&listener, &session) => match never {},
        };
        // What it left behind would hold its output open, and goes with the step.
        process.sweep();
        let last = timeout(TERM, last).await.ok().and_then(Result::ok).unwrap_or_default();
        judge(process, status, &last).await
    }
}

/// What the program is told besides the step object, and what a shell can use without reading JSON.
fn variables(context: &StepContext, socket: &Socket) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("PINRAIL_SOCKET", socket.to_string()),
        ("PINRAIL_RUN", context.run_id().to_owned()),
        ("PINRAIL_STEP", context.step_name().to_owned()),
        ("PINRAIL_ATTEMPT", context.attempt().to_string()),
    ];
    // As OpenTelemetry's libraries look for it.
    if let Some(parent) = context.trace_parent() {
        variables.push(("TRACEPARENT", parent));
    }
    // So that `"$PINRAIL" worker call` is this very version.
    if let Ok(program) = std::env::current_exe() {
        variables.push(("PINRAIL", program.display().to_string()));
    }
    variables
}

/// The outcome that the last line is, or why there is none.
async fn judge(mut process: Process, status: ExitStatus, last: &[u8]) -> StepResult<Next> {
    match Outcome::parse(last) {
        Ok(Some(outcome)) => return outcome.into_next(),
        Err(error) if status.success() => return Err(error),
        Ok(None) | Err(_) => {}
    }
    if !last.is_empty() {
        say(&process.stamped(), last);
    }
    let error = StepError::retry(process.obituary().await);
    Err(error.with_reason(PROGRAM_ENDED))
}

//! P1: a run executes every step on the bundle that it is pinned to. What the worker processes logged about
//! themselves is joined with the pins of the final read.

use std::collections::BTreeMap;

use super::{Case, Findings, Promise};
use crate::history::{Answer, RunFinal, WorkerEvent, WorkerLine};

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P1);
    let runs: BTreeMap<&str, &RunFinal> =
        case.agent.runs.iter().map(|run| (run.run_id.as_str(), run)).collect();
    for line in case.evidence.worker_log.iter().filter(|line| line.agent == case.agent.agent) {
        let Some(run) = runs.get(line.run_id.as_str()) else {
            findings.wrong(format!("a worker executed {}, which nobody knows", line.run_id));
            continue;
        };
        match &line.event {
            WorkerEvent::Began { bundle_id, .. } => {
                executed(case, run, line, bundle_id, &mut findings);
            }
            WorkerEvent::Completed { revision, .. }
            | WorkerEvent::CheckpointAcked { revision, .. }
            | WorkerEvent::MemoryAcked { revision, .. } => {
                fenced(run, line, *revision, &mut findings)
            }
            WorkerEvent::MemoryAsked { .. }
            | WorkerEvent::Refused { .. }
            | WorkerEvent::Cancelled { .. } => {}
        }
    }
    findings
}

/// The process must have been built from the code of the bundle that the run was pinned to.
fn executed(
    case: &Case<'_>,
    run: &RunFinal,
    line: &WorkerLine,
    assigned: &str,
    findings: &mut Findings,
) {
    let Some(pinned) = pinned_at(case, run, line.token) else {
        return;
    };
    let code = case.agent.code.get(&pinned).map(String::as_str).unwrap_or_default();
    findings.expect(line.code == code, || {
        format!(
            "step {} of {} (attempt {}, token {}) was executed by {} with code {}; the run is pinned to {pinned}, \
             whose code is {code}",
            line.step, line.run_id, line.attempt, line.token, line.worker_id, line.code
        )
    });
    findings.expect(assigned == pinned, || {
        format!(
            "step {} of {} was assigned as one of {assigned}; the run is pinned to {pinned}",
            line.step, line.run_id
        )
    });
}

/// The bundle that a lease with this token belongs to. Of a run that was restarted more than once only the last
/// pin is known for sure.
fn pinned_at(case: &Case<'_>, run: &RunFinal, token: u64) -> Option<String> {
    if run.restarts == 0 || token > run.pin.revision {
        return Some(run.pin.bundle_id.clone());
    }
    if run.restarts > 1 {
        return None;
    }
    case.history.iter().find_map(|entry| match (&entry.call, entry.ok()?.1) {
        (crate::history::Call::StartRun { run_id, .. }, Answer::Started { pin, .. })
            if *run_id == run.run_id =>
        {
            Some(pin.bundle_id.clone())
        }
        _ => None,
    })
}

/// A restart on another bundle fences every lease that was made before it.
fn fenced(run: &RunFinal, line: &WorkerLine, revision: u64, findings: &mut Findings) {
    if run.restarts == 0 {
        return;
    }
    findings.expect(line.token > run.pin.revision || revision < run.pin.revision, || {
        format!(
            "{} was restarted at revision {}, but a lease of revision {} was obeyed at revision {revision}",
            line.run_id, run.pin.revision, line.token
        )
    });
}

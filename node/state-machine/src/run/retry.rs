//! Retry by hand: somebody looked at a paused run and lets it go on.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{RetryRun, RunResult};
use pinrail_proto::reason;
use pinrail_proto::v1::{InFlight, RunState};

use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, event, step};

use super::{Subject, is_over, restart, settle};

pub(crate) fn retry(txn: &mut Txn<'_>, it: &RetryRun) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut subject = Subject::load(txn, &agent, &it.run_id)?;
    agent::expect_revision(txn, subject.run.revision)?;
    let before = subject.run.state();
    settle(txn, &mut subject)?;
    if is_over(subject.run.state()) {
        let message = format!("run {:?} is over", it.run_id);
        return Err(
            reject(reason::RUN_CLOSED, message).with("state", subject.run.state().as_str_name())
        );
    }
    // What is held from a restart by this very command was not looked at by anybody.
    let state = if before == RunState::Paused { subject.run.state() } else { before };
    if state != RunState::Paused {
        let message = format!("run {:?} is not paused", it.run_id);
        return Err(reject(reason::RUN_NOT_PAUSED, message).with("state", state.as_str_name()));
    }
    if !begin_anew(txn, &mut subject)? && !step::revive(txn, &mut subject)? {
        return Err(reject(reason::RUN_NOT_PAUSED, "nothing of the run waits for a retry"));
    }
    subject.save(txn)?;
    txn.event(event::of_run("run.retried", &agent, &subject.run.bundle_id, &it.run_id));
    let state = subject.run.state;
    Ok(Answer::Run(RunResult { state, already: false, keep_until_ms: 0, delivered: false }))
}

/// The restart that a destructive effect held up: that effect may happen again. False: the run is not held from one.
fn begin_anew(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<bool, Stop> {
    let mark = subject.bundle.mark.clone().filter(|mark| {
        mark.in_flight() == InFlight::Restart && subject.run.pinned_revision <= mark.revision
    });
    let Some(mark) = mark else { return Ok(false) };
    subject.run.destructive = false;
    restart::restart(txn, subject, &mark)?;
    Ok(true)
}

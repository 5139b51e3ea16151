//! External runs: their end and their keep-alive are told from outside.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{FinishRun, KeepRun, RunResult};
use pinrail_proto::v1::{Outcome, RunState};
use pinrail_proto::{limits, reason};

use crate::agent;
use crate::agent::policy::too_large;
use crate::key::Timer;
use crate::level;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;

use super::{End, Subject, add_usage, clip, close, is_over, put_output, settle};

/// Ends an external run. The first call wins; a later one gets what that one said.
pub(crate) fn finish(txn: &mut Txn<'_>, it: &FinishRun) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut subject = Subject::load(txn, &agent, &it.run_id)?;
    must_be_external(&subject)?;
    let size = it.output.as_ref().map_or(0, |output| output.data.len());
    if size > limits::PAYLOAD_BYTES {
        return Err(too_large("output bytes", size, limits::PAYLOAD_BYTES));
    }
    let end = match it.outcome() {
        Outcome::Completed => End::Completed,
        Outcome::Failed => {
            let mut failure = clip::failure(it.failure.as_ref());
            if failure.reason.is_empty() {
                "FAILED".clone_into(&mut failure.reason);
            }
            End::Failed(failure)
        }
        Outcome::Unspecified => {
            return Err(reject(reason::INVALID_REQUEST, "outcome must be completed or failed"));
        }
    };
    if is_over(subject.run.state()) {
        // Nothing changes, the run's revision neither.
        return Ok(Answer::Run(RunResult {
            state: subject.run.state,
            already: true,
            keep_until_ms: 0,
            delivered: false,
        }));
    }
    expect_revision(txn, &subject)?;
    settle(txn, &mut subject)?;
    must_have_begun(&subject)?;
    let already = is_over(subject.run.state());
    if !already {
        if let Some(usage) = &it.usage {
            add_usage(txn, &mut subject, usage)?;
        }
        if let Some(output) = &it.output {
            put_output(txn, agent.number, &mut subject.run, output);
        }
        close(txn, &mut subject, end)?;
    }
    subject.save(txn)?;
    Ok(Answer::Run(RunResult {
        state: subject.run.state,
        already,
        keep_until_ms: 0,
        delivered: false,
    }))
}

/// Says that an external run is alive; nothing extends its pin.
pub(crate) fn keep(txn: &mut Txn<'_>, it: &KeepRun) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut subject = Subject::load(txn, &agent, &it.run_id)?;
    must_be_external(&subject)?;
    expect_revision(txn, &subject)?;
    settle(txn, &mut subject)?;
    must_have_begun(&subject)?;
    if is_over(subject.run.state()) {
        let message = format!("run {:?} is over", it.run_id);
        return Err(
            reject(reason::RUN_CLOSED, message).with("state", subject.run.state().as_str_name())
        );
    }
    let (number, object) = (agent.number, it.run_id.as_bytes());
    if subject.run.keep_until_ms != 0 {
        txn.clear_timer(number, subject.run.keep_until_ms, Timer::KeepAlive, object);
        subject.run.keep_until_ms = 0;
    }
    // 0: the policy asks for no keep-alive (any more).
    if subject.agent.keep_alive_ms != 0 {
        subject.run.keep_until_ms = txn.now + subject.agent.keep_alive_ms;
        txn.set_timer(number, subject.run.keep_until_ms, Timer::KeepAlive, object);
    }
    subject.save(txn)?;
    let keep_until_ms = subject.run.keep_until_ms;
    Ok(Answer::Run(RunResult {
        state: subject.run.state,
        already: false,
        keep_until_ms,
        delivered: false,
    }))
}

fn must_be_external(subject: &Subject) -> Result<(), Stop> {
    if subject.run.external {
        return Ok(());
    }
    Err(reject(reason::RUN_NOT_EXTERNAL, "the run is executed by workers, which end it"))
}

fn must_have_begun(subject: &Subject) -> Result<(), Stop> {
    if subject.run.state() == RunState::Scheduled {
        return Err(reject(reason::RUN_NOT_BEGUN, "the run is not due yet")
            .with("due_ms", subject.run.due_ms));
    }
    Ok(())
}

/// From feature level 13 on.
fn expect_revision(txn: &Txn<'_>, subject: &Subject) -> Result<(), Stop> {
    if txn.cluster.feature_level < level::EXTERNAL_RUNS_HAVE_EXPECTED_REVISIONS {
        return Ok(());
    }
    agent::expect_revision(txn, subject.run.revision)
}

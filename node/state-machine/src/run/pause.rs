//! The brake of one run: what is held finishes, nothing new is leased, and its pin still ends.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{PauseRun, ResumeRun, RunResult};
use pinrail_proto::reason;

use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, event, step};

use super::{Subject, is_over, settle};

pub(crate) fn pause(txn: &mut Txn<'_>, it: &PauseRun) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut subject = open(txn, Subject::load(txn, &agent, &it.run_id)?)?;
    let already = subject.run.held;
    if !already {
        subject.run.held = true;
        step::hold(txn, &mut subject)?;
        txn.event(event::of_run("run.paused", &agent, &subject.run.bundle_id, &it.run_id));
    }
    subject.save(txn)?;
    Ok(answer(&subject, already))
}

pub(crate) fn resume(txn: &mut Txn<'_>, it: &ResumeRun) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut subject = open(txn, Subject::load(txn, &agent, &it.run_id)?)?;
    if !subject.run.held {
        let message = format!("nobody paused run {:?}", it.run_id);
        return Err(reject(reason::RUN_NOT_PAUSED, message)
            .with("state", subject.run.state().as_str_name()));
    }
    subject.run.held = false;
    step::let_go(txn, &mut subject)?;
    subject.save(txn)?;
    txn.event(event::of_run("run.resumed", &agent, &subject.run.bundle_id, &it.run_id));
    Ok(answer(&subject, false))
}

/// A run that is not over and that workers execute.
fn open(txn: &mut Txn<'_>, mut subject: Subject) -> Result<Subject, Stop> {
    agent::expect_revision(txn, subject.run.revision)?;
    if subject.run.external {
        let message = "an external run is paused by its own program";
        return Err(reject(reason::INVALID_REQUEST, message));
    }
    settle(txn, &mut subject)?;
    step::catch_up(txn, &mut subject)?;
    if is_over(subject.run.state()) {
        let message = format!("run {:?} is over", subject.run.run_id);
        return Err(
            reject(reason::RUN_CLOSED, message).with("state", subject.run.state().as_str_name())
        );
    }
    Ok(subject)
}

fn answer(subject: &Subject, already: bool) -> Answer {
    let state = subject.run.state;
    Answer::Run(RunResult { state, already, keep_until_ms: 0, delivered: false })
}

//! A live run and its mirror: how the two compare once both are over.

use pinrail_proto::log::RunRecord;
use pinrail_proto::reason;
use pinrail_proto::v1::{Compare, Payload, RunState, ShadowGate};
use pinrail_state_machine::query::{self, MIRROR_OF};
use pinrail_state_machine::store::{Fault, Read};

use super::{compare, opinion};

/// How a pair stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stands {
    /// One of the two runs, or their judge, is not over.
    Open,
    /// Both are over, and a step has to say how they compare: with this input.
    AwaitsJudge(Payload),
    Compared(Judged),
}

/// How a pair compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    Same,
    Diverged {
        live: String,
        why: String,
    },
    /// It says nothing about the candidate.
    NotComparable {
        why: String,
    },
}

/// Compares a shadow run with its live run.
pub(super) fn judge(
    read: &dyn Read,
    agent: u32,
    shadow: &RunRecord,
    gate: &ShadowGate,
) -> Result<Stands, Fault> {
    let apart = |why: &str| Ok(Stands::Compared(Judged::NotComparable { why: why.to_owned() }));
    if shadow.ended_ms == 0 {
        return Ok(Stands::Open);
    }
    let Some(live_id) = shadow.labels.get(MIRROR_OF) else { return apart("it mirrors nothing") };
    let Some(live) = query::run_record(read, agent, live_id)? else {
        return apart("the live run is gone");
    };
    match live.state() {
        RunState::Completed => {}
        RunState::Failed | RunState::Cancelled | RunState::Expired | RunState::Continued => {
            return apart("the live run did not complete");
        }
        RunState::Unspecified
        | RunState::Scheduled
        | RunState::Queued
        | RunState::Running
        | RunState::Waiting
        | RunState::Paused
        | RunState::Cancelling => return Ok(Stands::Open),
    }
    let diverged =
        |why: String| Ok(Stands::Compared(Judged::Diverged { live: live_id.clone(), why }));
    if shadow.state() != RunState::Completed {
        let failure = shadow.failure.clone().unwrap_or_default();
        if failure.reason == reason::TOOL_SUPPRESSED.name {
            return apart("a tool with side effects was not called");
        }
        if shadow.state() == RunState::Cancelled {
            return apart("the mirrored run was cancelled");
        }
        let state = shadow.state().as_str_name().trim_start_matches("RUN_STATE_").to_lowercase();
        return diverged(format!(
            "the candidate's run {state}: {} {}",
            failure.reason, failure.message
        ));
    }
    let difference = match gate.compare() {
        Compare::Trajectory => compare::trajectories(
            &query::trajectory(read, agent, live_id)?,
            &query::trajectory(read, agent, &shadow.run_id)?,
        ),
        Compare::Judge => return opinion::of(read, agent, shadow, live_id),
        how @ (Compare::Exact | Compare::Json | Compare::Unspecified) => {
            let before = query::run_output(read, agent, live_id)?.unwrap_or_default();
            let after = query::run_output(read, agent, &shadow.run_id)?.unwrap_or_default();
            if how == Compare::Exact {
                compare::exact(&before.data, &after.data)
            } else {
                compare::json(&before.data, &after.data, gate.tolerance_permille(), &gate.ignore)
            }
        }
    };
    match difference {
        None => Ok(Stands::Compared(Judged::Same)),
        Some(why) => diverged(why),
    }
}

/// What a pair has cost so far beside its live run, in micro-units: the mirror, and its judge.
pub(super) fn cost(
    read: &dyn Read,
    agent: u32,
    shadow: &RunRecord,
    gate: &ShadowGate,
) -> Result<u64, Fault> {
    let judge = match gate.compare() {
        Compare::Judge => query::run_record(read, agent, &opinion::run_id(&shadow.run_id))?,
        Compare::Unspecified | Compare::Exact | Compare::Json | Compare::Trajectory => None,
    };
    Ok(cost_of(shadow) + judge.as_ref().map_or(0, cost_of))
}

/// What one run has cost so far.
pub(super) fn cost_of(run: &RunRecord) -> u64 {
    run.usage.as_ref().map_or(0, |usage| usage.models.iter().map(|model| model.cost_micros).sum())
}

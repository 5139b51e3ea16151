//! How releases end.

use pinrail_proto::log::{AgentRecord, ReleaseRecord};
use pinrail_proto::v1::ReleaseState;

use crate::level;
use crate::outcome::Stop;
use crate::txn::Txn;
use crate::{bundle, memory, route};

use super::stage::clear_hold;
use super::{existing, is_over, note, save, sum};

/// Ends the active release without a switch. Traffic that its canary had goes back to the live bundle: as a rollback
/// where the release failed. The caller saves agent and release.
pub(super) fn end_active(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
    state: ReleaseState,
    why: &str,
) -> Result<(), Stop> {
    let mut state = state;
    if agent.canary_bp != 0 {
        if state == ReleaseState::Failed {
            state = ReleaseState::RolledBack;
        }
        let is_rejected = state == ReleaseState::RolledBack;
        let in_full = txn.cluster.feature_level >= level::FAILED_CANARIES_ARE_ROLLED_BACK;
        if is_rejected && in_full {
            route::leave_failed(txn, agent, &release.bundle_id)?;
        } else {
            route::leave_candidate(txn, agent, &release.bundle_id, is_rejected)?;
        }
    }
    close_candidate(txn, agent, release)?;
    finish(txn, agent, release, state, why)
}

/// Whoever types a rollback from here on, without a bundle's name, may not know yet that this was done.
pub(super) fn note_abort(txn: &Txn<'_>, agent: &mut AgentRecord) {
    if txn.cluster.feature_level >= level::ABORTS_MAKE_ROLLBACKS_AMBIGUOUS {
        agent.last_abort_ms = txn.now;
    }
}

/// What the candidate wrote to its layer stays there, on a base that moves no more.
fn close_candidate(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &ReleaseRecord,
) -> Result<(), Stop> {
    agent.active_release = 0;
    agent.candidate_bundle_id.clear();
    agent.canary_bp = 0;
    let candidate = bundle::load(txn, agent.number, &release.bundle_id)?;
    memory::fix_base(txn, agent, candidate.layer)
}

/// Ends whatever release is active because something else took its place. The caller saves the agent.
pub(crate) fn abort_active(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    why: &str,
) -> Result<(), Stop> {
    if agent.active_release == 0 {
        return Ok(());
    }
    let mut release = existing(txn.read(), agent.number, agent.active_release)?;
    end_active(txn, agent, &mut release, ReleaseState::Aborted, why)?;
    save(txn, agent.number, &mut release);
    Ok(())
}

/// The active release's candidate was rolled back out of its canary: the route has left it already. The caller saves the
/// agent.
pub(crate) fn leave_canary(txn: &mut Txn<'_>, agent: &mut AgentRecord) -> Result<(), Stop> {
    let mut release = existing(txn.read(), agent.number, agent.active_release)?;
    close_candidate(txn, agent, &release)?;
    let why = txn.header.reason.clone();
    finish(txn, agent, &mut release, ReleaseState::RolledBack, &why)?;
    save(txn, agent.number, &mut release);
    Ok(())
}

/// The live bundle was rolled back: the release that brought it there is over, and so is one that stood on it. The
/// caller saves the agent.
pub(crate) fn end_by_rollback(txn: &mut Txn<'_>, agent: &mut AgentRecord) -> Result<(), Stop> {
    abort_active(txn, agent, "the live bundle was rolled back")?;
    if agent.quarantine_release == 0 {
        return Ok(());
    }
    let mut release = existing(txn.read(), agent.number, agent.quarantine_release)?;
    agent.quarantine_release = 0;
    let why = txn.header.reason.clone();
    finish(txn, agent, &mut release, ReleaseState::RolledBack, &why)?;
    save(txn, agent.number, &mut release);
    Ok(())
}

/// Another switch takes the place of the pair in quarantine.
pub(super) fn close_quarantine(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    next: u32,
) -> Result<(), Stop> {
    if agent.quarantine_release == 0 || agent.quarantine_release == next {
        return Ok(());
    }
    let mut release = existing(txn.read(), agent.number, agent.quarantine_release)?;
    agent.quarantine_release = 0;
    let why = format!("the switch of {} closed its quarantine", super::id(next));
    finish(txn, agent, &mut release, ReleaseState::Recycled, &why)?;
    save(txn, agent.number, &mut release);
    Ok(())
}

/// Nothing happens to the release any more.
pub(super) fn finish(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &mut ReleaseRecord,
    state: ReleaseState,
    why: &str,
) -> Result<(), Stop> {
    debug_assert!(is_over(state), "a release ends in a final state");
    let from = release.state();
    release.set_state(state);
    release.ended_ms = txn.now;
    release.deadline_ms = 0;
    why.clone_into(&mut release.end_reason);
    clear_hold(release);
    sum::keep(txn, agent, release)?;
    let what = match state {
        ReleaseState::Recycled => "release.recycled",
        ReleaseState::Aborted => "release.aborted",
        ReleaseState::RolledBack => "release.rolled_back",
        ReleaseState::Failed
        | ReleaseState::Unspecified
        | ReleaseState::Preparing
        | ReleaseState::Smoke
        | ReleaseState::Evals
        | ReleaseState::Shadow
        | ReleaseState::Canary
        | ReleaseState::Switching
        | ReleaseState::Switched => "release.failed",
    };
    note(txn, agent, release, what, from, why);
    Ok(())
}

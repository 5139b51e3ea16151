//! Quarantine: the bundle before the switch is kept as standby until the live one has proven itself.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, ExtendQuarantine, GateRecord, ReleaseRecord};
use pinrail_proto::time::millis;
use pinrail_proto::v1::{Stage, Verdict};
use pinrail_proto::{limits, reason};

use crate::agent;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;

use super::verdict::answer;
use super::{existing, note, policy, save, save_gate};

/// Begins with the switch.
pub(super) fn begin(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
) -> Result<(), Stop> {
    let span = policy(txn.read(), agent.number, release.number)?.quarantine.unwrap_or_default();
    let ms = |it: Option<&prost_types::Duration>| it.and_then(millis).unwrap_or(0);
    release.quarantine_until_ms = txn.now + ms(span.min.as_ref());
    release.quarantine_latest_ms = txn.now + ms(span.max.as_ref()).max(ms(span.min.as_ref()));
    agent.quarantine_release = release.number;
    open_gate(txn, agent, release, Stage::Quarantine);
    Ok(())
}

/// Keeps the standby for longer.
pub(crate) fn extend(txn: &mut Txn<'_>, it: &ExtendQuarantine) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    if agent.quarantine_release == 0 {
        let message = format!("agent {} has nothing in quarantine", agent.agent_id);
        return Err(reject(reason::RELEASE_NOT_ACTIVE, message));
    }
    if it.by_ms == 0 || it.by_ms > limits::MAX_AGE_MS {
        return Err(reject(reason::INVALID_REQUEST, "a quarantine is extended by at most 30 days")
            .with("limit_ms", limits::MAX_AGE_MS));
    }
    let mut release = existing(txn.read(), agent.number, agent.quarantine_release)?;
    agent::expect_revision(txn, release.revision)?;
    let until_ms = txn.now + it.by_ms;
    release.quarantine_until_ms = release.quarantine_until_ms.max(until_ms);
    release.quarantine_latest_ms = release.quarantine_latest_ms.max(until_ms);
    if release.stage() == Stage::Recycle {
        open_gate(txn, &agent, &mut release, Stage::Quarantine);
    }
    let state = release.state();
    note(txn, &agent, &mut release, "release.extended", state, "");
    save(txn, agent.number, &mut release);
    answer(txn, &agent, &release, false)
}

/// The metrics are clean and the time is over: the standby may go.
pub(super) fn over(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
    forced: bool,
) -> Result<(), Stop> {
    if txn.now < release.quarantine_until_ms && !forced {
        return Err(reject(reason::GATE_STALE, "the quarantine is not over")
            .with("until_ms", release.quarantine_until_ms));
    }
    open_gate(txn, agent, release, Stage::Recycle);
    let state = release.state();
    note(txn, agent, release, "release.entered", state, "");
    Ok(())
}

/// Begins the next attempt at a stage behind the switch.
fn open_gate(txn: &mut Txn<'_>, agent: &AgentRecord, release: &mut ReleaseRecord, stage: Stage) {
    // A quarantine that is extended when it was over already is another attempt.
    let again = release.stage() == Stage::Recycle && stage == Stage::Quarantine;
    release.attempt = if again { release.attempt + 1 } else { release.attempt.max(1) };
    release.set_stage(stage);
    release.stage_ms = txn.now;
    let gate = GateRecord {
        verdict: Verdict::Running.into(),
        started_ms: txn.now,
        ..GateRecord::default()
    };
    save_gate(txn, agent.number, release, (stage, release.attempt), gate);
}

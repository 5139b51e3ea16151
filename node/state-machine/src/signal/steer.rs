//! What people do about a signal: say that they know, or silence it for a while.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AckSignal, AgentRecord, FiringRecord, FiringResult, MuteRecord, MuteSignal, OpenFiring,
    ReleaseRecord,
};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{MuteSignalResponse, SignalKind};
use pinrail_proto::{limits, reason};

use crate::effect::Effect;
use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, event, release};

use super::firing::{message, mute_row, open_firing, row};
use super::words::word;

/// Somebody knows of a firing: nothing waits for it any more, until the signal was clean and fires again.
pub(crate) fn ack(txn: &mut Txn<'_>, it: &AckSignal) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    check(txn, it.signal())?;
    let Some((mut release, open)) = firing(txn, &agent, it.signal())? else {
        let message = format!("{} does not fire", word(it.signal()));
        return Err(reject(reason::SIGNAL_NOT_FIRING, message));
    };
    let key = row(agent.number, release.number, open.index);
    let mut record: FiringRecord = txn.get(&key)?.unwrap_or_default();
    if !open.acked {
        record.acked_ms = txn.now;
        record.acked_by.clone_from(&txn.header.actor);
        record.ack_reason.clone_from(&txn.header.reason);
        txn.put(key, &record);
        for it in release.open_firings.iter_mut().filter(|it| it.index == open.index) {
            it.acked = true;
        }
        release::save(txn, agent.number, &mut release);
        txn.event(
            event::of_bundle("signal.acknowledged", &agent, &release.bundle_id)
                .with("release", release::id(release.number))
                .with("signal", word(it.signal())),
        );
        txn.effect(Effect::AgentChanged { agent: agent.number });
    }
    let firing = Some(message(&release, record));
    Ok(Answer::Firing(FiringResult { firing, already: open.acked }))
}

/// The release in which a signal fires.
fn firing(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    signal: SignalKind,
) -> Result<Option<(ReleaseRecord, OpenFiring)>, Stop> {
    for number in [agent.active_release, agent.quarantine_release] {
        let Some(release) = release::find(txn.read(), agent.number, number)? else { continue };
        if let Some(open) = open_firing(&release, signal).copied() {
            return Ok(Some((release, open)));
        }
    }
    Ok(None)
}

/// The signal fires for nobody for a while, and nothing waits for it.
pub(crate) fn mute(txn: &mut Txn<'_>, it: &MuteSignal) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    check(txn, it.signal())?;
    if it.span_ms > limits::MUTE_MS {
        return Err(reject(reason::INVALID_REQUEST, "a signal is muted for at most 30 days")
            .with("limit_ms", limits::MUTE_MS));
    }
    let until_ms = if it.span_ms == 0 { 0 } else { txn.now + it.span_ms };
    let row = mute_row(agent.number, it.signal());
    let what = if until_ms == 0 {
        txn.delete(row);
        event::of_agent("signal.unmuted", &agent)
    } else {
        let (reason, actor) = (txn.header.reason.clone(), txn.header.actor.clone());
        txn.put(row, &MuteRecord { until_ms, reason, actor });
        event::of_agent("signal.muted", &agent).with("until_ms", until_ms)
    };
    txn.event(what.with("signal", word(it.signal())));
    txn.effect(Effect::AgentChanged { agent: agent.number });
    Ok(Answer::MuteSignal(MuteSignalResponse {
        signal: it.signal,
        muted_until: timestamp(until_ms),
        revision: txn.revision,
    }))
}

fn check(txn: &Txn<'_>, signal: SignalKind) -> Result<(), Stop> {
    if signal == SignalKind::Unspecified {
        return Err(reject(reason::INVALID_REQUEST, "no signal is named"));
    }
    if txn.header.reason.is_empty() {
        let message = "say why: whoever looks at the signal next will ask";
        return Err(reject(reason::INVALID_REQUEST, message).with("missing", "reason"));
    }
    Ok(())
}

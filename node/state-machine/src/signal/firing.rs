//! A signal fires: what was seen is kept, and where its mode says so the candidate is left, in the same command.
//!
//! ```text
//!   clean ──FireSignal──> firing ──ClearSignal──> clean      at most one firing of a signal is open at a time
//!                           └─AckSignal: nothing waits for it any more
//! ```
//! Canary and quarantine wait while a signal fires, unless somebody acknowledged or muted it.

use pinrail_proto::limits;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentRecord, Capacity, ClearSignal, Empty, FireSignal, FiringRecord, FiringResult, MuteRecord,
    OpenFiring, ReleaseRecord,
};
use pinrail_proto::reason;
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::{self, SignalKind, SignalMode, Stage};

use crate::agent::policy::too_large;
use crate::effect::Effect;
use crate::event::With as _;
use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::{Txn, decode, get};
use crate::{agent, bundle, event, namespace, release, route};

use super::settings::Rules;
use super::watch::phase;
use super::words::word;

pub(crate) fn fire(txn: &mut Txn<'_>, it: &FireSignal) -> Result<Answer, Stop> {
    let agent = agent::load(txn, it.agent)?;
    let mut release = load_release(txn, &agent, it.release)?;
    let size = it.evidence.len() + it.summary.len();
    if size > limits::EVIDENCE_BYTES {
        return Err(too_large("evidence bytes", size, limits::EVIDENCE_BYTES));
    }
    if phase(&agent, &release) != Some(it.phase()) {
        return Err(stale(&release, "it is in another phase"));
    }
    if open_firing(&release, it.signal()).is_some() {
        return Err(stale(&release, "the signal fired already"));
    }
    if mute(txn.read(), agent.number, it.signal(), txn.now)?.is_some() {
        return Err(stale(&release, "the signal is muted"));
    }
    let policy = release::policy(txn.read(), agent.number, release.number)?;
    let mode = Rules::of(&policy).mode(it.signal(), it.phase());
    if mode == SignalMode::Off {
        return Err(stale(&release, "the signal is off"));
    }
    let is_canary = it.phase() == Stage::Canary;
    let to = if is_canary { &agent.live_bundle_id } else { &agent.standby_bundle_id };
    let refusal = match mode {
        SignalMode::Rollback => why_not(txn, &agent, &policy, it, to)?,
        SignalMode::Notify | SignalMode::Off | SignalMode::Unspecified => Some(String::new()),
    };
    let action = match &refusal {
        None => format!("rolled back to {to}"),
        Some(why) if why.is_empty() => "notified".to_owned(),
        Some(why) => format!("notified, not rolled back: {why}"),
    };
    let firing = record(txn, &agent, &mut release, it, (mode, action));
    let leaves = refusal.is_none();
    tell(txn, &agent, &release, (it, &firing), leaves);
    if leaves {
        route::leave(txn, agent, &release.bundle_id, v1::InFlight::Unspecified)?;
    }
    let firing = message(&release, firing);
    Ok(Answer::Firing(FiringResult { firing: Some(firing), already: false }))
}

/// Why there is no rollback onto a bundle by itself. `None`: nothing speaks against it.
fn why_not(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    policy: &v1::Policy,
    it: &FireSignal,
    to: &str,
) -> Result<Option<String>, Stop> {
    let min_slots = policy.environment.as_ref().map_or(1, v1::EnvironmentPolicy::min_slots);
    let target = bundle::load(txn, agent.number, to)?;
    // Where workers execute nothing there is nobody to wait for.
    if agent.external || min_slots == 0 || !target.had_worker {
        return Ok(None);
    }
    let Capacity { workers, free_slots, .. } = it.capacity.clone().unwrap_or_default();
    if workers == 0 {
        return Ok(Some(format!("{to} has no live worker")));
    }
    // The live bundle of a canary has nearly all of the traffic already, and its slots full of it.
    if it.phase() == Stage::Quarantine && free_slots < u64::from(min_slots) {
        return Ok(Some(format!("{to} has {free_slots} of {min_slots} free slots")));
    }
    Ok(None)
}

/// Keeps what was seen. The oldest firing makes room.
fn record(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &mut ReleaseRecord,
    it: &FireSignal,
    (mode, action): (SignalMode, String),
) -> FiringRecord {
    let firing = FiringRecord {
        signal: it.signal,
        phase: it.phase,
        bundle_id: release.bundle_id.clone(),
        fired_ms: txn.now,
        mode: mode.into(),
        action,
        summary: it.summary.clone(),
        evidence: it.evidence.clone(),
        revision: txn.revision,
        ..FiringRecord::default()
    };
    let index = release.firings;
    txn.put(row(agent.number, release.number, index), &firing);
    if let Some(oldest) = index.checked_sub(limits::FIRINGS_KEPT) {
        txn.delete(row(agent.number, release.number, oldest));
    }
    release.firings += 1;
    release.open_firings.push(OpenFiring { signal: it.signal, index, acked: false });
    release::save(txn, agent.number, release);
    txn.effect(Effect::AgentChanged { agent: agent.number });
    firing
}

fn tell(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &ReleaseRecord,
    (it, firing): (&FireSignal, &FiringRecord),
    leaves: bool,
) {
    let (name, bundle) = (&agent.agent_id, &release.bundle_id);
    let signal = word(it.signal());
    let show = format!("signal show {name}");
    let next = if leaves {
        [show, format!("drain status {name} {bundle}"), format!("release status {name}")]
    } else {
        let ack = format!("signal ack {name} {signal} --reason \"…\"");
        [format!("rollback {name} --from {bundle}"), show, ack]
    };
    let flag = namespace::flag(&agent.namespace);
    let mut fired = event::of_bundle("signal.fired", agent, bundle)
        .with("release", release::id(release.number))
        .with("signal", signal)
        .with("phase", release::word(it.phase()))
        .with("mode", event::word(firing.mode().as_str_name(), "SIGNAL_MODE_"))
        .with("summary", &it.summary)
        .with("action", &firing.action);
    for (number, command) in (1..).zip(next) {
        fired = fired.with(&format!("next_{number}"), format!("pinrail {command}{flag}"));
    }
    txn.event(fired);
}

/// A signal that fired is clean again.
pub(crate) fn clear(txn: &mut Txn<'_>, it: &ClearSignal) -> Result<Answer, Stop> {
    let agent = agent::load(txn, it.agent)?;
    let mut release = load_release(txn, &agent, it.release)?;
    if phase(&agent, &release).is_none() {
        return Err(stale(&release, "it is not watched any more"));
    }
    let Some(open) = open_firing(&release, it.signal()).copied() else {
        return Err(stale(&release, "the signal does not fire"));
    };
    close(txn, &agent, &mut release, &[open])?;
    release::save(txn, agent.number, &mut release);
    txn.event(
        event::of_bundle("signal.cleared", &agent, &release.bundle_id)
            .with("release", release::id(release.number))
            .with("signal", word(it.signal())),
    );
    txn.effect(Effect::AgentChanged { agent: agent.number });
    Ok(Answer::Done(Empty {}))
}

/// A phase is over: what fires in the next one is seen anew. The caller saves the release.
pub(crate) fn end_phase(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &mut ReleaseRecord,
) -> Result<(), Stop> {
    let open = release.open_firings.clone();
    close(txn, agent, release, &open)
}

fn close(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    release: &mut ReleaseRecord,
    which: &[OpenFiring],
) -> Result<(), Stop> {
    for open in which {
        let row = row(agent.number, release.number, open.index);
        if let Some(mut firing) = txn.get::<FiringRecord>(&row)? {
            firing.cleared_ms = txn.now;
            txn.put(row, &firing);
        }
    }
    release.open_firings.retain(|open| !which.contains(open));
    Ok(())
}

fn load_release(txn: &Txn<'_>, agent: &AgentRecord, number: u32) -> Result<ReleaseRecord, Stop> {
    release::find(txn.read(), agent.number, number)?.ok_or_else(|| {
        let message = format!("there is no release {}", release::id(number));
        reject(reason::RELEASE_NOT_FOUND, message)
    })
}

fn stale(release: &ReleaseRecord, why: &str) -> Stop {
    reject(reason::SIGNAL_STALE, format!("release {}: {why}", release::id(release.number)))
}

pub(super) fn open_firing(release: &ReleaseRecord, signal: SignalKind) -> Option<&OpenFiring> {
    release.open_firings.iter().find(|open| open.signal() == signal)
}

/// What the release waits for because it fires and nobody said that they know.
pub(crate) fn blocking(
    read: &dyn Read,
    agent: u32,
    release: &ReleaseRecord,
    now_ms: u64,
) -> Result<Option<SignalKind>, Fault> {
    for open in release.open_firings.iter().filter(|open| !open.acked) {
        if mute(read, agent, open.signal(), now_ms)?.is_none() {
            return Ok(Some(open.signal()));
        }
    }
    Ok(None)
}

/// The mute of a signal, while it lasts.
pub(super) fn mute(
    read: &dyn Read,
    agent: u32,
    signal: SignalKind,
    now_ms: u64,
) -> Result<Option<MuteRecord>, Fault> {
    let mute: Option<MuteRecord> = get(read, &mute_row(agent, signal))?;
    Ok(mute.filter(|mute| now_ms < mute.until_ms))
}

/// The signals of an agent that somebody silenced.
pub(crate) fn mutes(
    read: &dyn Read,
    agent: u32,
    now_ms: u64,
) -> Result<Vec<v1::SignalMute>, Fault> {
    let mut mutes = Vec::new();
    for signal in (1..).map_while(|number| SignalKind::try_from(number).ok()) {
        if let Some(mute) = mute(read, agent, signal, now_ms)? {
            mutes.push(v1::SignalMute {
                signal: signal.into(),
                until: timestamp(mute.until_ms),
                reason: mute.reason,
                actor: mute.actor,
            });
        }
    }
    Ok(mutes)
}

/// The firing of a signal that is open now.
pub(super) fn last_firing(
    read: &dyn Read,
    agent: &AgentRecord,
    release: &ReleaseRecord,
    signal: SignalKind,
) -> Result<Option<v1::Firing>, Fault> {
    let Some(open) = open_firing(release, signal) else { return Ok(None) };
    let firing: Option<FiringRecord> = get(read, &row(agent.number, release.number, open.index))?;
    Ok(firing.map(|firing| message(release, firing)))
}

/// The firings of a release that are remembered, the newest first.
pub(crate) fn firings(
    read: &dyn Read,
    agent: u32,
    release: &ReleaseRecord,
) -> Result<Vec<v1::Firing>, Fault> {
    let rows = Key::of(Kind::SignalFiring, agent).u32(release.number).range();
    let all = read.scan(&rows, Order::Descending, limits::FIRINGS_KEPT as usize)?;
    all.iter().map(|(key, value)| Ok(message(release, decode(key, value)?))).collect()
}

/// The API's view of a firing.
pub(super) fn message(release: &ReleaseRecord, it: FiringRecord) -> v1::Firing {
    v1::Firing {
        release_id: release::id(release.number),
        bundle_id: it.bundle_id,
        signal: it.signal,
        phase: it.phase,
        fired_at: timestamp(it.fired_ms),
        cleared_at: timestamp(it.cleared_ms),
        mode: it.mode,
        action: it.action,
        summary: it.summary,
        evidence: it.evidence,
        acked_at: timestamp(it.acked_ms),
        acked_by: it.acked_by,
        ack_reason: it.ack_reason,
        revision: it.revision,
    }
}

pub(super) fn row(agent: u32, release: u32, index: u32) -> RowKey {
    Key::of(Kind::SignalFiring, agent).u32(release).u32(index).build()
}

pub(super) fn mute_row(agent: u32, signal: SignalKind) -> RowKey {
    let number = u8::try_from(i32::from(signal)).unwrap_or(0);
    Key::of(Kind::SignalMute, agent).u8(number).build()
}

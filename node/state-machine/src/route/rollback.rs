//! The rollback: one command that returns to the bundle that was live before, and says what becomes of the runs
//! of the one that it leaves.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, BundleRecord, LayerRecord, Rollback, RollbackMark};
use pinrail_proto::{limits, reason, v1};

use crate::event::With as _;
use crate::key::Timer;
use crate::mutant::{Mutant, is_planted};
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, drill, event, memory, namespace, release};

use super::{drain, moved};

pub(crate) fn rollback(txn: &mut Txn<'_>, it: &Rollback) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    agent::expect_revision(txn, agent.revision)?;
    let was_turned = agent.drill_turned;
    drill::give_up(txn, &mut agent, "a rollback took its place")?;
    let unnamed = it.from_bundle_id.is_empty() || it.from_inferred;
    if unnamed && is_recent(txn, &agent) {
        return Err(ambiguous(txn, &agent)?);
    }
    // The newest bundle with traffic.
    let from_id = match it.from_bundle_id.as_str() {
        "" if release::is_canary(&agent) => agent.candidate_bundle_id.clone(),
        "" => agent.live_bundle_id.clone(),
        // Whoever read the route read it as the drill had turned it.
        _ if was_turned && it.from_inferred => agent.live_bundle_id.clone(),
        named => named.to_owned(),
    };
    leave(txn, agent, &from_id, it.in_flight())
}

/// Leaves a bundle by its name, whoever wants it: the candidate of a canary, or the live bundle.
pub(crate) fn leave(
    txn: &mut Txn<'_>,
    mut agent: AgentRecord,
    from_id: &str,
    asked: v1::InFlight,
) -> Result<Answer, Stop> {
    drill::give_up(txn, &mut agent, "a rollback took its place")?;
    if from_id.is_empty() {
        return Err(reject(reason::NO_LIVE_BUNDLE, "no bundle is live: there is nothing to leave"));
    }
    let from = bundle::load(txn, agent.number, from_id)?;
    if release::is_canary(&agent) && from_id == agent.candidate_bundle_id {
        let in_flight = in_flight(txn, &agent, asked)?;
        return leave_canary(txn, agent, from_id, in_flight);
    }
    if from_id != agent.live_bundle_id {
        return again(txn, &agent, from, asked);
    }
    if agent.standby_bundle_id.is_empty() {
        let message = format!("there is no bundle to return to from {from_id}");
        let gone = bundle::all(txn.read(), agent.number)?.into_iter().find(|b| b.recycled);
        if let Some(gone) = gone {
            return Err(reject(reason::STANDBY_RECYCLED, message)
                .with("recycled", &gone.bundle_id)
                .with("next_1", format!("pinrail switch {} {}", agent.agent_id, gone.bundle_id)));
        }
        return Err(reject(reason::NOTHING_TO_ROLL_BACK, message));
    }
    let in_flight = in_flight(txn, &agent, asked)?;
    go_back(txn, &mut agent, from, in_flight)
}

fn go_back(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    mut from: BundleRecord,
    in_flight: v1::InFlight,
) -> Result<Answer, Stop> {
    release::end_by_rollback(txn, agent)?;
    agent.last_rollback_ms = txn.now;
    let to = hand_back(txn, agent, &mut from)?;
    from.rejected = true;
    let answer = report(txn, agent, from, &to, in_flight)?;
    agent::save(txn, agent);
    Ok(Answer::Rollback(Box::new(answer)))
}

/// The standby is live again, on its own layer, and the drain of the bundle that is left begins. The caller saves the
/// agent and `from`.
pub(super) fn hand_back(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    from: &mut BundleRecord,
) -> Result<BundleRecord, Stop> {
    let mut to = bundle::load(txn, agent.number, &agent.standby_bundle_id)?;
    drain::clear(txn, agent.number, &mut to);
    to.revision = txn.revision;
    if is_planted(Mutant::RollbackKeepsMemory) {
        to.layer = from.layer;
    }
    bundle::save(txn, agent.number, &to);
    agent.live_bundle_id.clone_from(&to.bundle_id);
    agent.standby_bundle_id.clear();
    moved(txn, agent);
    // Sessions on it are over, however many there are.
    from.session_floor = agent.epoch;
    drain::begin(txn, agent, from);
    Ok(to)
}

/// Leaves a candidate that lost its share of the traffic to a gate that failed. The caller saves the agent.
pub(crate) fn leave_failed(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    from_id: &str,
) -> Result<(), Stop> {
    super::candidate::leave(txn, agent, from_id, true)?;
    agent.last_rollback_ms = txn.now;
    let in_flight = in_flight(txn, agent, v1::InFlight::Unspecified)?;
    let from = bundle::load(txn, agent.number, from_id)?;
    let to = bundle::load(txn, agent.number, &agent.live_bundle_id)?;
    report(txn, agent, from, &to, in_flight).map(drop)
}

/// Leaves the candidate of a canary: the live bundle stays what it is, and has all of the traffic again.
fn leave_canary(
    txn: &mut Txn<'_>,
    mut agent: AgentRecord,
    from_id: &str,
    in_flight: v1::InFlight,
) -> Result<Answer, Stop> {
    super::candidate::leave(txn, &mut agent, from_id, true)?;
    release::leave_canary(txn, &mut agent)?;
    agent.last_rollback_ms = txn.now;
    let from = bundle::load(txn, agent.number, from_id)?;
    let to = bundle::load(txn, agent.number, &agent.live_bundle_id)?;
    let answer = report(txn, &agent, from, &to, in_flight)?;
    agent::save(txn, &agent);
    Ok(Answer::Rollback(Box::new(answer)))
}

/// Marks what becomes of the open runs, and says what was left and what that cannot undo.
fn report(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    mut from: BundleRecord,
    to: &BundleRecord,
    in_flight: v1::InFlight,
) -> Result<v1::RollbackResponse, Stop> {
    mark(txn, agent, &mut from, to, in_flight);
    bundle::save(txn, agent.number, &from);
    let answer = v1::RollbackResponse {
        agent_id: agent.agent_id.clone(),
        from_bundle_id: from.bundle_id.clone(),
        to_bundle_id: to.bundle_id.clone(),
        epoch: agent.epoch,
        already: false,
        in_flight: in_flight.into(),
        drain: Some(drain::message(txn.read(), agent, &from)?),
        memory_keys_hidden: hidden_keys(txn, agent, &from)?,
        side_effects: side_effects(&from),
        revision: txn.revision,
        target_workers: 0,
        target_free_slots: 0,
    };
    from.last_rollback = Some(answer.clone());
    bundle::save(txn, agent.number, &from);
    txn.event(
        event::of_bundle("route.rolled_back", agent, &to.bundle_id)
            .with("from", &from.bundle_id)
            .with("epoch", agent.epoch)
            .with("in_flight", word(in_flight)),
    );
    Ok(answer)
}

/// The bundle has no traffic any more: the earlier answer, and perhaps a stricter policy for its runs. A repeat
/// that names no policy means the one that holds already.
fn again(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    mut from: BundleRecord,
    asked: v1::InFlight,
) -> Result<Answer, Stop> {
    let Some(mut answer) = from.last_rollback.clone() else {
        let message =
            format!("bundle {} has no traffic that could be taken from it", from.bundle_id);
        return Err(reject(reason::NOTHING_TO_ROLL_BACK, message)
            .with("live_bundle_id", &agent.live_bundle_id));
    };
    let asked = match asked {
        v1::InFlight::Unspecified => v1::InFlight::Unspecified,
        named @ (v1::InFlight::Keep | v1::InFlight::Cancel | v1::InFlight::Restart) => {
            in_flight(txn, agent, named)?
        }
    };
    if strictness(asked) > strictness(answer.in_flight()) {
        answer.set_in_flight(asked);
        from.last_rollback = Some(answer.clone());
        // Runs restart where new ones start: the route may have moved on since the rollback.
        let to = bundle::load(txn, agent.number, &agent.live_bundle_id)?;
        mark(txn, agent, &mut from, &to, asked);
        bundle::save(txn, agent.number, &from);
        txn.event(
            event::of_bundle("rollback.tightened", agent, &from.bundle_id)
                .with("in_flight", word(asked)),
        );
    }
    answer.already = true;
    Ok(Answer::Rollback(Box::new(answer)))
}

/// Every later command of the left bundle's runs obeys the mark first, so it is exact before any sweep has run.
/// `keep` leaves an earlier rollback's mark alone: that speaks of older runs only.
fn mark(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    from: &mut BundleRecord,
    to: &BundleRecord,
    in_flight: v1::InFlight,
) {
    if strictness(in_flight) == 0 {
        return;
    }
    from.mark = Some(RollbackMark {
        revision: txn.revision,
        in_flight: in_flight.into(),
        to_bundle_id: to.bundle_id.clone(),
        to_layer: to.layer,
        epoch: agent.epoch,
        sweeping: true,
    });
    txn.set_timer(agent.number, txn.now, Timer::RollbackSweep, from.bundle_id.as_bytes());
}

/// What becomes of the open runs: as asked, else the policy's. External runs cannot be restarted from here; they
/// are kept, and the answer says so.
fn in_flight(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    asked: v1::InFlight,
) -> Result<v1::InFlight, Stop> {
    let meant = match asked {
        v1::InFlight::Unspecified => {
            agent::policy(txn.read(), agent.number)?.rollback.unwrap_or_default().in_flight()
        }
        v1::InFlight::Keep | v1::InFlight::Cancel | v1::InFlight::Restart => asked,
    };
    Ok(match meant {
        v1::InFlight::Restart if agent.external => v1::InFlight::Keep,
        v1::InFlight::Unspecified => v1::InFlight::Keep,
        v1::InFlight::Keep | v1::InFlight::Cancel | v1::InFlight::Restart => meant,
    })
}

fn word(in_flight: v1::InFlight) -> String {
    event::word(in_flight.as_str_name(), "IN_FLIGHT_")
}

fn strictness(in_flight: v1::InFlight) -> u8 {
    match in_flight {
        v1::InFlight::Unspecified | v1::InFlight::Keep => 0,
        v1::InFlight::Restart => 1,
        v1::InFlight::Cancel => 2,
    }
}

/// Whether whoever types a rollback may mean what was done already: a rollback, or the abort of a release.
fn is_recent(txn: &Txn<'_>, agent: &AgentRecord) -> bool {
    let has_way_back = release::is_canary(agent) || !agent.standby_bundle_id.is_empty();
    was_recent(txn, agent.last_rollback_ms) || has_way_back && was_recent(txn, agent.last_abort_ms)
}

fn was_recent(txn: &Txn<'_>, at_ms: u64) -> bool {
    at_ms != 0 && txn.now < at_ms + limits::ROLLBACK_AMBIGUOUS_MS
}

/// What may be meant, as commands: the earlier rollback once more, or one from the candidate, or from the live bundle.
fn ambiguous(txn: &Txn<'_>, agent: &AgentRecord) -> Result<Stop, Stop> {
    let left = bundle::all(txn.read(), agent.number)?
        .into_iter()
        .filter_map(|b| b.last_rollback.map(|answer| (answer.revision, b.bundle_id)))
        .max()
        .filter(|_| was_recent(txn, agent.last_rollback_ms))
        .map_or_else(String::new, |(_, bundle_id)| bundle_id);
    let what = match was_recent(txn, agent.last_rollback_ms) {
        true => "the agent was rolled back",
        false => "a release of the agent was aborted",
    };
    let message = format!("{what} within the last 15 minutes; name the bundle to leave");
    let namespace = namespace::flag(&agent.namespace);
    let command =
        |bundle: &str| format!("pinrail rollback {} --from {bundle}{namespace}", agent.agent_id);
    // Empty when the bundle that was left has been made live again by force: then there is but one choice.
    let candidate = match release::is_canary(agent) {
        true => agent.candidate_bundle_id.clone(),
        false => String::new(),
    };
    let choices = [left, candidate, agent.live_bundle_id.clone()];
    let mut stop =
        reject(reason::ROLLBACK_AMBIGUOUS, message).with("live_bundle_id", &agent.live_bundle_id);
    for (number, bundle) in (1..).zip(choices.iter().filter(|bundle| !bundle.is_empty())) {
        stop = stop.with(&format!("next_{number}"), command(bundle));
    }
    Ok(stop)
}

fn hidden_keys(txn: &Txn<'_>, agent: &AgentRecord, from: &BundleRecord) -> Result<u64, Stop> {
    let layer: Option<LayerRecord> = memory::layer(txn.read(), agent.number, from.layer)?;
    Ok(layer.map_or(0, |layer| layer.keys.min(limits::HIDDEN_KEYS)))
}

fn side_effects(from: &BundleRecord) -> Vec<v1::SideEffect> {
    let effect = |e: &pinrail_proto::log::EffectCount| v1::SideEffect {
        tool: e.tool.clone(),
        class: e.class,
        calls: e.calls,
    };
    from.effects.iter().map(effect).collect()
}

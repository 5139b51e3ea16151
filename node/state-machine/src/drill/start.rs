//! The start of a drill.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, BundleRecord, Capacity, DrillRecord, StartDrill};
use pinrail_proto::time::millis;
use pinrail_proto::v1::{self, DrillMode, DrillPart, DrillState, InFlight, Stage};
use pinrail_proto::{limits, reason};

use crate::effect::Effect;
use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, event, memory, release};

use super::{answer, id, route, row, save, stale};

pub(crate) fn start(txn: &mut Txn<'_>, it: &StartDrill) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    agent::expect_revision(txn, agent.revision)?;
    if agent.active_drill != 0 {
        return Err(is_active(&agent));
    }
    if it.scheduled && (agent.drill_due_ms == 0 || txn.now < agent.drill_due_ms) {
        return Err(stale("no drill is due"));
    }
    if agent.live_bundle_id.is_empty() {
        let message = format!("agent {} has no live bundle", agent.agent_id);
        return Err(reject(reason::NO_LIVE_BUNDLE, message));
    }
    let policy = agent::policy(txn.read(), agent.number)?;
    let asked = policy.drill.clone().unwrap_or_default();
    let mode = match (it.mode(), asked.mode()) {
        (DrillMode::Unspecified, DrillMode::Live) => DrillMode::Live,
        (DrillMode::Unspecified, DrillMode::Unspecified | DrillMode::Route) => DrillMode::Route,
        (named, _) => named,
    };
    let mut drill = DrillRecord {
        number: agent.next_drill + 1,
        mode: mode.into(),
        state: DrillState::Running.into(),
        from_bundle_id: agent.live_bundle_id.clone(),
        to_bundle_id: agent.live_bundle_id.clone(),
        started_ms: txn.now,
        limit_ms: asked.limit.as_ref().and_then(millis).unwrap_or(0),
        part: DrillPart::Prepare.into(),
        part_ms: txn.now,
        scheduled: it.scheduled,
        actor: txn.header.actor.clone(),
        reason: txn.header.reason.clone(),
        in_flight: policy.rollback.as_ref().map_or(0, |rollback| rollback.in_flight),
        ..DrillRecord::default()
    };
    if mode == DrillMode::Live {
        on_live_route(txn, &agent, &policy, it.capacity.as_ref(), &mut drill)?;
    } else {
        drill.route = route::make(txn, &agent, policy)?;
    }
    make_room(txn, &agent, drill.number);
    agent.next_drill = drill.number;
    agent.active_drill = drill.number;
    agent.drill_due_ms = 0;
    save(txn, agent.number, &mut drill);
    agent::save(txn, &agent);
    let mode = event::word(mode.as_str_name(), "DRILL_MODE_");
    txn.event(
        event::of_bundle("drill.started", &agent, &drill.from_bundle_id)
            .with("drill", id(drill.number))
            .with("mode", mode)
            .with("to", &drill.to_bundle_id),
    );
    txn.effect(Effect::AgentChanged { agent: agent.number });
    Ok(answer(txn, &agent, &drill))
}

pub(crate) fn is_active(agent: &AgentRecord) -> Stop {
    let message = format!("a drill of agent {} is under way", agent.agent_id);
    reject(reason::DRILL_ACTIVE, message)
        .with("drill", id(agent.active_drill))
        .with("next_1", format!("pinrail drill show {}", agent.agent_id))
        .with("next_2", format!("pinrail drill abort {}", agent.agent_id))
}

/// The real pair is what is practised on: it must be in quarantine, alone, and the standby able to work.
fn on_live_route(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    policy: &v1::Policy,
    capacity: Option<&Capacity>,
    drill: &mut DrillRecord,
) -> Result<(), Stop> {
    if agent.active_release != 0 {
        let message = "a drill on the live route stands in no release's way";
        return Err(reject(reason::RELEASE_ACTIVE, message)
            .with("release", release::id(agent.active_release)));
    }
    let pair = release::find(txn.read(), agent.number, agent.quarantine_release)?;
    if pair.is_none_or(|pair| pair.stage() != Stage::Quarantine) {
        let message = format!("agent {} has nothing in quarantine", agent.agent_id);
        return Err(reject(reason::RELEASE_NOT_ACTIVE, message)
            .with("next_1", format!("pinrail drill {}", agent.agent_id)));
    }
    let from = bundle::load(txn, agent.number, &agent.live_bundle_id)?;
    let to = bundle::load(txn, agent.number, &agent.standby_bundle_id)?;
    can_work(agent, policy, &to, capacity)?;
    drill.to_bundle_id.clone_from(&to.bundle_id);
    // Nobody's run ends for an exercise.
    drill.set_in_flight(InFlight::Keep);
    drill.layer = to.layer;
    drill.open_runs = bundle::open_pins(&from);
    let layer = |number| memory::layer(txn.read(), agent.number, number);
    drill.memory_keys_hidden = layer(from.layer)?.map_or(0, |it| it.keys.min(limits::HIDDEN_KEYS));
    drill.late_writes = layer(to.layer)?.map_or(0, |it| it.late_writes);
    Ok(())
}

/// Never hands users to a standby without workers.
fn can_work(
    agent: &AgentRecord,
    policy: &v1::Policy,
    to: &BundleRecord,
    capacity: Option<&Capacity>,
) -> Result<(), Stop> {
    let min_slots = policy.environment.as_ref().map_or(1, v1::EnvironmentPolicy::min_slots);
    if agent.external || min_slots == 0 || !to.had_worker {
        return Ok(());
    }
    let (workers, free) = capacity.map_or((0, 0), |it| (it.workers, it.free_slots));
    if workers > 0 && free >= u64::from(min_slots) {
        return Ok(());
    }
    let id = &to.bundle_id;
    let message = format!("the standby {id} has {workers} live workers, {free} free slots");
    Err(reject(reason::NO_WORKERS, message).with("min_slots", min_slots))
}

/// Forgets the drill that is [`limits::DRILLS_KEPT`] before the newest.
fn make_room(txn: &mut Txn<'_>, agent: &AgentRecord, newest: u32) {
    if let Some(oldest) = newest.checked_sub(limits::DRILLS_KEPT) {
        txn.delete(row(agent.number, oldest));
    }
}

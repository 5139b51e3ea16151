//! The two routes that a drill can be on: one of its own, which is made and removed with it, and the live one, which is
//! turned to the standby and back.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, AgentRef, CancelRun, TurnRoute};
use pinrail_proto::v1::{self, DrillMode, DrillPart, StageMode};
use pinrail_proto::{id, reason};

use crate::effect::Effect;
use crate::key::{Key, Kind};
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, namespace, route as routes, run};

use super::{answer, present, stale};

/// The bundles of a drill's own route: both are what is live.
pub const LIVE: &str = "live";
pub const STANDBY: &str = "standby";

/// Makes a route of its own: an agent with the policy of the real one and two clones of its live bundle. Its number.
pub(super) fn make(txn: &mut Txn<'_>, of: &AgentRecord, policy: v1::Policy) -> Result<u32, Stop> {
    let name = id::drill_route(&of.agent_id);
    let mut route = agent::insert(txn, &of.namespace, name, own(policy));
    route.drill_of = of.number;
    let live = bundle::manifest(txn.read(), of.number, &of.live_bundle_id)?;
    let manifest = live.manifest.unwrap_or_default();
    for clone in [STANDBY, LIVE] {
        bundle::insert(txn, &mut route, clone, manifest.clone())?;
    }
    agent::save(txn, &route);
    Ok(route.number)
}

/// What counts on a drill's own route: how runs, rollback and memory are. Nothing is judged there, and no worker comes.
fn own(policy: v1::Policy) -> v1::Policy {
    let off = StageMode::Off.into();
    v1::Policy {
        runs: policy
            .runs
            .map(|runs| v1::RunPolicy { execution: v1::Execution::Workers.into(), ..runs }),
        gates: Some(v1::GatesPolicy {
            prepare: Some(v1::PrepareGate { mode: off, ..v1::PrepareGate::default() }),
            smoke: Some(v1::SmokeGate { mode: off, ..v1::SmokeGate::default() }),
            evals: Some(v1::EvalsGate { mode: off, ..v1::EvalsGate::default() }),
            shadow: Some(v1::ShadowGate { mode: off, ..v1::ShadowGate::default() }),
            canary: Some(v1::CanaryGate { mode: off, ..v1::CanaryGate::default() }),
        }),
        drill: None,
        hooks: Vec::new(),
        ..policy
    }
}

/// Ends what is open on a drill's own route and removes every row of it. The drill made them all, so they are few.
pub(super) fn remove(txn: &mut Txn<'_>, number: u32) -> Result<(), Stop> {
    let route = agent::load(txn, number)?;
    let name = AgentRef { namespace: route.namespace.clone(), agent_id: route.agent_id.clone() };
    for (key, value) in txn.scan(&Key::of(Kind::Run, number).range(), usize::MAX)? {
        let (open, _) = run::split(&key, &value)?;
        if !run::is_over(open.state()) {
            let revision = std::mem::take(&mut txn.header.expected_revision);
            run::cancel(txn, &CancelRun { agent: Some(name.clone()), run_id: open.run_id })?;
            txn.header.expected_revision = revision;
        }
    }
    // What its runs took was given back as they ended.
    let route = agent::load(txn, number)?;
    namespace::route_removed(txn, &route)?;
    agent::erase(txn, &route)?;
    txn.effect(Effect::AgentChanged { agent: number });
    Ok(())
}

/// The leader turns the live route, or turns it back.
pub(crate) fn turn_route(txn: &mut Txn<'_>, it: &TurnRoute) -> Result<Answer, Stop> {
    let mut agent = agent::load(txn, it.agent)?;
    let drill = present(txn, &agent, it.drill)?;
    if drill.mode() != DrillMode::Live {
        return Err(reject(reason::INVALID_REQUEST, "the drill is on a route of its own"));
    }
    let part = if it.back { DrillPart::Return } else { DrillPart::Rollback };
    if drill.part() != part {
        return Err(stale("another part of the drill is under way"));
    }
    if agent.drill_turned == it.back {
        turn(txn, &mut agent)?;
        agent::save(txn, &agent);
    }
    Ok(answer(txn, &agent, &drill))
}

/// Live bundle and standby change places. The caller saves the agent.
pub(super) fn turn(txn: &mut Txn<'_>, agent: &mut AgentRecord) -> Result<(), Stop> {
    routes::turn(txn, agent)?;
    agent.drill_turned = !agent.drill_turned;
    Ok(())
}

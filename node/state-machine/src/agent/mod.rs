//! Agents: creation, policy, pause, and the row that every command of an agent begins with.

mod pause;
pub(crate) mod policy;

use std::sync::Arc;

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentRecord, AgentRef, AgentResult, CreateAgent, DeleteAgent, Empty, PolicyRecord, UpdateAgent,
};
use pinrail_proto::time::millis;
use pinrail_proto::{id, reason, v1};
use prost::Message as _;

use crate::drill;
use crate::effect::Effect;
use crate::eval;
use crate::event;
use crate::hook;
use crate::key::{Key, Kind, RowKey};
use crate::namespace;
use crate::outcome::{Stop, reject};
use crate::shared::Shared;
use crate::signal;
use crate::store::{Fault, Read};
use crate::txn::{Txn, shared};

pub(crate) use pause::{pause, resume};

pub(crate) fn create(txn: &mut Txn<'_>, it: &CreateAgent) -> Result<Answer, Stop> {
    let name = it.agent.clone().unwrap_or_default();
    let namespace_id = namespace::or_default(&name.namespace).to_owned();
    id::check_name("agent", &name.agent_id)
        .map_err(|e| reject(reason::INVALID_ID, e.to_string()))?;
    namespace::load(txn, &namespace_id)?;
    let policy = policy::complete(it.policy.clone().unwrap_or_default())?;
    if let Some(number) = number(txn.read(), &namespace_id, &name.agent_id)? {
        return create_again(txn, number, &policy);
    }
    namespace::agent_created(txn, &namespace_id)?;
    let mut agent = insert(txn, &namespace_id, name.agent_id, policy.clone());
    hook::follow_policy(txn, &mut agent, &policy)?;
    txn.mark(hash_key(&agent), &[]);
    save(txn, &agent);
    txn.event(event::of_agent("agent.created", &agent));
    txn.effect(Effect::AgentChanged { agent: agent.number });
    answer(txn, &agent, false)
}

/// A new agent with its number, its name and its policy. The caller saves the record.
pub(crate) fn insert(
    txn: &mut Txn<'_>,
    namespace_id: &str,
    agent_id: String,
    policy: v1::Policy,
) -> AgentRecord {
    let number = txn.cluster.next_agent;
    txn.cluster.next_agent += 1;
    let mut agent = AgentRecord {
        number,
        namespace: namespace_id.to_owned(),
        agent_id,
        created_ms: txn.now,
        revision: txn.revision,
        policy_revision: txn.revision,
        next_layer: 1,
        ..AgentRecord::default()
    };
    txn.mark(name_key(&agent.namespace, &agent.agent_id), &agent.number.to_be_bytes());
    save_policy(txn, &mut agent, policy);
    agent
}

fn create_again(txn: &Txn<'_>, number: u32, policy: &v1::Policy) -> Result<Answer, Stop> {
    let agent = load(txn, number)?;
    if self::policy(txn.read(), number)? != *policy {
        let message = format!("agent {} exists with another policy", agent.agent_id);
        return Err(reject(reason::AGENT_EXISTS, message));
    }
    answer(txn, &agent, true)
}

pub(crate) fn update(txn: &mut Txn<'_>, it: &UpdateAgent) -> Result<Answer, Stop> {
    let mut agent = load_by_ref(txn, it.agent.as_ref())?;
    expect_revision(txn, agent.revision)?;
    let new = policy::complete(it.policy.clone().unwrap_or_default())?;
    if policy(txn.read(), agent.number)? == new {
        return answer(txn, &agent, true);
    }
    if execution(&new) != agent.external && agent.open_runs > 0 {
        let message = "runs.execution can change only while the agent has no open runs";
        return Err(reject(reason::AGENT_HAS_OPEN_RUNS, message).with("open_runs", agent.open_runs));
    }
    hook::follow_policy(txn, &mut agent, &new)?;
    save_policy(txn, &mut agent, new);
    agent.policy_revision = txn.revision;
    agent.revision = txn.revision;
    save(txn, &agent);
    txn.event(event::of_agent("agent.updated", &agent));
    txn.effect(Effect::AgentChanged { agent: agent.number });
    answer(txn, &agent, false)
}

/// Deletes an agent that holds nothing any more: no run, finished or not, and no memory. So one command deletes
/// a bounded number of rows.
pub(crate) fn delete(txn: &mut Txn<'_>, it: &DeleteAgent) -> Result<Answer, Stop> {
    let agent = load_by_ref(txn, it.agent.as_ref())?;
    expect_revision(txn, agent.revision)?;
    if agent.active_drill != 0 {
        return Err(drill::is_active(&agent));
    }
    if agent.open_runs > 0 {
        let message = format!("agent {} has {} open runs", agent.agent_id, agent.open_runs);
        return Err(reject(reason::AGENT_HAS_OPEN_RUNS, message).with("open_runs", agent.open_runs));
    }
    let kept = [
        (Kind::Run, "finished runs"),
        (Kind::Memory, "memory"),
        (Kind::MemoryChange, "memory"),
        (Kind::Scratch, "memory"),
    ];
    for (kind, what) in kept {
        if !txn.scan(&Key::of(kind, agent.number).range(), 1)?.is_empty() {
            let message = format!("agent {} still keeps {what}", agent.agent_id);
            return Err(reject(reason::AGENT_HAS_OPEN_RUNS, message).with("keeps", what));
        }
    }
    erase(txn, &agent)?;
    txn.delete(hash_key(&agent));
    namespace::agent_deleted(txn, &agent)?;
    txn.event(event::of_agent("agent.deleted", &agent));
    txn.effect(Effect::AgentChanged { agent: agent.number });
    Ok(Answer::Done(Empty {}))
}

/// Deletes every row of an agent that keeps no run and no memory, or of a drill's own route, which has a handful of each: at
/// most a few rows a bundle, of which there are at most 100, and its parts.
pub(crate) fn erase(txn: &mut Txn<'_>, agent: &AgentRecord) -> Result<(), Stop> {
    let kinds = [
        Kind::Agent,
        Kind::Policy,
        Kind::Bundle,
        Kind::BundleManifest,
        Kind::BundleSteps,
        Kind::PartSeen,
        Kind::Deadline,
        Kind::Front,
        Kind::Layer,
        Kind::LayerKey,
        Kind::Cost,
        Kind::Session,
        Kind::Release,
        Kind::ReleasePolicy,
        Kind::ReleaseGate,
        Kind::ReleaseMove,
        Kind::EvalSet,
        Kind::EvalReport,
        Kind::EvalBody,
        Kind::TaskMix,
        Kind::SignalSlice,
        Kind::SignalBaseline,
        Kind::SignalFiring,
        Kind::SignalMute,
        Kind::Hook,
        Kind::Drift,
        Kind::BundleModels,
        Kind::Drill,
        Kind::ReleaseSum,
        Kind::Run,
        Kind::RunInput,
        Kind::RunOutput,
        Kind::Step,
        Kind::StepInput,
        Kind::StepOutput,
        Kind::Checkpoint,
        Kind::OpenPin,
        Kind::RunByState,
        Kind::RunByStart,
        Kind::RunByKind,
        Kind::RunByLabel,
        Kind::Ready,
        Kind::Memory,
        Kind::MemoryChange,
    ];
    for kind in kinds {
        for (key, _) in txn.scan(&Key::of(kind, agent.number).range(), usize::MAX)? {
            txn.delete(RowKey::from_slice(&key));
        }
    }
    txn.delete(name_key(&agent.namespace, &agent.agent_id));
    Ok(())
}

/// Finds an agent by name.
///
/// # Errors
/// `AGENT_NOT_FOUND` suggests the nearest name.
pub(crate) fn load_by_ref(txn: &Txn<'_>, agent: Option<&AgentRef>) -> Result<AgentRecord, Stop> {
    lend_by_ref(txn, agent).map(Shared::into_inner)
}

/// As [`lend`], by name.
pub(crate) fn lend_by_ref(
    txn: &Txn<'_>,
    agent: Option<&AgentRef>,
) -> Result<Shared<AgentRecord>, Stop> {
    let (namespace, agent) =
        agent.map_or(("", ""), |a| (a.namespace.as_str(), a.agent_id.as_str()));
    lend_by_name(txn.read(), namespace, agent)
}

pub(crate) fn load(txn: &Txn<'_>, number: u32) -> Result<AgentRecord, Stop> {
    lend(txn, number).map(Shared::into_inner)
}

/// The record of an agent, copied only if it is changed.
pub(crate) fn lend(txn: &Txn<'_>, number: u32) -> Result<Shared<AgentRecord>, Stop> {
    lend_by_number(txn.read(), number)?.ok_or_else(|| {
        reject(reason::AGENT_NOT_FOUND, format!("there is no agent with the number {number}"))
    })
}

pub(crate) fn save(txn: &mut Txn<'_>, agent: &AgentRecord) {
    txn.put_changed(row(agent.number), agent);
}

/// Saves a record that was lent.
pub(crate) fn give_back(txn: &mut Txn<'_>, agent: &Shared<AgentRecord>) {
    txn.put_back(row(agent.number), agent);
}

/// Steps of an agent that workers hold at this moment of a command.
pub(crate) fn running_steps(txn: &Txn<'_>, agent: &AgentRecord) -> u64 {
    agent.running_steps.saturating_add_signed(txn.leases(agent.number))
}

/// Has the records of agents say how many of their steps are held, behind a command that gave or ended leases.
pub(crate) fn settle_leases(txn: &mut Txn<'_>) -> Result<(), Stop> {
    for (number, leases) in txn.take_leases() {
        if leases != 0 {
            let mut agent = lend(txn, number)?;
            agent.running_steps = agent.running_steps.saturating_add_signed(leases);
            give_back(txn, &agent);
        }
    }
    Ok(())
}

fn row(number: u32) -> RowKey {
    Key::of(Kind::Agent, number).build()
}

/// Finds an agent by name in any moment of the state.
pub(crate) fn find(
    read: &dyn Read,
    namespace_id: &str,
    agent_id: &str,
) -> Result<AgentRecord, Stop> {
    lend_by_name(read, namespace_id, agent_id).map(Shared::into_inner)
}

fn lend_by_name(
    read: &dyn Read,
    namespace_id: &str,
    agent_id: &str,
) -> Result<Shared<AgentRecord>, Stop> {
    let namespace_id = namespace::or_default(namespace_id);
    if let Some(number) = number(read, namespace_id, agent_id)? {
        return lend_by_number(read, number)?
            .ok_or_else(|| Fault(format!("agent {number} has a name and no record")).into());
    }
    let names = names(read, namespace_id)?;
    let message = format!("there is no agent {agent_id:?} in namespace {namespace_id}");
    let stop = reject(reason::AGENT_NOT_FOUND, message);
    Err(match crate::nearest::nearest(agent_id, names.iter().map(String::as_str)) {
        Some(near) => stop.with("suggestion", near),
        None => stop,
    })
}

pub(crate) fn number(read: &dyn Read, namespace: &str, agent: &str) -> Result<Option<u32>, Fault> {
    // Reads come with any text; a key is built of names only.
    if namespace.contains('\0') || agent.contains('\0') {
        return Ok(None);
    }
    let key = name_key(namespace, agent);
    if let Some(number) = read.kept(&key).and_then(|record| record.downcast_ref().copied()) {
        return Ok(Some(number));
    }
    let Some(row) = read.get(&key)? else { return Ok(None) };
    let number: [u8; 4] = row
        .as_ref()
        .try_into()
        .map_err(|_| Fault(format!("name of agent {agent} has no number")))?;
    let number = u32::from_be_bytes(number);
    read.keep(&key, Arc::new(number));
    Ok(Some(number))
}

pub(crate) fn by_number(read: &dyn Read, number: u32) -> Result<Option<AgentRecord>, Fault> {
    Ok(lend_by_number(read, number)?.map(Shared::into_inner))
}

pub(crate) fn lend_by_number(
    read: &dyn Read,
    number: u32,
) -> Result<Option<Shared<AgentRecord>>, Fault> {
    shared(read, &row(number))
}

/// The complete policy of an agent.
pub(crate) fn policy(read: &dyn Read, number: u32) -> Result<v1::Policy, Fault> {
    of_policy(read, number, v1::Policy::clone)
}

/// A part of an agent's policy.
pub(crate) fn of_policy<T>(
    read: &dyn Read,
    number: u32,
    part: impl FnOnce(&v1::Policy) -> T,
) -> Result<T, Fault> {
    let row = shared::<PolicyRecord>(read, &Key::of(Kind::Policy, number).build())?;
    let policy = row.as_ref().and_then(|row| row.policy.as_ref());
    policy.map(part).ok_or_else(|| Fault(format!("agent {number} has no policy")))
}

/// The compare-and-set of administrative writes.
pub(crate) fn expect_revision(txn: &Txn<'_>, current: u64) -> Result<(), Stop> {
    let expected = txn.header.expected_revision;
    if expected == 0 || expected == current {
        return Ok(());
    }
    let message = format!("it was last changed at revision {current}, not {expected}");
    Err(reject(reason::REVISION_MISMATCH, message)
        .with("current", current)
        .with("expected", expected))
}

/// The API's view of an agent.
pub(crate) fn message(read: &dyn Read, agent: &AgentRecord) -> Result<v1::Agent, Fault> {
    Ok(v1::Agent {
        namespace: agent.namespace.clone(),
        agent_id: agent.agent_id.clone(),
        policy: Some(policy(read, agent.number)?),
        policy_revision: agent.policy_revision,
        route: Some(v1::Route {
            live_bundle_id: agent.live_bundle_id.clone(),
            standby_bundle_id: agent.standby_bundle_id.clone(),
            epoch: agent.epoch,
            changed_at: pinrail_proto::time::timestamp(agent.route_changed_ms),
            revision: agent.route_revision,
            canary_bundle_id: match crate::release::is_canary(agent) {
                true => agent.candidate_bundle_id.clone(),
                false => String::new(),
            },
            canary_bp: agent.canary_bp,
        }),
        pause: Some(pause::message(read, agent)?),
        open_runs: agent.open_runs,
        created_at: pinrail_proto::time::timestamp(agent.created_ms),
        revision: agent.revision,
    })
}

pub(super) fn answer(txn: &Txn<'_>, agent: &AgentRecord, already: bool) -> Result<Answer, Stop> {
    Ok(Answer::Agent(Box::new(AgentResult { agent: Some(message(txn.read(), agent)?), already })))
}

fn save_policy(txn: &mut Txn<'_>, agent: &mut AgentRecord, policy: v1::Policy) {
    let ms = |d: Option<&prost_types::Duration>| d.and_then(millis).unwrap_or(0);
    if let Some(runs) = &policy.runs {
        agent.max_age_ms = ms(runs.max_age.as_ref());
        agent.retention_ms = ms(runs.retention.as_ref());
        agent.keep_alive_ms = ms(runs.keep_alive.as_ref());
        agent.max_open = runs.max_open.unwrap_or(0);
        agent.repinnable = runs.repinnable();
        agent.restart_step = runs.restart_step();
    }
    agent.external = execution(&policy);
    if let Some(switch) = &policy.switch {
        agent.drain_cap_ms = ms(switch.drain_cap.as_ref());
        agent.grace_ms = ms(switch.grace.as_ref());
        agent.on_drain = switch.on_drain;
    }
    if let Some(sessions) = &policy.sessions {
        agent.session_max_age_ms = ms(sessions.max_age.as_ref());
        agent.session_cutoff_ms = ms(sessions.cutoff.as_ref());
        agent.session_overlap = sessions.overlap;
    }
    if let Some(memory) = &policy.memory {
        agent.memory_keep_ms = ms(memory.versions.as_ref());
    }
    agent.coverage_label = eval::coverage_label(&policy);
    agent.drill_every_ms = policy.drill.as_ref().map_or(0, |drill| ms(drill.every.as_ref()));
    // The leader draws it anew by what the policy says now.
    agent.drill_due_ms = 0;
    agent.min_slots = policy.environment.as_ref().and_then(|it| it.min_slots).unwrap_or(1);
    if let Some(steps) = &policy.steps {
        agent.max_running = steps.max_running();
        agent.max_running_per_key = steps.max_running_per_key();
        agent.max_per_second = steps.max_per_second();
    }
    signal::Windows::of_policy(&policy).keep(agent);
    let row = PolicyRecord { policy: Some(policy), revision: txn.revision };
    debug_assert!(row.encoded_len() < pinrail_proto::limits::COMMAND_BYTES);
    txn.put(Key::of(Kind::Policy, agent.number).build(), &row);
}

fn execution(policy: &v1::Policy) -> bool {
    policy.runs.as_ref().is_some_and(|runs| runs.execution() == v1::Execution::External)
}

fn names(read: &dyn Read, namespace: &str) -> Result<Vec<String>, Fault> {
    /// Looking for the nearest name is a courtesy; it need not see them all.
    const LOOKED_AT: usize = 1_000;
    if namespace.contains('\0') {
        return Ok(Vec::new());
    }
    let prefix = Key::new(Kind::AgentName).text(namespace).build();
    let range = crate::store::KeyRange::prefix(&prefix);
    let rows = read.scan(&range, crate::store::Order::Ascending, LOOKED_AT)?;
    let name = |key: &[u8]| String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
    let names = rows.iter().map(|(key, _)| name(key));
    Ok(names.filter(|name| !id::is_drill_route(name)).collect())
}

fn name_key(namespace: &str, agent: &str) -> RowKey {
    Key::new(Kind::AgentName).text(namespace).last(agent)
}

fn hash_key(agent: &AgentRecord) -> RowKey {
    let mut key = Key::new(Kind::AgentHash).build();
    key.extend_from_slice(id::agent_hash(&agent.namespace, &agent.agent_id).as_bytes());
    key.extend_from_slice(&agent.number.to_be_bytes());
    key
}

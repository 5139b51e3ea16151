//! What can be said of a thing in a few words, before and after somebody did something to it.

use std::collections::BTreeMap;

use pinrail_proto::id;
use pinrail_proto::log::{AgentRecord, ClusterRecord, NamespaceRecord, SessionRecord};
use pinrail_proto::v1::{HoldCause, Policy};
use sha2::{Digest as _, Sha256};

use crate::key::{Key, Kind};
use crate::memory::View;
use crate::store::{Fault, Read};
use crate::txn::get;
use crate::{agent, bundle, event, namespace, release, run};

use super::action::Action;

/// By name. What is unset or empty is left out.
pub(super) type Facts = BTreeMap<String, String>;

/// Facts about everything that an action names.
pub(super) fn of(
    read: &dyn Read,
    cluster: &ClusterRecord,
    action: &Action,
) -> Result<Facts, Fault> {
    let mut facts = Facts::new();
    if action.agent_id.is_empty() {
        of_namespace(read, cluster, action, &mut facts)?;
        return Ok(facts);
    }
    let Some(agent) = find(read, action)? else { return Ok(facts) };
    if !action.memory_key.is_empty() {
        // It changes nothing else, and is by far the most frequent.
        of_memory(read, cluster, &agent, action, &mut facts)?;
        return Ok(facts);
    }
    say(&mut facts, "live", &agent.live_bundle_id);
    say(&mut facts, "standby", &agent.standby_bundle_id);
    say(&mut facts, "epoch", agent.epoch);
    say(&mut facts, "candidate", &agent.candidate_bundle_id);
    say(&mut facts, "canary_bp", agent.canary_bp);
    say(&mut facts, "policy_revision", agent.policy_revision);
    say(&mut facts, "paused", paused(agent.paused, agent.reject_starts));
    of_release(read, &agent, &mut facts)?;
    of_bundle(read, &agent, action, &mut facts)?;
    of_run(read, &agent, action, &mut facts)?;
    if !action.session.is_empty() {
        let key = Key::of(Kind::Session, agent.number).last(&action.session);
        let session: Option<SessionRecord> = get(read, &key)?;
        say(&mut facts, "session_bundle", session.unwrap_or_default().bundle_id);
    }
    Ok(facts)
}

/// Names what an action means without saying so: the agent that a number stands for, the live bundle.
pub(super) fn name_it(read: &dyn Read, action: &mut Action) -> Result<(), Fault> {
    if action.number != 0
        && let Some(agent) = agent::by_number(read, action.number)?
    {
        (action.namespace, action.agent_id) = (agent.namespace, agent.agent_id);
    }
    let means_live = action.name == "rollback" || !action.memory_key.is_empty();
    if action.bundle_id.is_empty() && means_live {
        action.bundle_id = find(read, action)?.unwrap_or_default().live_bundle_id;
    }
    Ok(())
}

/// The policy of the agent, for actions that are about it.
pub(super) fn policy(read: &dyn Read, action: &Action) -> Result<Option<Policy>, Fault> {
    if !action.of_policy {
        return Ok(None);
    }
    find(read, action)?.map(|agent| agent::policy(read, agent.number)).transpose()
}

fn find(read: &dyn Read, action: &Action) -> Result<Option<AgentRecord>, Fault> {
    let namespace = namespace::or_default(&action.namespace);
    if namespace.contains('\0') {
        return Ok(None);
    }
    match agent::number(read, namespace, &action.agent_id)? {
        Some(number) => agent::by_number(read, number),
        None => Ok(None),
    }
}

fn of_namespace(
    read: &dyn Read,
    cluster: &ClusterRecord,
    action: &Action,
    facts: &mut Facts,
) -> Result<(), Fault> {
    if action.namespace.is_empty() {
        say(facts, "feature_level", cluster.feature_level);
        return Ok(());
    }
    let key = Key::new(Kind::Namespace).last(&action.namespace);
    if get::<NamespaceRecord>(read, &key)?.is_some() {
        say(facts, "exists", true);
    }
    Ok(())
}

/// The newest release: the active one, or what became of it.
fn of_release(read: &dyn Read, agent: &AgentRecord, facts: &mut Facts) -> Result<(), Fault> {
    let Some(release) = release::find(read, agent.number, agent.next_release)? else {
        return Ok(());
    };
    say(facts, "release", release::id(release.number));
    say(facts, "release_state", event::word(release.state().as_str_name(), "RELEASE_STATE_"));
    if release.hold() != HoldCause::Unspecified {
        say(facts, "release_hold", event::word(release.hold().as_str_name(), "HOLD_CAUSE_"));
    }
    say(facts, "quarantine_until_ms", release.quarantine_until_ms);
    Ok(())
}

fn of_bundle(
    read: &dyn Read,
    agent: &AgentRecord,
    action: &Action,
    facts: &mut Facts,
) -> Result<(), Fault> {
    if action.bundle_id.is_empty() {
        return Ok(());
    }
    let Some(bundle) = bundle::find(read, agent.number, &action.bundle_id)? else {
        return Ok(());
    };
    let state = bundle::state(agent, &bundle);
    say(facts, "bundle_state", event::word(state.as_str_name(), "BUNDLE_STATE_"));
    say(facts, "bundle_digest", &bundle.digest);
    say(facts, "bundle_paused", paused(bundle.paused, bundle.reject_starts));
    say(facts, "endpoint", &bundle.endpoint);
    say(facts, "drain_deadline_ms", bundle.drain_deadline_ms);
    if let Some(mark) = &bundle.mark {
        say(facts, "in_flight", event::word(mark.in_flight().as_str_name(), "IN_FLIGHT_"));
    }
    Ok(())
}

fn of_run(
    read: &dyn Read,
    agent: &AgentRecord,
    action: &Action,
    facts: &mut Facts,
) -> Result<(), Fault> {
    if action.run_id.is_empty() {
        return Ok(());
    }
    let Some(run) = run::find(read, agent.number, &action.run_id)? else { return Ok(()) };
    say(facts, "run_state", event::word(run.state().as_str_name(), "RUN_STATE_"));
    say(facts, "run_bundle", &run.bundle_id);
    say(facts, "run_paused", if run.held { "true" } else { "" });
    say(facts, "repin_to", &run.repin_to);
    Ok(())
}

/// What the newest layer of the bundle sees under the key: a digest, for a value may be secret and is long.
fn of_memory(
    read: &dyn Read,
    cluster: &ClusterRecord,
    agent: &AgentRecord,
    action: &Action,
    facts: &mut Facts,
) -> Result<(), Fault> {
    if id::check_memory_key(&action.memory_key).is_err() {
        return Ok(());
    }
    let bundle = bundle::find(read, agent.number, &action.bundle_id)?.unwrap_or_default();
    let view = View::open(read, agent, bundle.layer, 0, cluster.now_ms)?;
    if let Some(found) = view.find(read, &action.memory_key)? {
        let value = found.record.value.unwrap_or_default();
        say(facts, "value_sha256", hex::encode(Sha256::digest(&value.data)));
        say(facts, "value_bytes", value.data.len());
        say(facts, "value_revision", found.revision);
    }
    Ok(())
}

fn paused(paused: bool, reject_starts: bool) -> &'static str {
    match (paused, reject_starts) {
        (false, _) => "",
        (true, false) => "true",
        (true, true) => "true, starts refused",
    }
}

fn say(facts: &mut Facts, key: &str, value: impl ToString) {
    let value = value.to_string();
    if !value.is_empty() && value != "0" {
        facts.insert(key.to_owned(), value);
    }
}

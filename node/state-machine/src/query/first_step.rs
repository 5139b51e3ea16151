//! Where a start will most likely begin: what a leader looks for a waiting worker with.
//!
//! A guess. The route is resolved at apply, which takes the worker only when the guess was right.

use pinrail_proto::limits;
use pinrail_proto::log::{AgentRecord, BundleRecord, RunRecord, StartRun};
use pinrail_proto::v1::RunKind;

use crate::effect::Rank;
use crate::outcome::Stop;
use crate::run::{self, check_start, session};
use crate::shared::Shared;
use crate::store::{Fault, Read};
use crate::{agent, bundle, namespace};

/// The first step of a run that is about to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstStep {
    pub agent: u32,
    pub bundle_id: String,
    /// The step's name: only workers that serve it can have it.
    pub name: String,
    pub rank: Rank,
}

/// None: as far as this moment tells, no worker gets a step of it by the start itself.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn first_step(read: &dyn Read, it: &StartRun) -> Result<Option<FirstStep>, Fault> {
    if it.delay_ms != 0 || check_start(it).is_err() {
        return Ok(None);
    }
    let Some(agent) = agent_of(read, it)? else { return Ok(None) };
    if agent.external || run::find(read, agent.number, &it.run_id)?.is_some() {
        return Ok(None);
    }
    let parent = match it.parent_run_id.as_str() {
        "" => Shared::default(),
        id => match run::find(read, agent.number, id)? {
            Some(parent) => parent,
            None => return Ok(None),
        },
    };
    if !session::is_free(read, &agent, &it.session)? {
        return Ok(None);
    }
    let Some(bundle) = bundle_of(read, &agent, &parent, it)? else { return Ok(None) };
    let first = |names: [&str; 3]| names.into_iter().find(|it| !it.is_empty()).map(str::to_owned);
    let priority = [it.priority, parent.priority].into_iter().find(|priority| *priority != 0);
    // A child is of its parent's kind.
    let kind = if it.parent_run_id.is_empty() { it.kind() } else { parent.kind() };
    let key = first([&it.fairness_key, &parent.fairness_key, &it.session]);
    Ok(Some(FirstStep {
        agent: agent.number,
        bundle_id: bundle.bundle_id,
        name: if it.entry.is_empty() { bundle.entry } else { it.entry.clone() },
        rank: Rank {
            priority: priority.unwrap_or(limits::DEFAULT_PRIORITY),
            key: key.unwrap_or_else(|| it.run_id.clone()),
            prefers: String::new(),
            shadow: kind == RunKind::Shadow,
        },
    }))
}

fn agent_of(read: &dyn Read, it: &StartRun) -> Result<Option<AgentRecord>, Fault> {
    let Some(asked) = &it.agent else { return Ok(None) };
    let namespace = namespace::or_default(&asked.namespace);
    match agent::number(read, namespace, &asked.agent_id)? {
        Some(number) => agent::by_number(read, number),
        None => Ok(None),
    }
}

fn bundle_of(
    read: &dyn Read,
    agent: &AgentRecord,
    parent: &RunRecord,
    it: &StartRun,
) -> Result<Option<BundleRecord>, Fault> {
    if !it.parent_run_id.is_empty() {
        return bundle::find(read, agent.number, &parent.bundle_id);
    }
    let run = RunRecord {
        run_id: it.run_id.clone(),
        session: it.session.clone(),
        labels: it.labels.clone(),
        asked_bundle_id: it.bundle_id.clone(),
        ..RunRecord::default()
    };
    match run::choose(read, super::position(read)?.now_ms, agent, &run) {
        Ok((bundle, _)) => Ok(Some(bundle.into_inner())),
        Err(Stop::Rejected(_)) => Ok(None),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

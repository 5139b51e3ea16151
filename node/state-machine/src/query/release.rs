//! Reads of releases, and what a release would be.

use pinrail_proto::log::{AgentRecord, ReleaseRecord, StagePlan};
use pinrail_proto::time::{duration, millis, timestamp};
use pinrail_proto::v1::SignalKind;
use pinrail_proto::{reason, v1};

use crate::key::{Key, Kind};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::decode;
use crate::{agent as agents, bundle, release as releases_of, route, signal};

use super::page::page_back;

/// A release by its id; without one the active release, else the newest.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RELEASE_NOT_FOUND`.
pub fn release(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    release_id: &str,
) -> Result<v1::Release, Stop> {
    let agent = agents::find(read, namespace, agent)?;
    let number = match release_id {
        "" if agent.active_release != 0 => agent.active_release,
        "" => agent.next_release,
        named => releases_of::number(named).unwrap_or(0),
    };
    let Some(record) = releases_of::find(read, agent.number, number)? else {
        let message = match release_id {
            "" => format!("agent {} has had no release", agent.agent_id),
            named => format!("agent {} has no release {named:?}", agent.agent_id),
        };
        return Err(reject(reason::RELEASE_NOT_FOUND, message));
    };
    Ok(releases_of::message(read, &agent, &record, true)?)
}

/// The active release, else the newest one while it is not over; without its history and policy.
///
/// # Errors
/// `AGENT_NOT_FOUND`.
pub fn release_under_way(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
) -> Result<Option<v1::Release>, Stop> {
    let agent = agents::find(read, namespace, agent)?;
    let number = match agent.active_release {
        0 => agent.next_release,
        active => active,
    };
    let Some(record) = releases_of::find(read, agent.number, number)? else { return Ok(None) };
    let release = releases_of::message(read, &agent, &record, false)?;
    Ok(Some(release).filter(|release| release.ended_at.is_none()))
}

/// A page of an agent's releases, newest first, and the token of the next page.
///
/// # Errors
/// `AGENT_NOT_FOUND`; `INVALID_REQUEST` for a forged token.
pub fn releases(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::Release>, String), Stop> {
    let agent = agents::find(read, namespace, agent)?;
    let range = Key::of(Kind::Release, agent.number).range();
    let (rows, next) = page_back(read, &range, page_size, token)?;
    let mut all = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let record = decode(&key, &value)?;
        all.push(releases_of::message(read, &agent, &record, false)?);
    }
    Ok((all, next))
}

/// What a release of the bundle would go through now.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`.
pub fn plan_release(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    bundle_id: &str,
    fast: bool,
) -> Result<v1::PlanReleaseResponse, Stop> {
    let agent = agents::find(read, namespace, agent)?;
    let candidate = bundle::existing(read, agent.number, bundle_id)?;
    let policy = agents::policy(read, agent.number)?;
    let planned = releases_of::plan(read, &agent, &candidate, &policy, fast)?;
    let mut blockers = Vec::new();
    let refused = releases_of::admit(read, &agent, &candidate, &policy);
    for stop in [refused.err(), planned.blocker] {
        match stop {
            Some(Stop::Rejected(it)) => blockers.push(format!("{}: {}", it.reason, it.message)),
            Some(fault @ Stop::Fault(_)) => return Err(fault),
            None => {}
        }
    }
    let canary = policy.gates.as_ref().and_then(|gates| gates.canary.as_ref());
    let held_ms: u64 = canary.map_or(0, |canary| {
        canary.steps.iter().filter_map(|step| step.hold.as_ref().and_then(millis)).sum()
    });
    let stages: Vec<v1::PlannedStage> =
        planned.stages.iter().map(|plan| stage(&policy, plan, held_ms)).collect();
    let all = |of: &dyn Fn(&v1::PlannedStage) -> Option<u64>| {
        stages.iter().filter(|stage| stage.skipped.is_empty()).filter_map(of).sum::<u64>()
    };
    let least = all(&|stage| stage.at_least.as_ref().and_then(millis));
    let most = all(&|stage| stage.timeout.as_ref().and_then(millis));
    let live = bundle::find(read, agent.number, &agent.live_bundle_id)?;
    let (open_pins, oldest_ms) = match &live {
        Some(live) => {
            (bundle::open_pins(live), route::oldest_pin_ms(read, agent.number, &live.bundle_id)?)
        }
        None => (0, 0),
    };
    Ok(v1::PlanReleaseResponse {
        bundle_id: candidate.bundle_id,
        baseline_bundle_id: agent.live_bundle_id.clone(),
        stages,
        blockers,
        promote_at_least: Some(duration(least)),
        promote_at_most: Some(duration(most)),
        open_pins,
        oldest_pinned_at: timestamp(oldest_ms),
        drained_within: Some(duration(agent.drain_cap_ms + agent.grace_ms)),
        ..v1::PlanReleaseResponse::default()
    })
}

fn stage(policy: &v1::Policy, plan: &StagePlan, canary_ms: u64) -> v1::PlannedStage {
    let is_canary = plan.stage() == v1::Stage::Canary;
    v1::PlannedStage {
        stage: plan.stage,
        mode: plan.mode,
        skipped: plan.skipped.clone(),
        timeout: (plan.timeout_ms != 0).then(|| duration(plan.timeout_ms)),
        at_least: is_canary.then(|| duration(canary_ms)),
        hold_before: plan.hold_before,
        hooks: releases_of::gate_hooks(policy, plan.stage()).map(str::to_owned).collect(),
    }
}

/// A release that something may still happen to, and what it is judged by.
#[derive(Debug, Clone)]
pub struct Attended {
    pub namespace: String,
    pub agent_id: String,
    /// The agent's number.
    pub agent: u32,
    pub release: ReleaseRecord,
    /// As it was when the release began.
    pub policy: v1::Policy,
    /// Steps that the candidate's workers have to serve.
    pub steps: Vec<String>,
    /// Open pins of the bundle that was live before.
    pub baseline_pins: u64,
    /// A signal that fires and that nobody acknowledged or muted: nothing goes on by itself.
    pub fires: Option<SignalKind>,
    /// Cluster time in milliseconds.
    pub now_ms: u64,
}

/// The active release of an agent and the one in quarantine.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn attended(read: &dyn Read, agent: u32, now_ms: u64) -> Result<Vec<Attended>, Fault> {
    let Some(record) = agents::by_number(read, agent)? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for number in [record.active_release, record.quarantine_release] {
        let Some(release) = releases_of::find(read, agent, number)? else { continue };
        let candidate = bundle::find(read, agent, &release.bundle_id)?.unwrap_or_default();
        let mut steps = bundle::declared_steps(read, agent, &release.bundle_id)?;
        steps.insert(candidate.entry);
        steps.retain(|step| !step.is_empty());
        let baseline = bundle::find(read, agent, &release.baseline_bundle_id)?;
        all.push(Attended {
            namespace: record.namespace.clone(),
            agent_id: record.agent_id.clone(),
            agent,
            policy: releases_of::policy(read, agent, number)?,
            steps: steps.into_iter().collect(),
            baseline_pins: baseline.as_ref().map_or(0, bundle::open_pins),
            fires: signal::blocking(read, agent, &release, now_ms)?,
            release,
            now_ms,
        });
    }
    Ok(all)
}

/// The numbers of all agents that have such a release.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn agents_with_releases(read: &dyn Read) -> Result<Vec<u32>, Fault> {
    let rows = read.scan(&Key::new(Kind::Agent).range(), Order::Ascending, usize::MAX)?;
    let mut found = Vec::new();
    for (key, value) in rows {
        let agent: AgentRecord = decode(&key, &value)?;
        if agent.active_release != 0 || agent.quarantine_release != 0 {
            found.push(agent.number);
        }
    }
    Ok(found)
}

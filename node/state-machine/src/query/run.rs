//! Reads of runs: one, its result, its explanation.

use pinrail_proto::limits;
use pinrail_proto::log::{AgentRecord, RunRecord, ScoreRecord};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1;

use crate::key::{Key, Kind, Parts};
use crate::outcome::Stop;
use crate::run::{find, input, is_over, not_found, output, pin_message};
use crate::shared::Shared;
use crate::store::{Fault, KeyRange, Order, Read};
use crate::{agent, bundle, signal};

use super::page::page;
use super::signal::cohort;

/// A run with its input and output. The agent may be empty for run ids that our libraries made.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RUN_NOT_FOUND`.
pub fn run(read: &dyn Read, namespace: &str, agent: &str, run_id: &str) -> Result<v1::Run, Stop> {
    let (agent, record) = locate(read, namespace, agent, run_id)?;
    let mut run = message(read, &agent, &record)?;
    run.input = input(read, agent.number, &record)?;
    run.output = output(read, agent.number, &record)?;
    Ok(run)
}

/// Finds a run and its agent; without the agent's name by the hash that a library's run id begins with.
pub(super) fn locate(
    read: &dyn Read,
    namespace: &str,
    agent_id: &str,
    run_id: &str,
) -> Result<(AgentRecord, RunRecord), Stop> {
    if !agent_id.is_empty() {
        let agent = agent::find(read, namespace, agent_id)?;
        let run = find(read, agent.number, run_id)?.ok_or_else(|| not_found(run_id))?;
        return Ok((agent, run.into_inner()));
    }
    let hash = run_id.get(..8).ok_or_else(|| not_found(run_id))?;
    let mut prefix = Key::new(Kind::AgentHash).build();
    prefix.extend_from_slice(hash.as_bytes());
    for (key, _) in read.scan(&KeyRange::prefix(&prefix), Order::Ascending, 16)? {
        let number = key.last_chunk::<4>().map_or(0, |n| u32::from_be_bytes(*n));
        if let (Some(agent), Some(run)) =
            (agent::by_number(read, number)?, find(read, number, run_id)?)
        {
            return Ok((agent, run.into_inner()));
        }
    }
    Err(not_found(run_id))
}

/// State and result of a run, whether it is over or not.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RUN_NOT_FOUND`.
pub fn result(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    run_id: &str,
) -> Result<v1::GetResultResponse, Stop> {
    let (agent, record) = locate(read, namespace, agent, run_id)?;
    Ok(v1::GetResultResponse {
        run_id: record.run_id.clone(),
        bundle_id: record.bundle_id.clone(),
        state: record.state,
        closed: is_over(record.state()),
        output: output(read, agent.number, &record)?,
        failure: record.failure.clone(),
        end_reason: record.end_reason,
        continued_to: record.continued_to.clone(),
        revision: super::position(read)?.revision,
    })
}

/// The run, its newest steps, its bundle, the bundle that was live before that, and what differs between the two.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RUN_NOT_FOUND`.
pub fn explain_run(
    read: &dyn Read,
    namespace: &str,
    agent_id: &str,
    run_id: &str,
    now_ms: u64,
) -> Result<v1::ExplainRunResponse, Stop> {
    let (agent, record) = locate(read, namespace, agent_id, run_id)?;
    let steps = super::step::newest(read, agent.number, &record)?;
    let pinned = bundle::existing(read, agent.number, &record.bundle_id)?;
    let pinned = bundle::message(read, &agent, &pinned)?;
    let previous = match previous(read, &agent, &record.bundle_id)? {
        Some(previous) => Some(bundle::message(read, &agent, &previous)?),
        None => None,
    };
    let previous_cohort = match &previous {
        Some(previous) => Some(cohort(read, &agent, &previous.bundle_id, now_ms)?),
        None => None,
    };
    let both = [Some(&record.bundle_id), previous.as_ref().map(|it| &it.bundle_id)];
    let mut watches = signal::watched(read, &agent, now_ms)?;
    watches.retain(|it| both.contains(&Some(&it.bundle_id)));
    let changes = match (&previous, &pinned.manifest) {
        (Some(v1::Bundle { manifest: Some(before), .. }), Some(after)) => {
            bundle::diff(before, after)
        }
        (Some(_) | None, Some(_) | None) => Vec::new(),
    };
    Ok(v1::ExplainRunResponse {
        run: Some(run(read, namespace, agent_id, run_id)?),
        steps,
        bundle: Some(pinned),
        previous_bundle: previous,
        changes,
        revision: super::position(read)?.revision,
        cohort: Some(cohort(read, &agent, &record.bundle_id, now_ms)?),
        previous_cohort,
        watches,
    })
}

/// The bundle whose layer this bundle's layer was opened on: the one that was live before it.
fn previous(
    read: &dyn Read,
    agent: &AgentRecord,
    bundle_id: &str,
) -> Result<Option<pinrail_proto::log::BundleRecord>, Fault> {
    let Some(record) = bundle::find(read, agent.number, bundle_id)? else { return Ok(None) };
    let Some(layer) = crate::memory::layer(read, agent.number, record.layer)? else {
        return Ok(None);
    };
    let Some(base) = layer.ancestors.first() else { return Ok(None) };
    let Some(base) = crate::memory::layer(read, agent.number, base.layer)? else { return Ok(None) };
    bundle::find(read, agent.number, &base.bundle_id)
}

/// The API's view of a run, without input and output.
pub(super) fn message(
    read: &dyn Read,
    agent: &AgentRecord,
    run: &RunRecord,
) -> Result<v1::Run, Fault> {
    let pin =
        bundle::find(read, agent.number, &run.bundle_id)?.map(|bundle| pin_message(run, &bundle));
    Ok(v1::Run {
        namespace: agent.namespace.clone(),
        agent_id: agent.agent_id.clone(),
        run_id: run.run_id.clone(),
        kind: run.kind,
        state: run.state,
        pin,
        external: run.external,
        labels: run.labels.clone(),
        started_at: timestamp(run.started_ms),
        ended_at: timestamp(run.ended_ms),
        end_reason: run.end_reason,
        failure: run.failure.clone(),
        usage: run.usage.clone(),
        steps: run.step,
        current_step: run.step_name.clone(),
        input: None,
        output: None,
        restarts: run.restarts,
        revision: run.revision,
        pending_signals: run.pending_signals,
        parent_run_id: run.parent_run_id.clone(),
        first_run_id: run.first_run_id.clone(),
        continued_to: run.continued_to.clone(),
        paused: run.held,
        due_at: timestamp(run.due_ms),
        session: run.session.clone(),
        awaits_turn: run.awaits_turn,
        repinnable: run.repinnable,
        priority: match run.priority {
            0 => limits::DEFAULT_PRIORITY,
            asked => asked,
        },
        fairness_key: run.fairness_key.clone(),
        trace_parent: run.trace_parent.clone(),
        callback: run.callback.clone(),
        repins: run.repins,
        repin_to: run.repin_to.clone(),
        scores: run.scores.iter().map(score).collect(),
    })
}

fn score(it: &ScoreRecord) -> v1::Score {
    v1::Score {
        source: it.source,
        score_permille: it.score_permille,
        comment: it.comment.clone(),
        actor: it.actor.clone(),
        at: timestamp(it.at_ms),
    }
}

/// A page of the open pins of a bundle, oldest first.
pub(super) fn open_pins(
    read: &dyn Read,
    agent: &AgentRecord,
    bundle_id: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<RunRecord>, String), Stop> {
    let range = Key::of(Kind::OpenPin, agent.number).text(bundle_id).range();
    let (rows, next) = page(read, &range, page_size, token)?;
    let mut records = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        let mut parts = Parts::new(&key);
        parts.u32();
        parts.text();
        parts.u64();
        let run = find(read, agent.number, parts.last().unwrap_or_default())?;
        records.extend(run.map(Shared::into_inner));
    }
    Ok((records, next))
}

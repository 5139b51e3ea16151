//! The final read: everything about an agent, linearizably, after all faults were healed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use pinrail_proto::v1;

use super::{Nodes, convert, request, until_ok};
use crate::history::{
    AgentFinal, Call, Entry, EventFinal, RunFinal, StepFinal, VersionFinal, WorkerEvent, WorkerLine,
};

const WITHIN: Duration = Duration::from_secs(20);
const CALL: Duration = Duration::from_secs(5);
const PAGE: u32 = 500;
/// Reads under way at the same time.
const AT_ONCE: usize = 16;

/// Reads an agent in the end. Which memory keys to read is learned from what was asked.
///
/// # Errors
/// When the healed cluster does not answer: the promise to serve is broken.
pub async fn read_agent(
    nodes: &Nodes,
    agent: &str,
    grace_ms: u64,
    history: &[Entry],
    worker_log: &[WorkerLine],
) -> Result<AgentFinal> {
    let message =
        v1::GetAgentRequest { agent_id: agent.to_owned(), ..v1::GetAgentRequest::default() };
    let answer = until_ok(nodes, WITHIN, |mut stubs| {
        let message = message.clone();
        async move { stubs.agents.get_agent(request(message, CALL)).await }
    })
    .await
    .with_context(|| format!("read agent {agent}"))?
    .into_inner();
    let route = answer.agent.and_then(|agent| agent.route).unwrap_or_default();
    let mut end = AgentFinal {
        agent: agent.to_owned(),
        live_bundle_id: route.live_bundle_id,
        epoch: route.epoch,
        grace_ms,
        ..AgentFinal::default()
    };
    // Before the runs: what is open in what follows was open at this time.
    end.cluster_time_ms = cluster_time(nodes, agent).await?;
    end.runs = runs(nodes, agent).await?;
    end.code = code(nodes, agent).await?;
    end.layers = layers(nodes, &end, history).await?;
    for key in keys(agent, history, worker_log) {
        for layer in &end.layers {
            end.versions.extend(versions(nodes, agent, *layer, &key).await?);
        }
    }
    end.versions.sort();
    end.versions.dedup();
    Ok(end)
}

/// Cluster time now: it stands still while nothing is written, and a health check commits a probe.
async fn cluster_time(nodes: &Nodes, agent: &str) -> Result<u64> {
    until_ok(nodes, WITHIN, |mut stubs| async move {
        stubs.cluster.get_cluster_health(request(v1::GetClusterHealthRequest {}, CALL)).await
    })
    .await?;
    let message =
        v1::GetDrainRequest { agent_id: agent.to_owned(), ..v1::GetDrainRequest::default() };
    let answer = until_ok(nodes, WITHIN, |mut stubs| {
        let message = message.clone();
        async move { stubs.pins.get_drain(request(message, CALL)).await }
    })
    .await?;
    Ok(convert::ms(answer.into_inner().cluster_time.as_ref()))
}

/// All events from the first on.
///
/// # Errors
/// When the healed cluster does not answer.
pub async fn events(nodes: &Nodes, agent: &str) -> Result<Vec<EventFinal>> {
    let (mut all, mut after_revision) = (Vec::new(), 0);
    loop {
        let message = v1::ListEventsRequest {
            agent_id: agent.to_owned(),
            after_revision,
            limit: PAGE,
            ..v1::ListEventsRequest::default()
        };
        let page = until_ok(nodes, WITHIN, |mut stubs| {
            let message = message.clone();
            async move { stubs.events.list_events(request(message, CALL)).await }
        })
        .await
        .with_context(|| format!("list events of {agent}"))?
        .into_inner();
        all.extend(page.events.into_iter().map(convert::event));
        if page.next_after_revision <= after_revision || page.next_after_revision >= page.revision {
            return Ok(all);
        }
        after_revision = page.next_after_revision;
    }
}

/// All runs with their steps.
async fn runs(nodes: &Nodes, agent: &str) -> Result<Vec<RunFinal>> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let message = v1::ListRunsRequest {
            agent_id: agent.to_owned(),
            page_size: PAGE,
            page_token: page_token.clone(),
            ..v1::ListRunsRequest::default()
        };
        let page = until_ok(nodes, WITHIN, |mut stubs| {
            let message = message.clone();
            async move { stubs.runs.list_runs(request(message, CALL)).await }
        })
        .await
        .with_context(|| format!("list runs of {agent}"))?
        .into_inner();
        let read = page.runs.into_iter().map(|listed| run(nodes, agent, listed));
        let read: Vec<RunFinal> = stream::iter(read).buffered(AT_ONCE).try_collect().await?;
        all.extend(read);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// A list has no outputs; they are read where there is one.
async fn run(nodes: &Nodes, agent: &str, listed: v1::Run) -> Result<RunFinal> {
    let run = if listed.state() == v1::RunState::Completed {
        read_run(nodes, agent, &listed.run_id).await?
    } else {
        listed
    };
    let steps = if run.external { Vec::new() } else { steps(nodes, agent, &run.run_id).await? };
    Ok(RunFinal {
        run_id: run.run_id.clone(),
        pin: convert::pin(run.pin.as_ref()),
        state: convert::run_state(run.state),
        external: run.external,
        started_at_ms: convert::ms(run.started_at.as_ref()),
        ended_at_ms: convert::ms(run.ended_at.as_ref()),
        end_reason: convert::end_reason(run.end_reason),
        restarts: run.restarts,
        revision: run.revision,
        output: convert::text(run.output.as_ref()),
        steps,
        first_run_id: run.first_run_id.clone(),
        continued_to: run.continued_to.clone(),
    })
}

async fn read_run(nodes: &Nodes, agent: &str, run_id: &str) -> Result<v1::Run> {
    let message = v1::GetRunRequest {
        agent_id: agent.to_owned(),
        run_id: run_id.to_owned(),
        ..v1::GetRunRequest::default()
    };
    let answer = until_ok(nodes, WITHIN, |mut stubs| {
        let message = message.clone();
        async move { stubs.runs.get_run(request(message, CALL)).await }
    })
    .await
    .with_context(|| format!("read run {run_id}"))?;
    answer.into_inner().run.context("a run's answer has no run")
}

async fn steps(nodes: &Nodes, agent: &str, run_id: &str) -> Result<Vec<StepFinal>> {
    let message = v1::ListStepsRequest {
        agent_id: agent.to_owned(),
        run_id: run_id.to_owned(),
        page_size: PAGE,
        ..v1::ListStepsRequest::default()
    };
    let answer = until_ok(nodes, WITHIN, |mut stubs| {
        let message = message.clone();
        async move { stubs.runs.list_steps(request(message, CALL)).await }
    })
    .await
    .with_context(|| format!("list steps of {run_id}"))?;
    let steps = answer.into_inner().steps.into_iter().map(|step| StepFinal {
        number: step.number,
        name: step.name,
        state: convert::step_state(step.state),
        attempt: step.attempt,
        bundle_id: step.bundle_id,
        input: convert::text(step.input.as_ref()),
    });
    Ok(steps.collect())
}

/// Bundle to the code of its manifest.
async fn code(nodes: &Nodes, agent: &str) -> Result<BTreeMap<String, String>> {
    let message = v1::ListBundlesRequest {
        agent_id: agent.to_owned(),
        page_size: 100,
        ..v1::ListBundlesRequest::default()
    };
    let answer = until_ok(nodes, WITHIN, |mut stubs| {
        let message = message.clone();
        async move { stubs.bundles.list_bundles(request(message, CALL)).await }
    })
    .await?;
    let mut code = BTreeMap::new();
    for listed in answer.into_inner().bundles {
        let message = v1::GetBundleRequest {
            agent_id: agent.to_owned(),
            bundle_id: listed.bundle_id.clone(),
            ..v1::GetBundleRequest::default()
        };
        let answer = until_ok(nodes, WITHIN, |mut stubs| {
            let message = message.clone();
            async move { stubs.bundles.get_bundle(request(message, CALL)).await }
        })
        .await?;
        let manifest = answer.into_inner().bundle.and_then(|bundle| bundle.manifest);
        let part = manifest.and_then(|manifest| manifest.code).unwrap_or_default();
        let name = if part.git_commit.is_empty() { part.image } else { part.git_commit };
        code.insert(listed.bundle_id, name);
    }
    Ok(code)
}

/// Layers that anything ever pointed at, those between them, for they are numbered in the order in which they were opened, and
/// the newest of each bundle: no answer names a layer in which something was only deleted.
async fn layers(nodes: &Nodes, end: &AgentFinal, history: &[Entry]) -> Result<Vec<u64>> {
    use crate::history::Answer;
    let mut layers: BTreeSet<u64> = end.runs.iter().map(|run| run.pin.layer).collect();
    for bundle_id in end.code.keys() {
        layers.insert(newest_layer(nodes, &end.agent, bundle_id).await?);
    }
    for entry in history.iter().filter(|entry| entry.agent == end.agent) {
        match entry.ok() {
            Some((_, Answer::Wrote { layer, .. } | Answer::Read { layer, .. })) => {
                layers.insert(*layer);
            }
            Some((_, Answer::Started { pin, .. } | Answer::Pinned { pin, .. })) => {
                layers.insert(pin.layer);
            }
            Some(_) | None => {}
        }
    }
    Ok((1..=layers.last().copied().unwrap_or(0)).collect())
}

async fn newest_layer(nodes: &Nodes, agent: &str, bundle_id: &str) -> Result<u64> {
    let scope = v1::memory_scope::Scope::BundleId(bundle_id.to_owned());
    let message = v1::GetMemoryRequest {
        agent_id: agent.to_owned(),
        scope: Some(v1::MemoryScope { scope: Some(scope) }),
        key: "any".to_owned(),
        ..v1::GetMemoryRequest::default()
    };
    let answer = until_ok(nodes, WITHIN, |mut stubs| {
        let message = message.clone();
        async move { stubs.memory.get_memory(request(message, CALL)).await }
    })
    .await
    .with_context(|| format!("the newest layer of {bundle_id} of {agent}"))?;
    Ok(answer.into_inner().layer)
}

fn keys(agent: &str, history: &[Entry], worker_log: &[WorkerLine]) -> BTreeSet<String> {
    let asked =
        history.iter().filter(|entry| entry.agent == agent).filter_map(|entry| match &entry.call {
            Call::PutMemory { key, .. } | Call::GetMemory { key, .. } => Some(key.clone()),
            _ => None,
        });
    let logged =
        worker_log.iter().filter(|line| line.agent == agent).filter_map(|line| match &line.event {
            WorkerEvent::MemoryAsked { key, .. } => Some(key.clone()),
            _ => None,
        });
    asked.chain(logged).collect()
}

async fn versions(nodes: &Nodes, agent: &str, layer: u64, key: &str) -> Result<Vec<VersionFinal>> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let message = v1::GetMemoryHistoryRequest {
            agent_id: agent.to_owned(),
            scope: Some(v1::MemoryScope { scope: Some(v1::memory_scope::Scope::Layer(layer)) }),
            key: key.to_owned(),
            page_size: PAGE,
            page_token: page_token.clone(),
            ..v1::GetMemoryHistoryRequest::default()
        };
        let page = until_ok(nodes, WITHIN, |mut stubs| {
            let message = message.clone();
            async move { stubs.memory.get_memory_history(request(message, CALL)).await }
        })
        .await
        .with_context(|| format!("history of {key} in layer {layer} of {agent}"))?
        .into_inner();
        all.extend(page.versions.into_iter().map(|version| VersionFinal {
            value: (!version.deleted).then(|| convert::text(version.value.as_ref())),
            key: version.key,
            revision: version.revision,
            layer: version.layer,
            run_id: version.run_id,
        }));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

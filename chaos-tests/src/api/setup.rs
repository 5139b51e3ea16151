//! Agents and bundles for a scenario.

use std::time::Duration;

use anyhow::{Context as _, Result};
use pinrail_proto::v1;
use sha2::{Digest as _, Sha256};

use super::{Nodes, convert, request, until_ok};

/// How long setting up may take, elections included.
const WITHIN: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(4);

/// The policy of an agent under test, times in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub external: bool,
    pub max_age_ms: u64,
    pub lease_ms: u64,
    pub drain_cap_ms: u64,
    pub grace_ms: u64,
    pub max_attempts: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            external: false,
            max_age_ms: 3_600_000,
            lease_ms: 1_000,
            drain_cap_ms: 6_000,
            grace_ms: 1_000,
            max_attempts: 1_000,
        }
    }
}

impl Policy {
    fn message(&self) -> v1::Policy {
        let execution =
            if self.external { v1::Execution::External } else { v1::Execution::Workers };
        v1::Policy {
            description: "chaos".to_owned(),
            require_code: !self.external,
            runs: Some(v1::RunPolicy {
                execution: execution.into(),
                max_age: Some(convert::duration(self.max_age_ms)),
                ..v1::RunPolicy::default()
            }),
            steps: Some(v1::StepPolicy {
                lease: Some(convert::duration(self.lease_ms)),
                max_attempts: Some(self.max_attempts),
                backoff: Some(v1::Backoff {
                    initial: Some(convert::duration(50)),
                    max: Some(convert::duration(500)),
                    ..v1::Backoff::default()
                }),
                ..v1::StepPolicy::default()
            }),
            switch: Some(v1::SwitchPolicy {
                drain_cap: Some(convert::duration(self.drain_cap_ms)),
                grace: Some(convert::duration(self.grace_ms)),
                ..v1::SwitchPolicy::default()
            }),
            // Workers are killed here: a switch by hand is not to depend on which of them live.
            gates: Some(v1::GatesPolicy {
                prepare: Some(v1::PrepareGate {
                    mode: v1::StageMode::Off.into(),
                    ..v1::PrepareGate::default()
                }),
                ..v1::GatesPolicy::default()
            }),
            ..v1::Policy::default()
        }
    }
}

/// The commit that a bundle of the chaos agents names: made of its name, so that a worker process can be told
/// the same without asking the server.
#[must_use]
pub fn code_of(bundle_id: &str) -> String {
    hex::encode(Sha256::digest(bundle_id.as_bytes())).chars().take(40).collect()
}

/// Makes an agent with bundles; repeating it changes nothing.
///
/// # Errors
/// When the cluster refuses or does not answer.
pub async fn agent(nodes: &Nodes, agent: &str, policy: Policy, bundles: &[String]) -> Result<()> {
    let message = v1::CreateAgentRequest {
        agent_id: agent.to_owned(),
        policy: Some(policy.message()),
        ..v1::CreateAgentRequest::default()
    };
    until_ok(nodes, WITHIN, |mut stubs| {
        let message = message.clone();
        async move { stubs.agents.create_agent(request(message, CALL)).await }
    })
    .await
    .with_context(|| format!("create agent {agent}"))?;
    for bundle_id in bundles {
        bundle(nodes, agent, bundle_id).await?;
    }
    Ok(())
}

/// Changes an agent's policy.
///
/// # Errors
/// When the cluster refuses or does not answer.
pub async fn set_policy(nodes: &Nodes, agent: &str, policy: Policy) -> Result<()> {
    let message = v1::UpdateAgentRequest {
        agent_id: agent.to_owned(),
        policy: Some(policy.message()),
        ..v1::UpdateAgentRequest::default()
    };
    until_ok(nodes, WITHIN, |mut stubs| {
        let message = message.clone();
        async move { stubs.agents.update_agent(request(message, CALL)).await }
    })
    .await
    .with_context(|| format!("update agent {agent}"))?;
    Ok(())
}

async fn bundle(nodes: &Nodes, agent: &str, bundle_id: &str) -> Result<()> {
    let model = v1::ModelPart {
        provider: "anthropic".to_owned(),
        name: "claude-sonnet-4-5".to_owned(),
        snapshot: "20250929".to_owned(),
        ..v1::ModelPart::default()
    };
    let manifest = v1::BundleManifest {
        entry: "main".to_owned(),
        code: Some(v1::CodePart { git_commit: code_of(bundle_id), ..v1::CodePart::default() }),
        models: [("default".to_owned(), model)].into(),
        ..v1::BundleManifest::default()
    };
    let message = v1::CreateBundleRequest {
        agent_id: agent.to_owned(),
        bundle_id: bundle_id.to_owned(),
        manifest: Some(manifest),
        ..v1::CreateBundleRequest::default()
    };
    until_ok(nodes, WITHIN, |mut stubs| {
        let message = message.clone();
        async move { stubs.bundles.create_bundle(request(message, CALL)).await }
    })
    .await
    .with_context(|| format!("create bundle {bundle_id} of {agent}"))?;
    Ok(())
}

//! Where load is put: a namespace of its own, with an agent for each measurement. Nothing of it is left at the end.
//!
//! ```text
//! agent:   v1 live → v2 live ── measured, all on v2 ── stopped → rolled back: v2's runs end, its memory is dropped → deleted
//! ```
//! An agent can be deleted once it keeps no runs and no memory. The rollback is what ends many runs in one command, and
//! what makes the memory that was written meanwhile one that nobody sees.

use std::collections::BTreeMap;

use pinrail_proto::time::duration;
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_proto::{limits, reason, v1};
use tokio::time::{Duration, Instant, sleep};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::worker::DEFAULT;

/// What the names of all namespaces that are made for load begin with.
pub const PREFIX: &str = "bench-";
/// The bundle to return to, and the one that is measured.
const BASE: &str = "v1";
pub(super) const MEASURED: &str = "v2";
/// What the bundles say that they were built from.
pub(super) const CODE: &str = "bench";
/// Finished runs and replaced versions of memory are kept for so long at most; in a longer measurement they go while it goes on.
const KEPT_AT_MOST: Duration = Duration::from_secs(10);
/// How long the cluster may take to get rid of an agent.
const REMOVED_WITHIN: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(50);

/// How long an agent keeps finished runs and replaced versions that is measured for so long.
#[must_use]
pub fn kept(measured: Duration) -> Duration {
    measured.min(KEPT_AT_MOST) + Duration::from_secs(1)
}

/// A namespace that is there only for load.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Of that namespace.
    client: Client,
}

impl Ground {
    /// Makes a namespace.
    ///
    /// # Errors
    /// What the cluster refuses, or that it does not answer.
    pub async fn make(client: &Client) -> Result<Ground> {
        let name = format!("{PREFIX}{:08x}", client.connection().random() as u32);
        let request = v1::CreateNamespaceRequest { namespace: name.clone(), ..Default::default() };
        client.namespaces().create(request).await?;
        Ok(Ground { client: client.with_namespace(&name) })
    }

    /// A namespace that an earlier load left.
    ///
    /// # Errors
    /// `Invalid` for a name that no load gives.
    pub fn left(client: &Client, name: &str) -> Result<Ground> {
        if !name.starts_with(PREFIX) {
            let rule =
                format!("namespace {name:?} was not made for load: those begin with {PREFIX}");
            return Err(Error::invalid(rule));
        }
        Ok(Ground { client: client.with_namespace(name) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.client.config().namespace
    }

    /// Makes an agent whose runs are executed in this way, with a live bundle; it keeps finished runs and replaced versions of memory
    /// for so long.
    ///
    /// # Errors
    /// What the cluster refuses, or that it does not answer.
    pub async fn agent(&self, agent: &str, execution: v1::Execution, kept: Duration) -> Result<()> {
        let request = v1::CreateAgentRequest {
            agent_id: agent.to_owned(),
            policy: Some(policy(execution, kept)),
            ..Default::default()
        };
        self.client.agents().create(request).await?;
        for bundle in [BASE, MEASURED] {
            self.bundle(agent, bundle).await?;
            let request = v1::SwitchRequest {
                agent_id: agent.to_owned(),
                bundle_id: bundle.to_owned(),
                ..Default::default()
            };
            self.client.releases().switch(request).await?;
        }
        Ok(())
    }

    /// Registers a bundle of an agent.
    ///
    /// # Errors
    /// As [`Ground::agent`].
    pub async fn bundle(&self, agent: &str, bundle: &str) -> Result<()> {
        let request = v1::CreateBundleRequest {
            agent_id: agent.to_owned(),
            bundle_id: bundle.to_owned(),
            manifest: Some(manifest()),
            ..Default::default()
        };
        self.client.bundles().create(request).await.map(drop)
    }

    /// Ends what an agent still does, and deletes it and all that it keeps. Calls that were under way when its load was
    /// stopped may still be done meanwhile.
    ///
    /// # Errors
    /// `Unavailable` when the cluster does not answer; the last refusal when it takes too long.
    pub async fn remove_agent(&self, agent: &str) -> Result<()> {
        let deadline = Instant::now() + REMOVED_WITHIN;
        decided(self.end(agent).await)?;
        loop {
            decided(self.discard(agent).await)?;
            let request =
                v1::DeleteAgentRequest { agent_id: agent.to_owned(), ..Default::default() };
            match self.client.agents().delete(request).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_rejected_with(&reason::AGENT_NOT_FOUND) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(error) => decided(Err(error))?,
            }
            sleep(LOOK).await;
        }
    }

    /// No run starts any more, those that are open end, and what is over goes at once.
    async fn end(&self, agent: &str) -> Result<()> {
        let request = v1::PauseAgentRequest {
            agent_id: agent.to_owned(),
            reject: true,
            ..Default::default()
        };
        self.client.agents().pause(request).await?;
        let request = v1::GetAgentRequest { agent_id: agent.to_owned(), ..Default::default() };
        let found = self.client.agents().get(request).await?.agent.unwrap_or_default();
        let mut policy = found.policy.unwrap_or_default();
        policy.runs.get_or_insert_default().retention = Some(duration(0));
        policy.memory.get_or_insert_default().versions = Some(duration(0));
        let request = v1::UpdateAgentRequest {
            agent_id: agent.to_owned(),
            policy: Some(policy),
            ..Default::default()
        };
        self.client.agents().update(request).await?;
        let request = v1::RollbackRequest {
            agent_id: agent.to_owned(),
            from_bundle_id: MEASURED.to_owned(),
            in_flight: v1::InFlight::Cancel.into(),
            ..Default::default()
        };
        self.client.releases().rollback(request).await?;
        Ok(())
    }

    /// Drops the memory of the bundle that was measured.
    async fn discard(&self, agent: &str) -> Result<()> {
        let mut after_key = String::new();
        loop {
            let request = v1::DiscardMemoryRequest {
                agent_id: agent.to_owned(),
                from: Some(scope()),
                after_key,
                ..Default::default()
            };
            after_key = self.client.memory().discard(request).await?.next_key;
            if after_key.is_empty() {
                return Ok(());
            }
        }
    }

    /// Deletes all of its agents, and itself.
    ///
    /// # Errors
    /// As for `remove_agent`.
    pub async fn remove(&self) -> Result<()> {
        loop {
            let request = v1::ListAgentsRequest::default();
            let page = match self.client.agents().list(request).await {
                Ok(page) => page,
                Err(error) if error.is_rejected_with(&reason::NAMESPACE_NOT_FOUND) => return Ok(()),
                Err(error) => return Err(error),
            };
            if page.agents.is_empty() {
                break;
            }
            for agent in page.agents {
                self.remove_agent(&agent.agent_id).await?;
            }
        }
        let request =
            v1::DeleteNamespaceRequest { namespace: self.name().to_owned(), ..Default::default() };
        match self.client.namespaces().delete(request).await {
            Err(error) if !error.is_rejected_with(&reason::NAMESPACE_NOT_FOUND) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Memory of the bundle that is measured: named, so that what is written late is dropped with the rest.
pub(super) fn scope() -> v1::MemoryScope {
    v1::MemoryScope { scope: Some(Scope::BundleId(MEASURED.to_owned())) }
}

/// A refusal says that there is nothing to do, or not yet: deleting shows which.
fn decided(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(Error::Rejected { .. }) => Ok(()),
        Ok(()) | Err(_) => outcome,
    }
}

/// What an agent has without a policy of its own, but for what would end a measurement early or keep its traces for days.
fn policy(execution: v1::Execution, kept: Duration) -> v1::Policy {
    let kept = Some(duration(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)));
    let runs = v1::RunPolicy {
        execution: execution.into(),
        retention: kept,
        max_open: Some(limits::OPEN_RUNS),
        ..Default::default()
    };
    let off = v1::StageMode::Off.into();
    v1::Policy {
        description: "made by pinrail bench, which deletes it".to_owned(),
        runs: Some(runs),
        memory: Some(v1::MemoryPolicy { versions: kept, ..Default::default() }),
        // Whether a bundle has workers yet is no question here.
        gates: Some(v1::GatesPolicy {
            prepare: Some(v1::PrepareGate { mode: off, ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn manifest() -> v1::BundleManifest {
    let model = v1::ModelPart {
        provider: "none".to_owned(),
        name: "bench".to_owned(),
        snapshot: "1".to_owned(),
        ..Default::default()
    };
    v1::BundleManifest {
        code: Some(v1::CodePart { git_commit: CODE.to_owned(), ..Default::default() }),
        models: BTreeMap::from([(DEFAULT.to_owned(), model)]).into_iter().collect(),
        ..Default::default()
    }
}

//! An agent under test: a live bundle in a cluster that is there only for the test, and a worker in this process that can be
//! killed. Feature `testing`.
//!
//! The cluster is `pinrail_node::testing::Cluster` in the same process, or any other whose endpoints are given: one that
//! `pinrail dev --empty` started, say. docs/WORKERS.md has an example.

use pinrail_proto::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::payload;
use crate::worker::{Worker, WorkerBuilder};

/// The bundle that a test's agent has.
pub const BUNDLE: &str = "v1";
/// How long anything may take in a test.
const SOON: Duration = Duration::from_secs(30);
/// Leases end so soon that a killed worker's step goes on elsewhere while a test waits.
const LEASE: prost_types::Duration = prost_types::Duration { seconds: 1, nanos: 0 };

/// An agent with one live bundle.
#[derive(Debug)]
pub struct TestAgent {
    client: Client,
    agent: String,
    worker: Option<Working>,
}

#[derive(Debug)]
struct Working {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

/// A manifest of a model that is none: enough for an agent whose steps do not look into it.
#[must_use]
pub fn bundle() -> v1::BundleManifest {
    let model = v1::ModelPart {
        provider: "none".into(),
        name: "test".into(),
        snapshot: "1".into(),
        ..Default::default()
    };
    v1::BundleManifest {
        entry: "main".into(),
        code: Some(v1::CodePart { git_commit: "test".into(), ..Default::default() }),
        models: [(crate::worker::DEFAULT.to_owned(), model)].into(),
        ..Default::default()
    }
}

impl TestAgent {
    /// Makes the agent and puts this bundle live. Leases end after a second, attempts follow each other at once.
    ///
    /// # Errors
    /// What the cluster refuses, or that it does not answer.
    pub async fn new(
        endpoints: Vec<String>,
        agent: &str,
        manifest: v1::BundleManifest,
    ) -> Result<TestAgent> {
        let client = Client::new(Config { endpoints, timeout: SOON, ..Config::default() })?;
        let soon = Some(prost_types::Duration { seconds: 0, nanos: 0 });
        let backoff = Some(v1::Backoff { initial: soon, ..Default::default() });
        let steps = Some(v1::StepPolicy { lease: Some(LEASE), backoff, ..Default::default() });
        let agent_id = || agent.to_owned();
        let request = v1::CreateAgentRequest {
            agent_id: agent_id(),
            policy: Some(v1::Policy { steps, ..Default::default() }),
            ..Default::default()
        };
        client.agents().create(request).await?;
        let request = v1::CreateBundleRequest {
            agent_id: agent_id(),
            bundle_id: BUNDLE.into(),
            manifest: Some(manifest),
            ..Default::default()
        };
        client.bundles().create(request).await?;
        let request = v1::SwitchRequest {
            agent_id: agent_id(),
            bundle_id: BUNDLE.into(),
            ..Default::default()
        };
        client.releases().switch(request).await?;
        Ok(TestAgent { client, agent: agent_id(), worker: None })
    }

    /// For what this kit has no words for.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Starts a worker of the bundle in this process, in the place of an earlier one.
    pub fn work(&mut self, steps: impl FnOnce(WorkerBuilder) -> WorkerBuilder) {
        self.kill_worker();
        let (stop, stopped) = oneshot::channel();
        let worker = Worker::builder(self.client.clone()).agent(&self.agent).bundle(BUNDLE);
        let worker = steps(worker).run_until(async { drop(stopped.await) });
        self.worker = Some(Working { stop, task: tokio::spawn(worker) });
    }

    /// Ends the worker in order: it finishes or hands back what it holds.
    ///
    /// # Errors
    /// Why the cluster did not want it.
    ///
    /// # Panics
    /// When the worker did.
    pub async fn stop_worker(&mut self) -> Result<()> {
        let Some(working) = self.worker.take() else { return Ok(()) };
        // One that is over does not hear it.
        let _ = working.stop.send(());
        working.task.await.expect("a worker does not panic")
    }

    /// Ends the worker as a machine does that loses its power: what it holds goes on elsewhere when its lease is over.
    pub fn kill_worker(&mut self) {
        if let Some(working) = self.worker.take() {
            working.task.abort();
        }
    }

    /// Starts a run and gives its id.
    ///
    /// # Errors
    /// What the cluster refuses.
    pub async fn start(&self, input: impl Serialize) -> Result<String> {
        let input = payload::encode(&input).map_err(|error| Error::invalid(error.to_string()))?;
        let request = v1::StartRunRequest {
            agent_id: self.agent.clone(),
            input: Some(input),
            ..Default::default()
        };
        Ok(self.client.runs().start(request).await?.run_id)
    }

    /// What the run came to.
    ///
    /// # Errors
    /// `RunEnded` when it failed, was cancelled or expired; `Invalid` when it took longer than half a minute, or its output
    /// is not what serde expects.
    pub async fn result<T: DeserializeOwned>(&self, run_id: &str) -> Result<T> {
        let over = self.client.wait_for_result(&self.agent, run_id);
        let over = timeout_at(Instant::now() + SOON, over).await;
        let over = over.map_err(|_| Error::invalid(format!("run {run_id} goes on and on")))??;
        payload::decode(over.output.as_ref()).map_err(|error| Error::invalid(error.to_string()))
    }

    /// Starts a run and gives what it came to.
    ///
    /// # Errors
    /// As for `start` and `result`.
    pub async fn run<T: DeserializeOwned>(&self, input: impl Serialize) -> Result<T> {
        self.result(&self.start(input).await?).await
    }

    /// Waits until the run is in a state: until it waits for a signal or for time, say.
    ///
    /// # Errors
    /// `Invalid` when it is not within half a minute.
    pub async fn until(&self, run_id: &str, state: v1::RunState) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let request = v1::GetRunRequest {
                agent_id: self.agent.clone(),
                run_id: run_id.to_owned(),
                ..Default::default()
            };
            let run = self.client.runs().get(request).await?.run.unwrap_or_default();
            if run.state() == state {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let now = run.state().as_str_name();
                return Err(Error::invalid(format!("run {run_id} is still {now}")));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends the run a signal.
    ///
    /// # Errors
    /// What the cluster refuses.
    pub async fn signal(&self, run_id: &str, name: &str, value: impl Serialize) -> Result<()> {
        let value = payload::encode(&value).map_err(|error| Error::invalid(error.to_string()))?;
        let request = v1::SignalRunRequest {
            agent_id: self.agent.clone(),
            run_id: run_id.to_owned(),
            name: name.to_owned(),
            value: Some(value),
            ..Default::default()
        };
        self.client.runs().signal(request).await?;
        Ok(())
    }

    /// The steps of a run so far, with their attempts.
    ///
    /// # Errors
    /// What the cluster refuses.
    pub async fn steps(&self, run_id: &str) -> Result<Vec<v1::Step>> {
        let request = v1::ListStepsRequest {
            agent_id: self.agent.clone(),
            run_id: run_id.to_owned(),
            ..Default::default()
        };
        Ok(self.client.runs().steps(request).await?.steps)
    }

    /// What the bundle's memory has.
    ///
    /// # Errors
    /// What the cluster refuses, or that the value is not what serde expects.
    pub async fn memory<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let scope = v1::memory_scope::Scope::BundleId(BUNDLE.into());
        let request = v1::GetMemoryRequest {
            agent_id: self.agent.clone(),
            key: key.to_owned(),
            scope: Some(v1::MemoryScope { scope: Some(scope) }),
            ..Default::default()
        };
        let answer = self.client.memory().get(request).await?;
        let Some(version) = answer.version.filter(|_| answer.found) else { return Ok(None) };
        let value = payload::decode(version.value.as_ref());
        value.map(Some).map_err(|error| Error::invalid(error.to_string()))
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        self.kill_worker();
    }
}

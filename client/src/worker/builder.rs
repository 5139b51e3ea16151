//! Says what a worker is before it works.

use std::fmt;
use std::future::Future;

use pinrail_proto::{id, v1};
use serde::de::DeserializeOwned;
use tokio::time::Duration;

use crate::client::Client;
use crate::config;
use crate::error::{Error, Result};
use crate::worker::context::StepContext;
use crate::worker::handler::{Handler, Handlers, StepOptions};
use crate::worker::outcome::{Next, StepResult};
use crate::worker::runtime::{Plan, Runtime};
use crate::worker::seen::ToolsSeen;

/// Steps that one worker runs at once, when its program does not say.
const DEFAULT_SLOTS: u32 = 8;
/// How long steps may go on after the shutdown began, when the program does not say.
const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// Serves the steps of one bundle of one agent.
#[derive(Debug)]
pub struct Worker;

impl Worker {
    /// Begins to describe a worker.
    pub fn builder(client: Client) -> WorkerBuilder {
        WorkerBuilder {
            client,
            agent: String::new(),
            namespace: None,
            bundle: config::worker_bundle(),
            code: config::worker_code(),
            worker_id: config::worker_id(),
            slots: DEFAULT_SLOTS,
            shadow_safe: false,
            shutdown_grace: DEFAULT_SHUTDOWN_GRACE,
            handlers: Handlers::default(),
            tools: ToolsSeen::new(),
        }
    }
}

/// A worker that does not work yet.
#[must_use]
pub struct WorkerBuilder {
    client: Client,
    agent: String,
    namespace: Option<String>,
    bundle: Option<String>,
    code: Option<String>,
    worker_id: Option<String>,
    slots: u32,
    shadow_safe: bool,
    shutdown_grace: Duration,
    handlers: Handlers,
    tools: ToolsSeen,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("agent", &self.agent)
            .field("bundle", &self.bundle)
            .field("slots", &self.slots)
            .field("steps", &self.handlers.served())
            .finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    /// The agent. Required.
    pub fn agent(mut self, agent: impl Into<String>) -> WorkerBuilder {
        self.agent = agent.into();
        self
    }

    /// The bundle. Required, here or as `PINRAIL_BUNDLE`.
    pub fn bundle(mut self, bundle: impl Into<String>) -> WorkerBuilder {
        self.bundle = Some(bundle.into());
        self
    }

    /// The namespace; the client's unless told otherwise.
    pub fn namespace(mut self, namespace: impl Into<String>) -> WorkerBuilder {
        self.namespace = Some(namespace.into());
        self
    }

    /// What this program was built from, here or as `PINRAIL_CODE`. Other code than the bundle's is refused; none is
    /// `unverified`.
    pub fn code(mut self, code: impl Into<String>) -> WorkerBuilder {
        self.code = Some(code.into());
        self
    }

    /// Unique among live workers; made up unless told otherwise.
    pub fn worker_id(mut self, worker_id: impl Into<String>) -> WorkerBuilder {
        self.worker_id = Some(worker_id.into());
        self
    }

    /// Steps at once; default 8.
    pub fn slots(mut self, slots: u32) -> WorkerBuilder {
        self.slots = slots;
        self
    }

    /// Promises that every effect goes through `ctx.tool` or `ctx.checkpoint`.
    pub fn shadow_safe(mut self) -> WorkerBuilder {
        self.shadow_safe = true;
        self
    }

    /// Says which tools the program really sees: the cluster compares them with what the bundle says of them. The handle may
    /// be told of changes while the worker works.
    pub fn tools_seen(mut self, tools: &ToolsSeen) -> WorkerBuilder {
        self.tools = tools.clone();
        self
    }

    /// How long steps may go on after the shutdown began; then they are handed back, which costs no attempt.
    pub fn shutdown_grace(mut self, grace: Duration) -> WorkerBuilder {
        self.shutdown_grace = grace;
        self
    }

    /// Serves a step.
    pub fn step<I, F, Fut>(self, name: impl Into<String>, handle: F) -> WorkerBuilder
    where
        I: DeserializeOwned + Send + 'static,
        F: Fn(StepContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = StepResult<Next>> + Send + 'static,
    {
        self.step_with(name, StepOptions::new(), handle)
    }

    /// Serves a step within limits of its own.
    pub fn step_with<I, F, Fut>(
        mut self,
        name: impl Into<String>,
        options: StepOptions,
        handle: F,
    ) -> WorkerBuilder
    where
        I: DeserializeOwned + Send + 'static,
        F: Fn(StepContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = StepResult<Next>> + Send + 'static,
    {
        self.handlers.insert(name.into(), Handler::new(options, handle));
        self
    }

    /// Serves every step that has no handler of its own.
    pub fn any_step<I, F, Fut>(mut self, handle: F) -> WorkerBuilder
    where
        I: DeserializeOwned + Send + 'static,
        F: Fn(StepContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = StepResult<Next>> + Send + 'static,
    {
        self.handlers.insert_any(Handler::new(StepOptions::new(), handle));
        self
    }

    /// Works for ever.
    ///
    /// # Errors
    /// As for `run_until`.
    pub async fn run(self) -> Result<()> {
        self.run_until(std::future::pending()).await
    }

    /// Works until `stop` is ready; then asks for nothing more, and finishes or hands back what it holds.
    ///
    /// # Errors
    /// `Invalid` when agent, bundle, slots or steps are missing or a name is none; `Rejected` when the cluster does not want this worker:
    /// `BUNDLE_NOT_FOUND`, `BUNDLE_MISMATCH`. A cluster that does not answer is no error: the worker waits for it.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<()> {
        Runtime::new(self.plan()?).run(stop).await
    }

    fn plan(self) -> Result<Plan> {
        let bundle = self.bundle.unwrap_or_default();
        id::check_name("agent", &self.agent)?;
        id::check_name("bundle", &bundle)?;
        if self.slots == 0 || self.handlers.is_empty() {
            return Err(Error::invalid("a worker needs at least one slot and one step"));
        }
        for name in self.handlers.names() {
            id::check_name("step", name)?;
        }
        let namespace = self.namespace.unwrap_or_else(|| self.client.config().namespace.clone());
        let random = self.client.connection().random();
        let made_up = || format!("{}-{bundle}-{:016x}", self.agent, random as u64);
        let worker_id = self.worker_id.unwrap_or_else(made_up);
        let hello = v1::WorkerHello {
            namespace: namespace.clone(),
            agent_id: self.agent,
            bundle_id: bundle,
            worker_id,
            code: self.code.unwrap_or_default(),
            steps: self.handlers.served(),
            slots: self.slots,
            shadow_safe: self.shadow_safe,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            held: Vec::new(),
            tools: Vec::new(),
        };
        Ok(Plan {
            client: self.client.with_namespace(&namespace),
            hello,
            handlers: self.handlers,
            shutdown_grace: self.shutdown_grace,
            tools: self.tools,
        })
    }
}

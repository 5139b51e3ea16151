//! Handlers of steps: typed functions behind one type, and what a worker may say about a step itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use pinrail_proto::v1::{self, Payload};
use serde::de::DeserializeOwned;
use tokio::time::Duration;

use crate::payload;
use crate::worker::context::StepContext;
use crate::worker::outcome::{Next, StepError, StepResult};

pub(crate) type Outcome = v1::complete_step::Outcome;
pub(crate) type Run = Arc<
    dyn Fn(StepContext, Option<Payload>) -> BoxFuture<'static, StepResult<Outcome>> + Send + Sync,
>;

/// Reason of an attempt whose handler panicked.
pub const HANDLER_PANICKED: &str = "HANDLER_PANICKED";

/// Limits that a worker puts on a step. They tighten what the bundle and the agent say, and never loosen it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepOptions {
    pub(crate) start_to_close: Option<Duration>,
    pub(crate) max_attempts: Option<u32>,
}

impl StepOptions {
    /// No limits of its own.
    #[must_use]
    pub fn new() -> StepOptions {
        StepOptions::default()
    }

    /// The longest that one attempt may take here.
    #[must_use]
    pub fn start_to_close(mut self, limit: Duration) -> StepOptions {
        self.start_to_close = Some(limit);
        self
    }

    /// A failure of this attempt or a later one is final.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> StepOptions {
        self.max_attempts = Some(attempts);
        self
    }
}

/// One handler.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) run: Run,
    pub(crate) options: StepOptions,
}

/// Which handler a step has.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    by_name: BTreeMap<String, Handler>,
    /// Of the steps that have none of their own.
    any: Option<Handler>,
}

impl Handlers {
    pub(crate) fn insert(&mut self, name: String, handler: Handler) {
        self.by_name.insert(name, handler);
    }

    pub(crate) fn insert_any(&mut self, handler: Handler) {
        self.any = Some(handler);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Handler> {
        self.by_name.get(name).or(self.any.as_ref())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.any.is_none()
    }

    /// Names that have a handler of their own.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    /// The names as the cluster is told them; none: all steps.
    pub(crate) fn served(&self) -> Vec<String> {
        if self.any.is_some() { Vec::new() } else { self.names().cloned().collect() }
    }
}

impl Handler {
    pub(crate) fn new<I, F, Fut>(options: StepOptions, handle: F) -> Handler
    where
        I: DeserializeOwned + Send + 'static,
        F: Fn(StepContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = StepResult<Next>> + Send + 'static,
    {
        let handle = Arc::new(handle);
        let run: Run = Arc::new(move |context, input| {
            let handle = Arc::clone(&handle);
            let work = async move {
                let input = payload::decode(input.as_ref())
                    .map_err(|error| StepError::fatal("INVALID_INPUT", error))?;
                handle(context, input).await?.into_outcome()
            };
            // Where panics unwind, a panic is a failure like another; the worker goes on.
            let work = AssertUnwindSafe(work).catch_unwind();
            work.map(|ended| ended.unwrap_or_else(|_| Err(panicked()))).boxed()
        });
        Handler { run, options }
    }
}

fn panicked() -> StepError {
    StepError::retry("the handler panicked").with_reason(HANDLER_PANICKED)
}

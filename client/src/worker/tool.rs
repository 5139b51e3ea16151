//! Tools: checked against the bundle's schemas, recorded like a checkpoint, counted, and not called where they must not be.

use std::future::Future;

use jsonschema::Validator;
use pinrail_proto::{reason, v1};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Span;

use crate::payload;
use crate::trace;
use crate::worker::bundle::Tool;
use crate::worker::context::StepContext;
use crate::worker::journal::Place;
use crate::worker::outcome::{StepError, StepResult};

/// Reason of a call whose arguments break the bundle's schema. Another attempt may make better ones.
pub const TOOL_ARGUMENTS: &str = "TOOL_ARGUMENTS";
/// Reason of a call of a tool that the bundle does not have.
pub const TOOL_NOT_FOUND: &str = "TOOL_NOT_FOUND";

/// A tool of the bundle, about to be called.
#[derive(Debug)]
#[must_use]
pub struct ToolCall {
    context: StepContext,
    name: String,
}

impl ToolCall {
    pub(crate) fn new(context: StepContext, name: &str) -> ToolCall {
        ToolCall { context, name: name.to_owned() }
    }

    /// Calls the tool once. The closure gets the arguments and a key that is the same in every attempt; a later attempt
    /// gets the recorded reply instead. A reply that breaks the schema is counted and passed on. In a shadow run and in a drill
    /// a tool with side effects is not called: its stub in the bundle answers, if it has one.
    ///
    /// # Errors
    /// What the closure gives; `TOOL_NOT_FOUND`; `TOOL_ARGUMENTS` when they break the schema; `TOOL_SUPPRESSED` for a tool with
    /// side effects and without a stub in a shadow run or a drill; `CHECKPOINT_MISMATCH` as for a checkpoint.
    pub async fn call<A, R, E, F, Fut>(self, args: A, run: F) -> StepResult<R>
    where
        A: Serialize,
        R: Serialize + DeserializeOwned,
        E: Into<StepError>,
        F: FnOnce(A, String) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        let place = self.context.ask(&format!("tool:{}", self.name))?;
        let key = self.context.idempotency_key(&place.name);
        let span = trace::tool(&self.context, &self.name, &key);
        trace::under(span, self.call_at(place, key, args, run)).await
    }

    async fn call_at<A, R, E, F, Fut>(
        &self,
        place: Place,
        key: String,
        args: A,
        run: F,
    ) -> StepResult<R>
    where
        A: Serialize,
        R: Serialize + DeserializeOwned,
        E: Into<StepError>,
        F: FnOnce(A, String) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        Span::current().record("pinrail.replayed", place.recorded.is_some());
        if let Some(recorded) = &place.recorded {
            return Ok(payload::decode(Some(recorded))?);
        }
        self.check_arguments(&args)?;
        if let Some(stub) = self.stub()? {
            self.context.record(place, payload::encode(&stub)?).await?;
            return Ok(serde_json::from_value(stub)?);
        }
        let reply = run(args, key).await.map_err(Into::into);
        let reply = match reply {
            Ok(reply) => serde_json::to_value(&reply)?,
            Err(error) => {
                self.count(0)?;
                return Err(error);
            }
        };
        let fits = fits(self.tool()?.output.as_ref(), &reply);
        self.count(u64::from(fits.is_err()))?;
        if let Err(message) = fits {
            tracing::warn!(tool = self.name, message, "a tool's reply breaks its schema");
        }
        let value = payload::encode(&reply)?;
        self.context.record(place, value).await?;
        Ok(serde_json::from_value(reply)?)
    }

    fn tool(&self) -> StepResult<&Tool> {
        let bundle = self.context.bundle();
        bundle.checked_tool(&self.name).ok_or_else(|| {
            let message = format!("bundle {} has no tool {:?}", bundle.id(), self.name);
            StepError::fatal(TOOL_NOT_FOUND, message)
        })
    }

    fn check_arguments<A: Serialize>(&self, args: &A) -> StepResult<()> {
        let tool = self.tool()?;
        Span::current().record("pinrail.tool.schema_digest", &tool.schema_digest);
        fits(tool.input.as_ref(), &serde_json::to_value(args)?).map_err(|message| {
            let message = format!("arguments of {:?}: {message}", self.name);
            StepError::retry(message).with_reason(TOOL_ARGUMENTS)
        })
    }

    /// What answers in place of the tool, where that must not be called.
    fn stub(&self) -> StepResult<Option<serde_json::Value>> {
        let tool = self.tool()?;
        if !self.context.inner().suppress || !tool.has_effects() {
            return Ok(None);
        }
        tool.stub.clone().map(Some).ok_or_else(|| {
            let message = format!(
                "{:?} has side effects and no stub, and this run repeats or practises",
                self.name
            );
            StepError::fatal(reason::TOOL_SUPPRESSED.name, message)
        })
    }

    fn count(&self, schema_violations: u64) -> StepResult<()> {
        let tool = self.tool()?;
        self.context.inner().usage.lock().add_tool(v1::ToolUsage {
            tool: self.name.clone(),
            schema_digest: tool.schema_digest.clone(),
            calls: 1,
            schema_violations,
            side_effects: tool.class().to_owned(),
        });
        Ok(())
    }
}

/// The first rule that is broken, with its place.
fn fits(schema: Option<&Validator>, value: &serde_json::Value) -> Result<(), String> {
    let Some(schema) = schema else { return Ok(()) };
    schema
        .validate(value)
        .map_err(|error| format!("{error} at {:?}", error.instance_path().as_str()))
}

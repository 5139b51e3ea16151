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
        // What has begun may have had its effect, whatever is heard of it.
        self.count(v1::ToolUsage { calls: 1, ..v1::ToolUsage::default() })?;
        let reply = run(args, key.clone()).await.map_err(Into::into)?;
        let reply = serde_json::to_value(&reply)?;
        let sampled = self.context.bundle().samples(&key);
        let schema = self.tool()?.output.as_ref().filter(|_| sampled);
        let checked = schema.map(|schema| fits(schema, &reply));
        if let Some(Err(broken)) = &checked {
            let Broken { path, rule } = broken;
            tracing::warn!(tool = self.name, path, rule, "a tool's reply breaks its schema");
        }
        if let Some(checked) = checked {
            self.count(usage_of_check(checked.err()))?;
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
        Span::current().record("pinrail.tool.schema_digest", self.schema_digest(tool));
        let args = serde_json::to_value(args)?;
        let checked = tool.input.as_ref().map_or(Ok(()), |schema| schema.validate(&args));
        checked.map_err(|error| {
            let place = error.instance_path().as_str();
            let message = format!("arguments of {:?}: {error} at {place:?}", self.name);
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

    /// Of the schemas that the program sees, if it said so; else of the bundle's.
    fn schema_digest(&self, tool: &Tool) -> String {
        let seen = self.context.tools_seen().digest(&self.name);
        seen.unwrap_or_else(|| tool.schema_digest.clone())
    }

    /// Adds to what the attempt used of this tool.
    fn count(&self, usage: v1::ToolUsage) -> StepResult<()> {
        let tool = self.tool()?;
        self.context.inner().usage.lock().add_tool(&v1::ToolUsage {
            tool: self.name.clone(),
            schema_digest: self.schema_digest(tool),
            side_effects: tool.class().to_owned(),
            ..usage
        });
        Ok(())
    }
}

/// A reply was checked; `broken`: the rule that it breaks.
fn usage_of_check(broken: Option<Broken>) -> v1::ToolUsage {
    let schema_violations = u64::from(broken.is_some());
    let Broken { path, rule } = broken.unwrap_or_default();
    v1::ToolUsage {
        checked: 1,
        schema_violations,
        violation_path: path,
        violation: rule,
        ..v1::ToolUsage::default()
    }
}

/// The first rule that a value breaks.
#[derive(Debug, Default)]
struct Broken {
    /// A JSON pointer into the value.
    path: String,
    rule: String,
}

fn fits(schema: &Validator, value: &serde_json::Value) -> Result<(), Broken> {
    schema.validate(value).map_err(|error| Broken {
        path: error.instance_path().as_str().to_owned(),
        // Without the value: it may be large, and not be meant for whoever reads this.
        rule: error.masked_with("it").to_string(),
    })
}

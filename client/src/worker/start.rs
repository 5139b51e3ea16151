//! Runs of other agents, started in the middle of a step: once, however often the step is tried.

use pinrail_proto::v1::{self, Payload};
use pinrail_proto::{id, reason};
use serde::Serialize;

use crate::payload;
use crate::worker::context::StepContext;
use crate::worker::journal::Place;
use crate::worker::outcome::{StepError, StepResult};

/// What the ledger of effects calls a start.
const TOOL: &str = "start_run";
/// Nobody can take back what another agent does.
const CLASS: &str = "destructive";

impl StepContext {
    /// Starts a run of another agent of the namespace, where its route leads, and gives its id. It is a tool call like any
    /// other: made once, recorded, counted as an effect that cannot be undone, and not made in runs that serve no user. It
    /// does not wait for the run, and the run does not end with this one; a child of the same agent is
    /// [`Next::child`](crate::worker::Next::child).
    ///
    /// # Errors
    /// `TOOL_SUPPRESSED` in a run that serves no user; `CHECKPOINT_MISMATCH` as for a checkpoint; the cluster's reason when it
    /// refuses the start, which another attempt tries again.
    pub async fn start_run(&self, agent: &str, input: impl Serialize) -> StepResult<String> {
        let place = self.start_place(agent)?;
        self.start_at(place, agent, payload::encode(&input)?).await
    }

    /// Its place among what the step records.
    pub(crate) fn start_place(&self, agent: &str) -> StepResult<Place> {
        self.ask(&start_name(agent))
    }

    pub(crate) async fn start_at(
        &self,
        place: Place,
        agent: &str,
        input: Payload,
    ) -> StepResult<String> {
        if let Some(recorded) = &place.recorded {
            return Ok(payload::decode(Some(recorded))?);
        }
        if !self.kind().serves_users() {
            let message =
                format!("a run of {agent:?} has side effects, and the run serves no user");
            return Err(StepError::fatal(reason::TOOL_SUPPRESSED.name, message));
        }
        // The same in every attempt, so a start whose answer was lost is found again and not made twice.
        let key = self.idempotency_key(&place.name);
        let request = v1::StartRunRequest {
            namespace: self.namespace().to_owned(),
            agent_id: agent.to_owned(),
            run_id: id::derive_run_id(self.namespace(), agent, &key),
            input: Some(input),
            ..v1::StartRunRequest::default()
        };
        let started = self.inner().client.runs().start(request).await;
        let started = started.map_err(|error| {
            let reason = error.reason().to_owned();
            StepError::retry(error).with_reason(reason)
        })?;
        self.inner().usage.lock().add_tool(&v1::ToolUsage {
            tool: TOOL.to_owned(),
            calls: 1,
            side_effects: CLASS.to_owned(),
            ..v1::ToolUsage::default()
        });
        self.record(place, payload::encode(&started.run_id)?).await?;
        Ok(started.run_id)
    }
}

/// Like a tool's, so that it is never passed over.
pub(crate) fn start_name(agent: &str) -> String {
    format!("tool:{TOOL}:{agent}")
}

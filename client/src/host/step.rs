//! The step object: what a program is told of a step before it does it.

use pinrail_proto::{json, v1};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::worker::{CancelReason, StepContext};

use super::protocol::{Cancel, Step};
use super::socket::Socket;

/// The step of this context; `socket`: where to call back, when the program was not told before.
pub(super) fn step(context: &StepContext, input: Value, socket: Option<&Socket>) -> Step {
    let inner = context.inner();
    let mut bundle = json::of(context.bundle().manifest());
    bundle["id"] = context.bundle().id().into();
    let recorded = inner.journal.lock().recorded_by_name();
    let recorded = recorded.into_iter().filter(|(name, _)| !name.starts_with("tool:"));
    let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    Step {
        r#type: "step",
        agent_id: inner.agent.clone(),
        run_id: inner.run_id.clone(),
        step: inner.name.clone(),
        number: inner.step,
        attempt: inner.attempt,
        kind: inner.kind.as_str_name().trim_start_matches("RUN_KIND_").to_lowercase(),
        side_effects: if inner.suppress { "suppress" } else { "allow" },
        labels: inner.labels.clone(),
        session: context.session().map(str::to_owned),
        trace_parent: context.trace_parent(),
        remaining_ms: inner.deadline.map(|at| millis(at.saturating_duration_since(Instant::now()))),
        input,
        woken: inner.woken.as_ref().map(woken),
        last_progress: inner.last_progress.as_ref().map(json::payload),
        bundle,
        checkpoints: recorded.map(|(name, value)| (name, json::payload(&value))).collect(),
        socket: socket.map(ToString::to_string),
    }
}

/// Says to whoever works on the step that it must stop.
pub(super) fn cancel(context: &StepContext, reason: CancelReason) -> Cancel {
    Cancel {
        r#type: "cancel",
        run_id: context.run_id().to_owned(),
        step: context.step_name().to_owned(),
        number: context.step(),
        attempt: context.attempt(),
        reason: word(reason),
    }
}

/// Whose output it is, for the log.
pub(super) fn stamp(context: &StepContext) -> String {
    format!(
        "run={} step={} attempt={} bundle={}",
        context.run_id(),
        context.step_name(),
        context.attempt(),
        context.bundle().id()
    )
}

fn word(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::Requested => "requested",
        CancelReason::MaxAge => "max_age",
        CancelReason::DrainCap => "drain_cap",
        CancelReason::Rollback => "rollback",
        CancelReason::KeepAlive => "keep_alive",
        CancelReason::Parent => "parent",
        CancelReason::Shutdown => "shutdown",
    }
}

fn woken(woken: &v1::Woken) -> Value {
    if let Some(child) = &woken.child {
        let state = child.state().as_str_name().trim_start_matches("RUN_STATE_").to_lowercase();
        let failure = child
            .failure
            .as_ref()
            .map(|failure| json!({ "reason": failure.reason, "message": failure.message }));
        let output = child.output.as_ref().map(json::payload);
        return json!({ "child": {
            "run_id": child.run_id, "state": state, "output": output, "failure": failure,
        } });
    }
    if woken.signal.is_empty() {
        return json!({ "timed_out": true });
    }
    json!({ "signal": woken.signal, "value": woken.value.as_ref().map(json::payload) })
}

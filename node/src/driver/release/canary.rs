//! Canary: each share is held for its time; then comes the next one, and behind the last one the switch.

use pinrail_proto::log::AdvanceCanary;
use pinrail_proto::log::command::Kind;
use pinrail_proto::time::millis;
use pinrail_proto::v1;
use pinrail_state_machine::query::Attended;
use serde_json::json;

use super::super::Dispatch;
use super::{Finding, propose};

pub(super) fn look(it: &Attended) -> Finding {
    let gate = it.policy.gates.as_ref().and_then(|gates| gates.canary.clone()).unwrap_or_default();
    let at = it.release.canary_step;
    let index = usize::try_from(at).unwrap_or(usize::MAX).saturating_sub(1);
    let Some(step) = gate.steps.get(index) else { return Finding::Wait("no step".to_owned()) };
    let hold_ms = step.hold.as_ref().and_then(millis).unwrap_or(0);
    let ends_ms = it.release.canary_step_ms + hold_ms;
    if it.now_ms < ends_ms {
        return Finding::Wait(format!("step {at} of {} is held", gate.steps.len()));
    }
    let evidence = evidence(it, step, gate.steps.len());
    if index + 1 < gate.steps.len() {
        Finding::Advance { evidence }
    } else {
        Finding::pass(format!("{} steps were held", gate.steps.len()), evidence)
    }
}

fn evidence(it: &Attended, step: &v1::CanaryStep, steps: usize) -> serde_json::Value {
    json!({ "step": it.release.canary_step, "steps": steps, "share_bp": step.share_bp })
}

pub(super) async fn advance(dispatch: &Dispatch, it: &Attended, evidence: &serde_json::Value) {
    let command = Kind::AdvanceCanary(AdvanceCanary {
        agent: it.agent,
        release: it.release.number,
        attempt: it.release.attempt,
        step: it.release.canary_step,
        evidence: evidence.to_string(),
    });
    propose(dispatch, it, command).await;
}

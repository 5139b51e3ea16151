//! Smoke: the policy's synthetic inputs run on the candidate; each must be over in time and satisfy what is expected.

use pinrail_proto::v1::RunKind;
use pinrail_state_machine::query::Attended;

use super::super::Dispatch;
use super::super::trial::{Trial, Tried};
use super::Finding;

pub(super) async fn look(dispatch: &Dispatch, it: &Attended) -> Finding {
    let gate = it.policy.gates.as_ref().and_then(|gates| gates.smoke.clone()).unwrap_or_default();
    let trial = Trial {
        namespace: &it.namespace,
        agent_id: &it.agent_id,
        agent: it.agent,
        bundle_id: &it.release.bundle_id,
        kind: RunKind::Smoke,
        id: format!("r{}.smoke.{}", it.release.number, it.release.attempt),
        cases: &gate.cases,
        now_ms: it.now_ms,
    };
    match trial.look(dispatch).await {
        Tried::Wait(reason) => Finding::Wait(reason),
        Tried::Passed(reason, evidence) => Finding::pass(reason, evidence),
        Tried::Failed(reason, evidence) => Finding::fail(reason, evidence),
    }
}

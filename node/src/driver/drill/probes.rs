//! Probes: workers of the bundle that the drill returns to complete runs that serve no user.

use pinrail_proto::log::DrillRecord;
use pinrail_proto::v1::RunKind;
use pinrail_state_machine::query::Drilled;
use serde_json::json;

use super::super::Dispatch;
use super::super::trial::{Trial, Tried};
use super::Finding;

/// Smoke cases that are tried.
const CASES: usize = 3;

pub(super) async fn look(
    dispatch: &Dispatch,
    it: &Drilled,
    drill: &DrillRecord,
    now_ms: u64,
) -> Finding {
    let agent = &it.agent;
    if agent.external || !it.had_worker {
        return Finding::skip("no worker has executed a run of it yet", json!({}));
    }
    let smoke = it.policy.gates.as_ref().and_then(|gates| gates.smoke.as_ref());
    let cases = smoke.map_or(&[][..], |smoke| smoke.cases.as_slice());
    if cases.is_empty() {
        let capacity =
            dispatch.capacity(&agent.namespace, &agent.agent_id, it.probed()).unwrap_or_default();
        let (workers, free) = (capacity.workers, capacity.free_slots);
        let evidence = json!({ "workers": workers, "free_slots": free });
        return if workers == 0 {
            Finding::Wait(format!("{} has no live worker", it.probed()))
        } else {
            let said = format!("no smoke cases to run; {workers} workers, {free} free slots");
            Finding::skip(said, evidence)
        };
    }
    let trial = Trial {
        namespace: &agent.namespace,
        agent_id: &agent.agent_id,
        agent: agent.number,
        bundle_id: it.probed(),
        kind: RunKind::Drill,
        id: format!("d{}.probe", drill.number),
        cases: cases.get(..CASES).unwrap_or(cases),
        now_ms,
    };
    match trial.look(dispatch).await {
        Tried::Wait(reason) => Finding::Wait(reason),
        Tried::Passed(reason, evidence) => Finding::pass(reason, evidence),
        Tried::Failed(reason, evidence) => Finding::fail(reason, evidence),
    }
}

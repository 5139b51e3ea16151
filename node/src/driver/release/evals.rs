//! Evals: what the gate says of the reports that there are, and, where the policy asks for it, runs that bring them.

use pinrail_proto::json;
use pinrail_proto::v1::{EvalJudgement, Verdict};
use pinrail_state_machine::query::Attended;

use super::super::Dispatch;
use super::super::evals::{Question, judge};
use super::Finding;
use super::eval_runs::{Brought, Cannot, bring};

pub(super) async fn look(dispatch: &Dispatch, it: &Attended) -> Finding {
    let gates = it.policy.gates.as_ref();
    let Some(gate) = gates.and_then(|gates| gates.evals.as_ref()) else {
        return Finding::Wait("the policy has no such gate".to_owned());
    };
    if gate.start_runs {
        match bring(dispatch, it, gate).await {
            Ok(Brought::Ready) => {}
            Ok(Brought::Waiting { bundle_id, have, need }) => {
                return Finding::Wait(format!("{have} of {need} runs on {bundle_id}"));
            }
            Err(Cannot::Now(why)) => {
                tracing::warn!(agent = it.agent_id, why, "eval runs wait");
                return Finding::Wait(why);
            }
            Err(Cannot::Ever(reason)) => {
                let (verdict, evidence) = (Verdict::Error, serde_json::json!({ "set": gate.set }));
                return Finding::Judged { verdict, reason, evidence };
            }
        }
    }
    let asked = Question {
        agent: it.agent,
        candidate: &it.release.bundle_id,
        baseline: &it.release.baseline_bundle_id,
        gate,
    };
    match dispatch.inner.replica.read(|read| judge(read, &asked)) {
        Ok(judgement) => finding(&judgement),
        Err(error) => {
            tracing::warn!(%error, "eval reports cannot be read");
            Finding::Wait("the state cannot be read".to_owned())
        }
    }
}

/// What lacks may still come while the stage lasts; everything else is decided.
fn finding(judgement: &EvalJudgement) -> Finding {
    let reason = judgement.message.clone();
    match judgement.verdict() {
        Verdict::InsufficientData => {
            Finding::Wait(format!("{} of {}: {reason}", judgement.have, judgement.need))
        }
        verdict => Finding::Judged { verdict, reason, evidence: json::of(judgement) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_is_waited_for_and_the_rest_is_decided() {
        let mut judgement = EvalJudgement { have: 3, need: 10, ..EvalJudgement::default() };
        judgement.set_verdict(Verdict::InsufficientData);
        "results for 3 of 10".clone_into(&mut judgement.message);
        assert_eq!(finding(&judgement), Finding::Wait("3 of 10: results for 3 of 10".to_owned()));
        judgement.set_verdict(Verdict::Fail);
        let Finding::Judged { verdict, evidence, .. } = finding(&judgement) else {
            panic!("it is decided")
        };
        assert_eq!((verdict, &evidence["verdict"]), (Verdict::Fail, &"fail".into()));
    }
}

//! Canary: each share is held for its time; then comes the next one, and behind the last one the switch. Both wait while a
//! signal fires.

use pinrail_proto::log::AdvanceCanary;
use pinrail_proto::log::command::Kind;
use pinrail_proto::time::millis;
use pinrail_proto::{json, v1};
use pinrail_state_machine::query::Attended;
use serde_json::json;

use super::super::Dispatch;
use super::{Finding, propose, signals};

pub(super) fn look(it: &Attended, watch: Option<&v1::SignalWatch>) -> Finding {
    let gate = it.policy.gates.as_ref().and_then(|gates| gates.canary.clone()).unwrap_or_default();
    let at = it.release.canary_step;
    let index = usize::try_from(at).unwrap_or(usize::MAX).saturating_sub(1);
    let Some(step) = gate.steps.get(index) else { return Finding::Wait("no step".to_owned()) };
    let Some(watch) = watch else { return Finding::Wait("no look at its signals".to_owned()) };
    let evidence = evidence(it, step, gate.steps.len(), watch);
    if let Some(fires) = it.fires {
        let why = format!("{} fires: {}", signals::name(fires), signals::told(watch));
        let is_over = it.release.deadline_ms != 0 && it.now_ms >= it.release.deadline_ms;
        return if is_over { Finding::fail(why, evidence) } else { Finding::Wait(why) };
    }
    let hold_ms = step.hold.as_ref().and_then(millis).unwrap_or(0);
    if it.now_ms < it.release.canary_step_ms + hold_ms {
        return Finding::Wait(format!("step {at} of {} is held", gate.steps.len()));
    }
    if index + 1 < gate.steps.len() {
        Finding::Advance { evidence }
    } else {
        let said = format!("{} steps were held; {}", gate.steps.len(), signals::told(watch));
        Finding::pass(said, evidence)
    }
}

fn evidence(
    it: &Attended,
    step: &v1::CanaryStep,
    steps: usize,
    watch: &v1::SignalWatch,
) -> serde_json::Value {
    json!({
        "step": it.release.canary_step,
        "steps": steps,
        "share_bp": step.share_bp,
        "signals": json::of(watch),
    })
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

#[cfg(test)]
mod tests {
    use super::super::tests::{attended, watch};
    use super::*;
    use pinrail_proto::time::duration;
    use pinrail_proto::v1::{SignalKind, SignalState};

    fn canary(now_ms: u64) -> Attended {
        let steps = vec![v1::CanaryStep { share_bp: 500, hold: Some(duration(60_000)) }];
        let canary = v1::CanaryGate { steps, ..v1::CanaryGate::default() };
        let gates = v1::GatesPolicy { canary: Some(canary), ..v1::GatesPolicy::default() };
        let mut it = attended(now_ms);
        it.policy.gates = Some(gates);
        it.release.canary_step = 1;
        it.release.canary_step_ms = 1_000;
        it.release.deadline_ms = 500_000;
        it
    }

    fn said(it: &Attended, watch: Option<&v1::SignalWatch>) -> String {
        match look(it, watch) {
            Finding::Wait(why) => format!("wait: {why}"),
            Finding::Judged { verdict, reason, .. } => format!("{verdict:?}: {reason}"),
            Finding::Advance { .. } => "advance".to_owned(),
        }
    }

    #[test]
    fn it_passes_when_its_time_is_over_and_nothing_fires() {
        let few = watch(SignalState::InsufficientData, "p95 3 of 50");
        assert_eq!(said(&canary(2_000), None), "wait: no look at its signals");
        assert_eq!(said(&canary(2_000), Some(&few)), "wait: step 1 of 1 is held");
        assert_eq!(said(&canary(61_000), Some(&few)), "Pass: 1 steps were held; p95 3 of 50");
    }

    #[test]
    fn it_waits_while_a_signal_fires_and_fails_when_its_time_is_over() {
        let high = watch(SignalState::Firing, "p95 +40 %");
        let fires = |now_ms| Attended { fires: Some(SignalKind::P95Latency), ..canary(now_ms) };
        assert_eq!(said(&fires(61_000), Some(&high)), "wait: p95_latency fires: p95 +40 %");
        assert_eq!(said(&fires(500_000), Some(&high)), "Fail: p95_latency fires: p95 +40 %");
    }
}

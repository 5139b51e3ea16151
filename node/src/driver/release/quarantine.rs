//! Behind the switch: the quarantine ends on clean signals when its time is over; then the standby waits for its last pins.

use pinrail_proto::{json, v1};
use pinrail_state_machine::query::Attended;
use serde_json::json;

use super::{Finding, signals};

pub(super) fn look(it: &Attended, watch: Option<&v1::SignalWatch>) -> Finding {
    if it.now_ms < it.release.quarantine_until_ms {
        return Finding::Wait("its time".to_owned());
    }
    let Some(watch) = watch else { return Finding::Wait("no look at its signals".to_owned()) };
    let said = signals::told(watch);
    if let Some(fires) = it.fires {
        return Finding::Wait(format!("{} fires: {said}", signals::name(fires)));
    }
    let lacking = signals::lacking(watch);
    let is_latest = it.now_ms >= it.release.quarantine_latest_ms;
    if let Some(lacking) = lacking.as_ref().filter(|_| !is_latest) {
        return Finding::Wait(format!("too few runs: {lacking}"));
    }
    let evidence = json!({
        "held_ms": it.now_ms.saturating_sub(it.release.switched_ms),
        "signals": json::of(watch),
    });
    let clean = match lacking {
        None => "clean",
        // Whoever waits longer than the policy's longest time waits for nothing.
        Some(_) => "too few runs count as clean at its latest",
    };
    Finding::pass(format!("{clean}: {said}"), evidence)
}

pub(super) fn look_at_pins(it: &Attended) -> Finding {
    if it.baseline_pins > 0 {
        return Finding::Wait(format!("{} open pins of the standby", it.baseline_pins));
    }
    Finding::pass("no open pins", json!({ "open_pins": 0 }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{attended, watch};
    use super::*;
    use pinrail_proto::v1::{SignalKind, SignalState};

    fn said(now_ms: u64, fires: Option<SignalKind>, watch: &v1::SignalWatch) -> String {
        let mut it = attended(now_ms);
        it.release.quarantine_until_ms = 10_000;
        it.release.quarantine_latest_ms = 30_000;
        it.fires = fires;
        match look(&it, Some(watch)) {
            Finding::Wait(why) => format!("wait: {why}"),
            Finding::Judged { verdict, reason, .. } => format!("{verdict:?}: {reason}"),
            Finding::Advance { .. } => panic!("a canary"),
        }
    }

    #[test]
    fn it_ends_on_clean_signals_or_for_lack_of_runs_at_its_latest() {
        let ok = watch(SignalState::Ok, "p95 +2 %");
        assert_eq!(said(9_999, None, &ok), "wait: its time");
        assert_eq!(said(10_000, None, &ok), "Pass: clean: p95 +2 %");
        let few = watch(SignalState::InsufficientData, "p95 3 of 50");
        assert_eq!(said(29_999, None, &few), "wait: too few runs: p95 3 of 50");
        let at_latest = "Pass: too few runs count as clean at its latest: p95 3 of 50";
        assert_eq!(said(30_000, None, &few), at_latest);
        let fires = Some(SignalKind::P95Latency);
        let high = watch(SignalState::Firing, "p95 +40 %");
        assert_eq!(said(99_000, fires, &high), "wait: p95_latency fires: p95 +40 %");
    }
}

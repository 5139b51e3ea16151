//! What is seen behind the rollback: memory, and the runs in flight.

use pinrail_proto::log::DrillRecord;
use pinrail_proto::v1::{InFlight, RunState};
use pinrail_state_machine::query::{self, DRILL_LIVE, DRILL_STANDBY, Drilled};
use serde_json::json;

use super::super::Dispatch;
use super::super::state::ask;
use super::prepare::{GOOD, HIDDEN, KEPT, runs};
use super::{Finding, is_live, route};

/// The good bundle's layer is active again: what it wrote is there, and what the other one wrote is not.
pub(super) fn memory(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord) -> Finding {
    let at = route(it);
    let look = |key: &str| {
        ask(&dispatch.inner.replica, |read| {
            query::memory_get(read, &at.namespace, &at.agent_id, None, key, 0)
        })
    };
    let (kept, hidden) = match (look(KEPT), look(HIDDEN)) {
        (Ok(kept), Ok(hidden)) => (kept, hidden),
        (Err(error), _) | (_, Err(error)) => return Finding::Wait(error.to_string()),
    };
    let layer = kept.layer;
    if is_live(drill) {
        let evidence = json!({ "layer": layer, "before": drill.layer });
        return if layer == u64::from(drill.layer) {
            Finding::pass(format!("layer {layer}, as before the switch"), evidence)
        } else {
            Finding::fail(format!("layer {layer}, not {}", drill.layer), evidence)
        };
    }
    let value = kept.version.and_then(|version| version.value).unwrap_or_default();
    let value = String::from_utf8_lossy(&value.data).into_owned();
    let evidence = json!({ "layer": layer, "kept": value, "hidden": !hidden.found });
    if value != GOOD {
        return Finding::fail(format!("{KEPT} is {value:?}, not {GOOD:?}"), evidence);
    }
    if hidden.found {
        return Finding::fail(format!("{HIDDEN} is still to be seen"), evidence);
    }
    Finding::pass(format!("layer {layer}: one key as it was, one hidden"), evidence)
}

/// Runs of the bundle that was left are what the policy says.
pub(super) fn in_flight(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord) -> Finding {
    if is_live(drill) {
        let (open, bundle) = (drill.open_runs, &drill.from_bundle_id);
        let reason = format!("{open} open runs of {bundle} were kept");
        return Finding::pass(reason, json!({ "open_runs": open }));
    }
    let wanted = drill.in_flight();
    let at = route(it);
    let runs = runs(it, drill);
    let (mut done, mut told) = (0, Vec::new());
    for run_id in &runs {
        let run = ask(&dispatch.inner.replica, |read| {
            query::run(read, &at.namespace, &at.agent_id, run_id)
        });
        let run = match run {
            Ok(run) => run,
            Err(error) => return Finding::Wait(error.to_string()),
        };
        let bundle = run.pin.as_ref().map(|pin| pin.bundle_id.clone()).unwrap_or_default();
        done += usize::from(is_as_wanted(wanted, run.state(), &bundle));
        told.push(json!({ "run": run_id, "state": run.state().as_str_name(), "bundle": bundle }));
    }
    let word = match wanted {
        InFlight::Unspecified | InFlight::Keep => "kept",
        InFlight::Cancel => "cancelled",
        InFlight::Restart => "restarted on the good bundle",
    };
    let evidence = json!({ "in_flight": wanted.as_str_name(), "runs": told });
    let reason = format!("{done} of {} runs {word}", runs.len());
    if done == runs.len() { Finding::pass(reason, evidence) } else { Finding::Wait(reason) }
}

fn is_as_wanted(wanted: InFlight, state: RunState, bundle: &str) -> bool {
    let is_open = state == RunState::Queued;
    match wanted {
        InFlight::Unspecified | InFlight::Keep => is_open && bundle == DRILL_LIVE,
        InFlight::Cancel => state == RunState::Cancelled,
        InFlight::Restart => is_open && bundle == DRILL_STANDBY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_wants_its_runs_elsewhere() {
        use InFlight::{Cancel, Keep, Restart};
        let queued = RunState::Queued;
        assert!(is_as_wanted(Keep, queued, DRILL_LIVE));
        assert!(!is_as_wanted(Keep, RunState::Cancelled, DRILL_LIVE));
        assert!(is_as_wanted(Cancel, RunState::Cancelled, DRILL_LIVE));
        assert!(!is_as_wanted(Cancel, queued, DRILL_LIVE));
        assert!(is_as_wanted(Restart, queued, DRILL_STANDBY));
        assert!(!is_as_wanted(Restart, queued, DRILL_LIVE));
    }
}

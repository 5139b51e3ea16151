//! Behind the switch: the quarantine ends when its time is over; then the standby waits for its last pins.

use pinrail_state_machine::query::Attended;
use serde_json::json;

use super::Finding;

pub(super) fn look(it: &Attended) -> Finding {
    if it.now_ms < it.release.quarantine_until_ms {
        return Finding::Wait("its time".to_owned());
    }
    let evidence = json!({ "held_ms": it.now_ms.saturating_sub(it.release.switched_ms) });
    Finding::pass("its time is over", evidence)
}

pub(super) fn look_at_pins(it: &Attended) -> Finding {
    if it.baseline_pins > 0 {
        return Finding::Wait(format!("{} open pins of the standby", it.baseline_pins));
    }
    Finding::pass("no open pins", json!({ "open_pins": 0 }))
}

//! P1: a child runs on its parent's pin.

use super::{Found, Scene};

/// A child's pin was its parent's when it was made, and it never outlives it: while both are as they were pinned first they
/// have one bundle and one layer, and the child's end is no later.
pub(super) fn children_have_their_parents_pin(scene: &Scene<'_>, found: &mut Found) {
    for child in scene.open_runs().filter(|run| !run.parent_run_id.is_empty()) {
        let Some(parent) = scene.runs.get(&child.parent_run_id) else { continue };
        let same_pin = child.bundle_id == parent.bundle_id && child.layer == parent.layer;
        // A parent that was moved by a rollback ends its children when they are next looked at; a drain moves both, one by one.
        let moved = parent.restarts > 0 || parent.repins > 0 || child.repins > 0;
        if !same_pin && !moved {
            let detail = format!("{} is on {}", child.run_id, child.bundle_id);
            found.say("P1", format!("{detail}, its parent on {}", parent.bundle_id));
        }
        if child.expires_ms > parent.expires_ms {
            found.say("P4", format!("{} outlives {}", child.run_id, parent.run_id));
        }
    }
}

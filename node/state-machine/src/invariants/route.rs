//! P3 and P7: the route leads to one bundle, and a rollback holds.

use pinrail_proto::v1::{InFlight, RunState};

use crate::key::Timer;

use super::{Found, Scene};

/// P3: the route names bundles that exist, not the same one twice, and the live one does not drain.
pub(super) fn route_leads_to_one_bundle(scene: &Scene<'_>, found: &mut Found) {
    let (live, standby) = (&scene.agent.live_bundle_id, &scene.agent.standby_bundle_id);
    for id in [live, standby] {
        if !id.is_empty() && !scene.bundles.contains_key(id) {
            found.say("P3", format!("the route names {id}, which is not there"));
        }
    }
    if !live.is_empty() && live == standby {
        found.say("P3", "live and standby are the same bundle".to_owned());
    }
    if let Some(record) = scene.bundles.get(live) {
        if record.drain_deadline_ms != 0 {
            found.say("P4", format!("{live} is live and drains"));
        }
        if !record.was_live || record.layer == 0 {
            found.say("P3", format!("{live} is live and was never switched to"));
        }
    }
}

/// P7: a bundle that was rolled back takes no new runs by the route, and once its sweep is through no run that
/// the rollback meant is left, but those that wait for a person.
pub(super) fn rollbacks_hold(scene: &Scene<'_>, found: &mut Found) {
    for record in scene.bundles.values() {
        let id = &record.bundle_id;
        if record.rejected
            && [&scene.agent.live_bundle_id, &scene.agent.standby_bundle_id].contains(&id)
        {
            found.say("P7", format!("{id} was rolled back and is routed"));
        }
        let Some(mark) = &record.mark else { continue };
        let is_swept = !scene.timers.iter().any(|due| {
            due.timer == Timer::RollbackSweep && due.object == record.bundle_id.as_bytes()
        });
        if mark.sweeping && is_swept {
            found.say("P7", format!("no sweep will come by the runs of {id}"));
        }
        if mark.sweeping {
            continue;
        }
        for run in scene.open_runs().filter(|run| run.bundle_id == *id) {
            let held = mark.in_flight() == InFlight::Restart
                && run.destructive
                && run.state() == RunState::Paused;
            if run.pinned_revision <= mark.revision && !held {
                found.say("P7", format!("{} outlived the rollback of {id}", run.run_id));
            }
        }
    }
}

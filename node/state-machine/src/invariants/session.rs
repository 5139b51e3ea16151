//! P3 and P4 for sessions: their pins end, and who waits for a turn gets it.

use pinrail_proto::log::SessionRecord;

use crate::key::{Kind, Timer};
use crate::store::Fault;
use crate::txn::decode;

use super::{Found, Scene};

/// Each session's pin ends, a run that waits for its turn has made no step, and the first of a session either does not wait
/// or is about to be told.
pub(super) fn sessions_go_on(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    for (key, value) in scene.rows(Kind::Session)? {
        let record: SessionRecord = decode(&key, &value)?;
        let ends = |timer| {
            scene
                .timers
                .iter()
                .any(|due| due.timer == timer && due.object == record.session.as_bytes())
        };
        if !ends(Timer::Session) {
            found.say("P4", format!("the pin of session {} has no end", record.session));
        }
        if !scene.bundles.contains_key(&record.bundle_id) {
            found.say("P3", format!("session {} is pinned to no bundle", record.session));
        }
    }
    for run in scene.open_runs().filter(|run| run.awaits_turn) {
        if run.step != 0 {
            found.say("P2", format!("{} waits for its turn and has steps", run.run_id));
        }
        let before = scene.open_runs().any(|other| {
            other.session == run.session
                && other.session_place != 0
                && (other.session_place, &other.run_id) < (run.session_place, &run.run_id)
        });
        let told = scene
            .timers
            .iter()
            .any(|due| due.timer == Timer::SessionTurn && due.object == run.run_id.as_bytes());
        if !before && !told {
            found.say("P4", format!("{} waits for a turn that never comes", run.run_id));
        }
    }
    Ok(())
}

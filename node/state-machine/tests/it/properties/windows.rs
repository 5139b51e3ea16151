//! What the windows of signals counted, and what runs said when they ended.

use std::collections::BTreeMap;

use pinrail_proto::log::SliceRecord;
use pinrail_proto::v1::{self, EndReason, RunKind, RunState};
use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::key::{Kind, Parts};
use pinrail_state_machine::outcome::Applied;
use pinrail_state_machine::query;
use pinrail_state_machine::store::MemoryStore;
use prost::Message as _;

use crate::replica::Replica;

use super::player::AGENTS;

/// By agent's number, bundle and kind: runs that completed, failed and were cancelled.
pub(super) type Counts = BTreeMap<(u32, String, i32), [u64; 3]>;

/// The sums over all slices. No story is as long as a baseline is kept.
pub(super) fn counted(store: &MemoryStore) -> Counts {
    let mut counts = Counts::new();
    for (key, value) in store.rows().filter(|(key, _)| key[0] == Kind::SignalSlice as u8) {
        let mut parts = Parts::new(key);
        let (agent, bundle, kind) = (parts.u32(), parts.text(), parts.u8());
        let slice = SliceRecord::decode(value.clone()).unwrap();
        let cohort = (agent.unwrap(), bundle.unwrap().to_owned(), i32::from(kind.unwrap()));
        let sums = counts.entry(cohort).or_default();
        let these = [slice.completed, slice.failed, slice.cancelled];
        sums.iter_mut().zip(these).for_each(|(sum, it)| *sum += it);
    }
    counts.retain(|_, sums| *sums != [0; 3]);
    counts
}

/// Adds what the runs say that a command ended. Later they are forgotten.
pub(super) fn note(said: &mut Counts, replica: &Replica, applied: &Applied) {
    for effect in &applied.effects {
        let Effect::RunClosed { agent, run_id } = effect else { continue };
        let name = AGENTS[usize::try_from(*agent).unwrap() - 1];
        let run = query::run(replica.read(), "", name, run_id).unwrap();
        let bundle_id = run.pin.clone().unwrap_or_default().bundle_id;
        let is_compared = matches!(run.kind(), RunKind::Live | RunKind::Canary | RunKind::Shadow);
        let counts = is_compared && !bundle_id.is_empty() && run.parent_run_id.is_empty();
        if let Some(place) = place(&run).filter(|_| counts) {
            said.entry((*agent, bundle_id, run.kind)).or_default()[place] += 1;
        }
    }
}

fn place(run: &v1::Run) -> Option<usize> {
    let out_of_time = matches!(run.end_reason(), EndReason::MaxAge | EndReason::KeepAlive);
    match run.state() {
        RunState::Completed => Some(0),
        RunState::Failed => Some(1),
        RunState::Expired if out_of_time => Some(1),
        RunState::Expired | RunState::Cancelled => Some(2),
        _ => None,
    }
}

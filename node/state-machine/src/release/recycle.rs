//! Recycling: the environment and the memory of a bundle that nobody returns to are given up.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, BundleRecord, RecycleBundle, ReleaseRecord};
use pinrail_proto::reason;
use pinrail_proto::v1::{self, LateWrites, RecycleBundleResponse, ReleaseState};

use crate::effect::Effect;
use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, drift, event, memory, signal};

use super::end;

pub(crate) fn recycle(txn: &mut Txn<'_>, it: &RecycleBundle) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let record = bundle::load(txn, agent.number, &it.bundle_id)?;
    agent::expect_revision(txn, record.revision)?;
    let already = record.recycled;
    if !already {
        let mut blockers = blockers(txn, &agent, &record)?;
        if record.bundle_id == agent.standby_bundle_id {
            blockers.push("it is the standby: a rollback returns to it".to_owned());
        }
        refuse(&record, &blockers)?;
        give_up(txn, &mut agent, record)?;
        agent::save(txn, &agent);
    }
    Ok(Answer::RecycleBundle(RecycleBundleResponse {
        agent_id: agent.agent_id.clone(),
        bundle_id: it.bundle_id.clone(),
        already,
        revision: txn.revision,
    }))
}

/// The last stage of a release: its standby is recycled. The caller saves agent and release.
pub(super) fn at_the_end(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    release: &mut ReleaseRecord,
) -> Result<(), Stop> {
    let standby = bundle::load(txn, agent.number, &release.baseline_bundle_id)?;
    refuse(&standby, &blockers(txn, agent, &standby)?)?;
    agent.standby_bundle_id.clear();
    agent.quarantine_release = 0;
    give_up(txn, agent, standby)?;
    end::finish(txn, agent, release, ReleaseState::Recycled, "")
}

/// What keeps a bundle from being recycled, one by one.
pub(super) fn blockers(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    record: &BundleRecord,
) -> Result<Vec<String>, Stop> {
    let mut blockers = Vec::new();
    if record.bundle_id == agent.live_bundle_id {
        blockers.push("it is live".to_owned());
    }
    if record.bundle_id == agent.candidate_bundle_id {
        blockers.push("it is being released".to_owned());
    }
    let pins = bundle::open_pins(record);
    if pins > 0 {
        blockers.push(format!("{pins} open pins"));
    }
    let policy = agent::policy(txn.read(), agent.number)?;
    let late =
        policy.memory.as_ref().map_or(LateWrites::Unspecified, v1::MemoryPolicy::late_writes);
    let layer = memory::layer(txn.read(), agent.number, record.layer)?;
    let late_writes = layer.map_or(0, |layer| layer.late_writes);
    if late == LateWrites::BlockRecycle && late_writes > 0 {
        blockers.push(format!("{late_writes} late writes to its memory"));
    }
    Ok(blockers)
}

fn refuse(record: &BundleRecord, blockers: &[String]) -> Result<(), Stop> {
    if blockers.is_empty() {
        return Ok(());
    }
    let message =
        format!("bundle {} cannot be recycled: {}", record.bundle_id, blockers.join("; "));
    let mut stop = reject(reason::RECYCLE_BLOCKED, message);
    for (number, blocker) in (1..).zip(blockers) {
        stop = stop.with(&format!("blocker_{number}"), blocker);
    }
    Err(stop)
}

fn give_up(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    mut record: BundleRecord,
) -> Result<(), Stop> {
    crate::route::forget_drain(txn, agent, &mut record);
    record.recycled = true;
    record.recycled_revision = txn.revision;
    record.revision = txn.revision;
    bundle::count_out(txn, agent)?;
    memory::drop_unseen(txn, agent.number, record.layer);
    signal::forget(txn, agent.number, &record.bundle_id)?;
    drift::forget(txn, agent.number, &mut record)?;
    let layer = memory::layer(txn.read(), agent.number, record.layer)?;
    bundle::save(txn, agent.number, &record);
    txn.event(
        event::of_bundle("bundle.recycled", agent, &record.bundle_id)
            .with("late_writes", layer.map_or(0, |layer| layer.late_writes)),
    );
    txn.effect(Effect::AgentChanged { agent: agent.number });
    Ok(())
}

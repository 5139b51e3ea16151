//! The brake: no new leases for an agent or one of its bundles. Held steps finish; pins still end at their caps.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, PauseAgent, ResumeAgent};
use pinrail_proto::v1;

use crate::bundle;
use crate::effect::Effect;
use crate::event;
use crate::outcome::Stop;
use crate::store::{Fault, Read};
use crate::txn::Txn;

use super::{answer, expect_revision, load_by_ref, save};

pub(crate) fn pause(txn: &mut Txn<'_>, it: &PauseAgent) -> Result<Answer, Stop> {
    set(txn, it.agent.as_ref(), &it.bundle_id, true, it.reject)
}

pub(crate) fn resume(txn: &mut Txn<'_>, it: &ResumeAgent) -> Result<Answer, Stop> {
    set(txn, it.agent.as_ref(), &it.bundle_id, false, false)
}

fn set(
    txn: &mut Txn<'_>,
    agent: Option<&pinrail_proto::log::AgentRef>,
    bundle_id: &str,
    paused: bool,
    reject_starts: bool,
) -> Result<Answer, Stop> {
    let mut agent = load_by_ref(txn, agent)?;
    expect_revision(txn, agent.revision)?;
    if bundle_id.is_empty() {
        if (agent.paused, agent.reject_starts) == (paused, reject_starts) {
            return answer(txn, &agent, true);
        }
        agent.paused = paused;
        agent.reject_starts = reject_starts;
    } else {
        let mut record = bundle::load(txn, agent.number, bundle_id)?;
        if (record.paused, record.reject_starts) == (paused, reject_starts) {
            return answer(txn, &agent, true);
        }
        record.paused = paused;
        record.reject_starts = reject_starts;
        record.revision = txn.revision;
        bundle::save(txn, agent.number, &record);
    }
    agent.revision = txn.revision;
    save(txn, &agent);
    let kind = if paused { "agent.paused" } else { "agent.resumed" };
    txn.event(event::of_bundle(kind, &agent, bundle_id));
    txn.effect(Effect::AgentChanged { agent: agent.number });
    answer(txn, &agent, false)
}

pub(super) fn message(read: &dyn Read, agent: &AgentRecord) -> Result<v1::Pause, Fault> {
    let bundles = bundle::all(read, agent.number)?;
    Ok(v1::Pause {
        paused: agent.paused,
        reject: agent.reject_starts,
        bundle_ids: bundles.into_iter().filter(|b| b.paused).map(|b| b.bundle_id).collect(),
    })
}

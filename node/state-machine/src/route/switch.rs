//! The switch: the atomic route change that makes a bundle live. Only this is called a switch.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, Switch};
use pinrail_proto::{reason, v1};

use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, event, memory};

use super::{drain, moved};

pub(crate) fn switch(txn: &mut Txn<'_>, it: &Switch) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    agent::expect_revision(txn, agent.revision)?;
    if it.expected_epoch != 0 && it.expected_epoch != agent.epoch {
        let message = format!("the route's epoch is {}, not {}", agent.epoch, it.expected_epoch);
        return Err(reject(reason::ROUTE_CHANGED, message)
            .with("epoch", agent.epoch)
            .with("live_bundle_id", &agent.live_bundle_id));
    }
    let mut to = bundle::load(txn, agent.number, &it.bundle_id)?;
    if agent.live_bundle_id == it.bundle_id {
        return answer(&agent, "", &it.bundle_id, true, None, txn.revision);
    }
    let forced = to.rejected;
    if forced && (!it.force || txn.header.reason.is_empty()) {
        let message = format!("bundle {} was rolled back", to.bundle_id);
        return Err(
            reject(reason::BUNDLE_REJECTED, message).with("override", "--force with --reason")
        );
    }

    let from = match agent.live_bundle_id.as_str() {
        "" => None,
        live => Some(bundle::load(txn, agent.number, live)?),
    };
    memory::open_layer_for_switch(txn, &mut agent, &mut to, from.as_ref())?;
    drain::clear(txn, agent.number, &mut to);
    to.rejected = false;
    to.was_live = true;
    to.last_rollback = None;
    to.revision = txn.revision;
    bundle::save(txn, agent.number, &to);

    let left = agent.live_bundle_id.clone();
    agent.standby_bundle_id.clone_from(&left);
    agent.live_bundle_id.clone_from(&to.bundle_id);
    moved(txn, &mut agent);
    let drain = match from {
        None => None,
        Some(mut from) => {
            drain::begin(txn, &agent, &mut from);
            bundle::save(txn, agent.number, &from);
            Some(drain::message(txn.read(), &agent, &from)?)
        }
    };
    agent::save(txn, &agent);
    let mut switched =
        event::of_bundle("route.switched", &agent, &to.bundle_id).with("epoch", agent.epoch);
    if !left.is_empty() {
        switched = switched.with("from", &left);
    }
    txn.event(if forced { switched.with("forced", true) } else { switched });
    answer(&agent, &left, &to.bundle_id, false, drain, txn.revision)
}

fn answer(
    agent: &AgentRecord,
    from: &str,
    to: &str,
    already: bool,
    drain: Option<v1::Drain>,
    revision: u64,
) -> Result<Answer, Stop> {
    Ok(Answer::Switch(v1::SwitchResponse {
        agent_id: agent.agent_id.clone(),
        from_bundle_id: from.to_owned(),
        to_bundle_id: to.to_owned(),
        epoch: agent.epoch,
        already,
        drain,
        revision,
    }))
}

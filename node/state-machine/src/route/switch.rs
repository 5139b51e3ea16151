//! The switch: the atomic route change that makes a bundle live. Only this is called a switch.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, BundleRecord, Switch};
use pinrail_proto::{reason, v1};

use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, drill, event, memory, release};

use super::{drain, moved};

/// A switch by hand: a release with the stages prepare and switch only. The first live bundle has nothing to be compared
/// with and nothing to return to: its switch is no release.
pub(crate) fn switch(txn: &mut Txn<'_>, it: &Switch) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    agent::expect_revision(txn, agent.revision)?;
    if it.expected_epoch != 0 && it.expected_epoch != agent.epoch {
        let message = format!("the route's epoch is {}, not {}", agent.epoch, it.expected_epoch);
        return Err(reject(reason::ROUTE_CHANGED, message)
            .with("epoch", agent.epoch)
            .with("live_bundle_id", &agent.live_bundle_id));
    }
    drill::give_up(txn, &mut agent, "a switch took its place")?;
    let mut to = bundle::load(txn, agent.number, &it.bundle_id)?;
    let mut answer = v1::SwitchResponse {
        agent_id: agent.agent_id.clone(),
        to_bundle_id: it.bundle_id.clone(),
        revision: txn.revision,
        ..v1::SwitchResponse::default()
    };
    if agent.live_bundle_id == it.bundle_id {
        return Ok(Answer::Switch(Box::new(v1::SwitchResponse {
            epoch: agent.epoch,
            already: true,
            ..answer
        })));
    }
    if to.rejected && (!it.force || txn.header.reason.is_empty()) {
        let message = format!("bundle {} was rolled back", to.bundle_id);
        return Err(
            reject(reason::BUNDLE_REJECTED, message).with("override", "--force with --reason")
        );
    }
    answer.from_bundle_id.clone_from(&agent.live_bundle_id);
    if agent.live_bundle_id.is_empty() && agent.active_release == 0 {
        bundle::revive(txn, &mut agent, &mut to)?;
        answer.drain = make_live(txn, &mut agent, to)?;
    } else {
        let (mut release, skipped) = release::by_hand(txn, &mut agent, &mut to, it)?;
        bundle::save(txn, agent.number, &to);
        answer.drain = release::switch(txn, &mut agent, &mut release)?;
        release::save(txn, agent.number, &mut release);
        answer.release_id = release::id(release.number);
        answer.skipped = skipped.into_iter().map(Into::into).collect();
    }
    agent::save(txn, &agent);
    answer.epoch = agent.epoch;
    Ok(Answer::Switch(Box::new(answer)))
}

/// Makes a bundle live, whatever led there. Answers the drain of the bundle that was. The caller saves the agent.
pub(crate) fn make_live(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    mut to: BundleRecord,
) -> Result<Option<v1::Drain>, Stop> {
    let from = match agent.live_bundle_id.as_str() {
        "" => None,
        live => Some(bundle::load(txn, agent.number, live)?),
    };
    memory::open_layer_for_switch(txn, agent, &mut to, from.as_ref())?;
    drain::clear(txn, agent.number, &mut to);
    let was_rejected = to.rejected;
    to.rejected = false;
    to.was_live = true;
    to.last_rollback = None;
    to.revision = txn.revision;
    bundle::save(txn, agent.number, &to);

    let left = agent.live_bundle_id.clone();
    agent.standby_bundle_id.clone_from(&left);
    agent.live_bundle_id.clone_from(&to.bundle_id);
    moved(txn, agent);
    let drain = match from {
        None => None,
        Some(mut from) => {
            drain::begin(txn, agent, &mut from);
            bundle::save(txn, agent.number, &from);
            Some(drain::message(txn.read(), agent, &from)?)
        }
    };
    let mut switched =
        event::of_bundle("route.switched", agent, &to.bundle_id).with("epoch", agent.epoch);
    if !left.is_empty() {
        switched = switched.with("from", &left);
    }
    txn.event(if was_rejected { switched.with("forced", true) } else { switched });
    Ok(drain)
}

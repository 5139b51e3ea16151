//! The compute of a bundle: what the cluster wants of it, and the endpoint that somebody set.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, BundleRecord, SetEnvironment};
use pinrail_proto::v1::{self, BundleState, Want};
use pinrail_proto::{limits, reason};

use crate::agent::policy;
use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, event};

use super::{load, open_pins, save, state};

pub(crate) fn set(txn: &mut Txn<'_>, it: &SetEnvironment) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut bundle = load(txn, agent.number, &it.bundle_id)?;
    agent::expect_revision(txn, bundle.endpoint_revision)?;
    if it.endpoint.len() > limits::ENDPOINT_BYTES {
        return Err(policy::too_large("endpoint bytes", it.endpoint.len(), limits::ENDPOINT_BYTES));
    }
    if it.endpoint.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(reject(
            reason::INVALID_REQUEST,
            "an endpoint has no spaces or control characters",
        ));
    }
    bundle.endpoint.clone_from(&it.endpoint);
    bundle.endpoint_revision = txn.revision;
    bundle.revision = txn.revision;
    save(txn, agent.number, &bundle);
    txn.event(
        event::of_bundle("environment.set", &agent, &it.bundle_id).with("endpoint", &it.endpoint),
    );
    Ok(Answer::Environment(message(&agent, &bundle)))
}

/// Why the compute of a bundle that is not routed is kept.
pub(super) const OPEN_PINS: &str = "open pins";

/// What is wanted, why, and how many free slots: it follows from the route and the pins; unknown never reads as off.
pub(super) fn wanted(agent: &AgentRecord, bundle: &BundleRecord) -> (Want, &'static str, u32) {
    // A drill's own route has no compute: nothing is to be started for it.
    if agent.drill_of != 0 {
        return (Want::Off, "a drill's own route", 0);
    }
    let (want, why) = match state(agent, bundle) {
        BundleState::Live => (Want::Serve, "live"),
        BundleState::Standby => (Want::Warm, "standby"),
        BundleState::Candidate | BundleState::Canary => (Want::Warm, "candidate"),
        BundleState::Unspecified
        | BundleState::Registered
        | BundleState::Draining
        | BundleState::Lingering
        | BundleState::Recyclable
        | BundleState::Recycled
        | BundleState::Rejected => {
            if open_pins(bundle) > 0 {
                (Want::Warm, OPEN_PINS)
            } else {
                (Want::Off, "not routed, no open pins")
            }
        }
    };
    (want, why, if want == Want::Off { 0 } else { agent.min_slots })
}

/// The API's view of it.
pub(crate) fn message(agent: &AgentRecord, bundle: &BundleRecord) -> v1::Environment {
    let (want, why, slots) = wanted(agent, bundle);
    v1::Environment {
        agent_id: agent.agent_id.clone(),
        bundle_id: bundle.bundle_id.clone(),
        want: want.into(),
        reason: why.to_owned(),
        endpoint: bundle.endpoint.clone(),
        open_pins: open_pins(bundle),
        revision: bundle.endpoint_revision,
        slots,
    }
}

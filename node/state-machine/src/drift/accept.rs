//! Somebody looked at what drifted and lives with it.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AcceptDrift, AgentRecord, DriftRecord, DriftResult};
use pinrail_proto::reason;
use pinrail_proto::v1::DriftState;

use crate::effect::Effect;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle};

use super::place::Place;
use super::row::{of_place, put, state};
use super::show::{Filter, message, rows};

pub(crate) fn accept(txn: &mut Txn<'_>, it: &AcceptDrift) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    if it.name.is_empty() {
        return Err(reject(reason::INVALID_REQUEST, "no tool or model is named"));
    }
    if txn.header.reason.is_empty() {
        let message = "say why: whoever looks at the tool next will ask";
        return Err(reject(reason::INVALID_REQUEST, message).with("missing", "reason"));
    }
    let filter =
        Filter { bundle_id: &it.bundle_id, name: &it.name, source: it.source(), all: true };
    let mut found = rows(txn.read(), &agent, &filter)?;
    found.retain(|(_, record)| state(record) != DriftState::Cleared);
    if found.is_empty() {
        let message = format!("{} has no open drift", it.name);
        return Err(reject(reason::DRIFT_NOT_OPEN, message));
    }
    let already = found.iter().all(|(_, record)| state(record) == DriftState::Accepted);
    let policy = agent::policy(txn.read(), agent.number)?;
    let mut drifts = Vec::new();
    for (place, record) in found {
        let record = match state(&record) {
            DriftState::Open => accept_one(txn, &agent, &place, record)?,
            DriftState::Accepted | DriftState::Cleared | DriftState::Unspecified => record,
        };
        drifts.push(message(&policy, &place, record));
    }
    if !already {
        txn.effect(Effect::AgentChanged { agent: agent.number });
    }
    Ok(Answer::Drift(DriftResult { drifts, already }))
}

fn accept_one(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    place: &Place,
    before: DriftRecord,
) -> Result<DriftRecord, Stop> {
    let mut bundle = bundle::load(txn, agent.number, &place.bundle_id)?;
    let after = DriftRecord {
        accepted_ms: txn.now,
        accepted_by: txn.header.actor.clone(),
        accept_reason: txn.header.reason.clone(),
        revision: txn.revision,
        ..before.clone()
    };
    put(txn, &mut bundle, place, Some(&before), &after);
    bundle::save(txn, agent.number, &bundle);
    txn.event(of_place("drift.accepted", agent, place));
    Ok(after)
}

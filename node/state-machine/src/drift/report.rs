//! What the leader found in what workers see: other schemas, and that nobody sees them any more.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{ClearDrift, DriftRecord, DriftResult, ReportDrift};
use pinrail_proto::v1::{DriftChange, DriftClass, DriftSource};
use pinrail_proto::{id, limits, reason};

use crate::outcome::{Stop, reject};
use crate::run::clip::truncate;
use crate::txn::Txn;
use crate::{agent, bundle};

use super::place::Place;
use super::row::{close, is_open, see};
use super::show::message;

/// What is seen of a tool that is not there.
pub(super) const ABSENT: &str = "absent";

pub(crate) fn report(txn: &mut Txn<'_>, it: &ReportDrift) -> Result<Answer, Stop> {
    let agent = agent::load(txn, it.agent)?;
    let mut bundle = bundle::load(txn, it.agent, &it.bundle_id)?;
    let place = place(it.agent, &it.bundle_id, &it.tool, &it.seen)?;
    id::check_token("worker id", &it.worker_id)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    if it.class() == DriftClass::Unspecified {
        return Err(reject(reason::INVALID_REQUEST, "nobody said how they differ"));
    }
    let schemas = it.input_schema_json.len() + it.output_schema_json.len();
    let kept = |schema: &String| match schemas <= limits::EVIDENCE_BYTES {
        true => schema.clone(),
        false => String::new(),
    };
    let sighting = DriftRecord {
        class: it.class,
        expected: it.expected.clone(),
        changes: it.changes.iter().take(limits::DRIFT_CHANGES).map(clip).collect(),
        count: 1,
        worker_id: it.worker_id.clone(),
        input_schema_json: kept(&it.input_schema_json),
        output_schema_json: kept(&it.output_schema_json),
        ..DriftRecord::default()
    };
    let Some(record) = see(txn, &agent, &mut bundle, &place, sighting)? else {
        let message = format!("bundle {} has as much drift as is kept", it.bundle_id);
        return Err(
            reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::DRIFTS_PER_BUNDLE)
        );
    };
    bundle::save(txn, it.agent, &bundle);
    let policy = agent::policy(txn.read(), it.agent)?;
    let drifts = vec![message(&policy, &place, record)];
    Ok(Answer::Drift(DriftResult { drifts, already: false }))
}

fn clip(change: &DriftChange) -> DriftChange {
    let mut change = change.clone();
    truncate(&mut change.path, limits::ID_BYTES);
    truncate(&mut change.what, limits::ID_BYTES);
    change
}

pub(crate) fn clear(txn: &mut Txn<'_>, it: &ClearDrift) -> Result<Answer, Stop> {
    let agent = agent::load(txn, it.agent)?;
    let mut bundle = bundle::load(txn, it.agent, &it.bundle_id)?;
    let place = place(it.agent, &it.bundle_id, &it.tool, &it.seen)?;
    let found: Option<DriftRecord> = txn.get(&place.key())?;
    let Some(before) = found.filter(is_open) else {
        let message = format!("{} {} has no open drift", it.bundle_id, it.tool);
        return Err(reject(reason::DRIFT_NOT_OPEN, message));
    };
    let after = close(txn, &agent, &mut bundle, &place, &before);
    bundle::save(txn, it.agent, &bundle);
    let policy = agent::policy(txn.read(), it.agent)?;
    let drifts = vec![message(&policy, &place, after)];
    Ok(Answer::Drift(DriftResult { drifts, already: false }))
}

fn place(agent: u32, bundle_id: &str, tool: &str, seen: &str) -> Result<Place, Stop> {
    id::check_name("tool", tool).map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    if seen != ABSENT && !bundle::is_digest(seen) {
        return Err(reject(reason::INVALID_REQUEST, "what is seen is no digest of schemas"));
    }
    Ok(Place {
        agent,
        bundle_id: bundle_id.to_owned(),
        source: DriftSource::Schema,
        name: tool.to_owned(),
        seen: seen.to_owned(),
    })
}

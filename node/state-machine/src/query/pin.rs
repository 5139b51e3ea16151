//! Reads of pins.

use pinrail_proto::log::{BundleRecord, RunRecord};
use pinrail_proto::v1;

use crate::outcome::Stop;
use crate::run::{is_movable, is_over, pin_message};
use crate::store::Read;
use crate::{agent, bundle};

use super::run::{locate, open_pins};

/// The pin of a run, and whether it may still move.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `RUN_NOT_FOUND`.
pub fn pin(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    run_id: &str,
) -> Result<v1::LookupPinResponse, Stop> {
    let (agent, run) = locate(read, namespace, agent, run_id)?;
    // A delayed run has no pin until it is due.
    let pinned = match run.bundle_id.as_str() {
        "" => None,
        pinned => Some(bundle::existing(read, agent.number, pinned)?),
    };
    Ok(answer(&run, pinned.as_ref(), super::position(read)?.revision))
}

/// What is said of a run's pin.
pub(super) fn answer(
    run: &RunRecord,
    pinned: Option<&BundleRecord>,
    revision: u64,
) -> v1::LookupPinResponse {
    v1::LookupPinResponse {
        run_id: run.run_id.clone(),
        bundle_id: run.bundle_id.clone(),
        pin: pinned.map(|bundle| pin_message(run, bundle)),
        open: !is_over(run.state()),
        movable: is_movable(run),
        revision,
    }
}

/// A page of the open pins of a bundle (of the live one when it is empty), oldest first.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `BUNDLE_NOT_FOUND`; `INVALID_REQUEST` for a forged token.
pub fn pins(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    bundle_id: &str,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::Pin>, String), Stop> {
    let agent = agent::find(read, namespace, agent)?;
    let bundle_id = if bundle_id.is_empty() { &agent.live_bundle_id } else { bundle_id };
    let bundle = bundle::existing(read, agent.number, bundle_id)?;
    let (runs, next) = open_pins(read, &agent, bundle_id, page_size, token)?;
    Ok((runs.iter().map(|run| pin_message(run, &bundle)).collect(), next))
}

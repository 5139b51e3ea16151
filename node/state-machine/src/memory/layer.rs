//! Layers and their tree of bases.

use pinrail_proto::log::{AgentRecord, Ancestor, BundleRecord, LayerRecord};
use pinrail_proto::reason;

use crate::bundle;
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Read};
use crate::txn::{Txn, get};

use super::layer_key;

pub(crate) fn layer(
    read: &dyn Read,
    agent: u32,
    number: u32,
) -> Result<Option<LayerRecord>, Fault> {
    get(read, &layer_key(agent, number))
}

/// Opens the layer that a switch gives the bundle: on the live layer, frozen at this revision. A layer that the
/// bundle got as a candidate is fixed instead; its base moved with the live layer until now.
pub(crate) fn open_layer_for_switch(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    to: &mut BundleRecord,
    live: Option<&BundleRecord>,
) -> Result<(), Stop> {
    let ancestors = match live {
        Some(live) if live.layer != 0 => freeze(txn, agent.number, live.layer)?,
        Some(_) | None => Vec::new(),
    };
    let candidate = layer(txn.read(), agent.number, to.layer)?.filter(|layer| layer.moving);
    let record = match candidate {
        Some(candidate) => LayerRecord { moving: false, ancestors, ..candidate },
        None => LayerRecord {
            number: next(agent),
            bundle_id: to.bundle_id.clone(),
            created_revision: txn.revision,
            ancestors,
            ..LayerRecord::default()
        },
    };
    to.layer = record.number;
    txn.put(layer_key(agent.number, record.number), &record);
    Ok(())
}

/// The layer of a bundle that has not been live yet; opened when the first run or write asks for it.
pub(crate) fn candidate(txn: &mut Txn<'_>, agent: &mut AgentRecord, to: &mut BundleRecord) -> u32 {
    if to.layer != 0 {
        return to.layer;
    }
    let record = LayerRecord {
        number: next(agent),
        bundle_id: to.bundle_id.clone(),
        created_revision: txn.revision,
        moving: true,
        ..LayerRecord::default()
    };
    to.layer = record.number;
    txn.put(layer_key(agent.number, record.number), &record);
    crate::agent::save(txn, agent);
    bundle::save(txn, agent.number, to);
    record.number
}

/// Fixes the base of a candidate's layer at what is live now: the release is over. A layer that stands on a fixed base
/// already stays as it is.
pub(crate) fn fix_base(txn: &mut Txn<'_>, agent: &AgentRecord, number: u32) -> Result<(), Stop> {
    let candidate = layer(txn.read(), agent.number, number)?.filter(|layer| layer.moving);
    let Some(candidate) = candidate else { return Ok(()) };
    let live = bundle::find(txn.read(), agent.number, &agent.live_bundle_id)?;
    let ancestors = match live {
        Some(live) if live.layer != 0 => freeze(txn, agent.number, live.layer)?,
        Some(_) | None => Vec::new(),
    };
    let record = LayerRecord { moving: false, ancestors, ..candidate };
    txn.put(layer_key(agent.number, record.number), &record);
    Ok(())
}

/// Freezes a layer as the base of another one: what that sees of it ends at this revision.
fn freeze(txn: &mut Txn<'_>, agent: u32, number: u32) -> Result<Vec<Ancestor>, Stop> {
    let mut base = layer(txn.read(), agent, number)?
        .ok_or_else(|| Fault(format!("agent {agent} has no memory layer {number}")))?;
    base.frozen_revision = txn.revision;
    base.freezes.push(txn.revision);
    let mut ancestors = vec![Ancestor { layer: number, up_to_revision: txn.revision }];
    ancestors.extend(base.ancestors.iter().copied());
    txn.put(layer_key(agent, number), &base);
    Ok(ancestors)
}

/// The revision behind which what is written to a layer is late: where another layer last froze on it, or where
/// its bundle was rolled back. `None`: nothing is late, for it is the live one, or nothing stands on it yet.
pub(crate) fn late_behind(
    read: &dyn Read,
    agent: &AgentRecord,
    layer: &LayerRecord,
) -> Result<Option<u64>, Fault> {
    let live = bundle::find(read, agent.number, &agent.live_bundle_id)?;
    if live.is_some_and(|live| live.layer == layer.number) {
        return Ok(None);
    }
    if layer.frozen_revision != 0 {
        return Ok(Some(layer.frozen_revision));
    }
    let owner = bundle::find(read, agent.number, &layer.bundle_id)?;
    let left = owner.filter(|owner| owner.rejected && owner.layer == layer.number);
    Ok(left.and_then(|owner| owner.mark).map(|mark| mark.revision))
}

/// The layer that a command names: by its number, or the newest of a bundle, or the live one's.
pub(super) fn named(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    bundle_id: &str,
    number: u32,
) -> Result<LayerRecord, Stop> {
    let number = match (number, bundle_id) {
        (0, "") => bundle::load(txn, agent.number, &agent.live_bundle_id)?.layer,
        (0, bundle_id) => bundle::load(txn, agent.number, bundle_id)?.layer,
        (number, _) => number,
    };
    layer(txn.read(), agent.number, number)?
        .ok_or_else(|| reject(reason::INVALID_REQUEST, "there is no such memory layer"))
}

fn next(agent: &mut AgentRecord) -> u32 {
    let number = agent.next_layer;
    agent.next_layer += 1;
    number
}

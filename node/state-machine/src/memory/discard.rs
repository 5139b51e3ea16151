//! Dropping what a layer has of its own and no other layer sees: late writes, and what a rollback hid.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, DiscardMemory, LayerRecord};
use pinrail_proto::v1::DiscardMemoryResponse;
use pinrail_proto::{limits, reason};

use crate::event::With as _;
use crate::key::{Key, Kind};
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, event};

use super::layer::named;
use super::scratch::is_base;
use super::version::{forget_key, remove, save_layer};
use super::{Chain, Keys, Place};

pub(crate) fn discard(txn: &mut Txn<'_>, it: &DiscardMemory) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let from = it.from.clone().unwrap_or_default();
    let mut layer = named(txn, &agent, &from.bundle_id, from.layer)?;
    must_be_idle(txn, &agent, &layer)?;
    let mut done = DiscardMemoryResponse {
        layer: u64::from(layer.number),
        revision: txn.revision,
        ..DiscardMemoryResponse::default()
    };
    let mut keys = Keys::of(agent.number, [Place::Layer(layer.number)], &it.prefix, &it.after_key);
    let mut last = String::new();
    let mut versions = 0;
    let mut more = true;
    while versions < limits::MEMORY_BATCH_KEYS {
        let Some(key) = keys.next(txn.read())? else {
            more = false;
            break;
        };
        // A key without anything to drop is work too.
        versions += 1 + drop_own(txn, &mut agent, &mut layer, &key, &mut done)?;
        last = key;
    }
    if more && keys.next(txn.read())?.is_some() {
        done.next_key = last;
    } else if it.prefix.is_empty() {
        layer.late_writes = 0;
    }
    save_layer(txn, agent.number, &layer);
    agent::save(txn, &agent);
    if done.discarded > 0 {
        txn.event(
            event::of_bundle("memory.discarded", &agent, &layer.bundle_id)
                .with("layer", done.layer)
                .with("versions", done.discarded),
        );
    }
    Ok(Answer::DiscardMemory(done))
}

/// Nothing may be written to the layer or be answered from it while it is emptied.
fn must_be_idle(txn: &Txn<'_>, agent: &AgentRecord, layer: &LayerRecord) -> Result<(), Stop> {
    let in_use = |why: String| Err(reject(reason::MEMORY_IN_USE, why).with("layer", layer.number));
    let live = bundle::find(txn.read(), agent.number, &agent.live_bundle_id)?;
    if live.is_some_and(|live| live.layer == layer.number) {
        return in_use(format!("layer {} is the live one", layer.number));
    }
    let pins = Key::of(Kind::OpenPin, agent.number).text(&layer.bundle_id).range();
    if !txn.scan(&pins, 1)?.is_empty() {
        return in_use(format!("bundle {} has open runs", layer.bundle_id));
    }
    if is_base(txn.read(), agent.number, layer)? {
        return in_use("runs that serve no user began with what it holds".to_owned());
    }
    Ok(())
}

/// Drops the versions of a key that were written behind the last freeze. Answers how many.
pub(super) fn drop_own(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    layer: &mut LayerRecord,
    key: &str,
    done: &mut DiscardMemoryResponse,
) -> Result<usize, Stop> {
    let mut chain = Chain::of(agent.number, key);
    let mut dropped = 0;
    while let Some(found) = chain.next_of(txn.read(), layer.number)? {
        if found.revision <= layer.frozen_revision {
            break;
        }
        remove(txn, agent, key, &found)?;
        dropped += 1;
    }
    if dropped > 0 {
        forget_key(txn, agent.number, layer, key)?;
        done.discarded += dropped as u64;
    }
    Ok(dropped)
}

//! Sending again what was given up, or what a receiver lost.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, DeliveryRecord, EventRecord, HookRecord, Redeliver};
use pinrail_proto::v1::{DeliveryState, RedeliverResponse};
use pinrail_proto::{limits, reason};

use crate::effect::Effect;
use crate::event::With as _;
use crate::key::{Key, Kind};
use crate::outcome::{Stop, reject};
use crate::store::Fault;
use crate::txn::{Txn, get};
use crate::{agent, event};

use super::{Place, delivery_key, existing, find_delivery, parse_delivery, save, state_of};

pub(crate) fn redeliver(txn: &mut Txn<'_>, it: &Redeliver) -> Result<Answer, Stop> {
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    agent::expect_revision(txn, agent.revision)?;
    let mut hook = existing(txn.read(), agent.number, &it.hook)?;
    let (mut deliveries, mut gone) = (0, 0);
    if it.revision == 0 {
        for place in dead(txn, agent.number, &hook.hook)? {
            match send_again(txn, &agent, &mut hook, place)? {
                true => deliveries += 1,
                false => gone += 1,
            }
        }
    } else {
        let place = Place { revision: it.revision, index: it.index };
        if !send_again(txn, &agent, &mut hook, place)? {
            let (revision, index) = (it.revision, it.index);
            let message = format!("no event {revision}/{index} of the agent is kept");
            return Err(reject(reason::EVENT_NOT_FOUND, message)
                .with("oldest", txn.cluster.events_compacted + 1));
        }
        deliveries = 1;
    }
    save(txn, agent.number, &hook);
    if deliveries > 0 {
        txn.event(
            event::of_agent("hook.redelivered", &agent)
                .with("hook", &it.hook)
                .with("deliveries", deliveries),
        );
        txn.effect(Effect::AgentChanged { agent: agent.number });
    }
    let revision = txn.revision;
    Ok(Answer::Redeliver(RedeliverResponse { deliveries, gone, revision }))
}

fn dead(txn: &Txn<'_>, agent: u32, hook: &str) -> Result<Vec<Place>, Fault> {
    let most = usize::try_from(limits::HOOK_DEAD).unwrap_or(usize::MAX);
    let rows = txn.scan(&state_of(agent, hook, DeliveryState::Dead), most)?;
    Ok(rows.iter().filter_map(|(key, _)| parse_delivery(key)).map(|(_, place)| place).collect())
}

/// Makes the delivery of an event pending, to be tried at once. False: the event is not kept, or not the agent's.
fn send_again(
    txn: &mut Txn<'_>,
    agent: &AgentRecord,
    hook: &mut HookRecord,
    place: Place,
) -> Result<bool, Stop> {
    let row = Key::new(Kind::Event).u64(place.revision).u32(place.index).build();
    let Some(event) = get::<EventRecord>(txn.read(), &row)? else { return Ok(false) };
    if (&event.namespace, &event.agent_id) != (&agent.namespace, &agent.agent_id) {
        return Ok(false);
    }
    let before = find_delivery(txn.read(), agent.number, &hook.hook, place)?;
    let record = match before {
        None => DeliveryRecord {
            r#type: event.r#type,
            event_ms: event.at_ms,
            ..DeliveryRecord::default()
        },
        Some((state, record)) => {
            let rows = match state {
                DeliveryState::Unspecified | DeliveryState::Pending => &mut hook.pending,
                DeliveryState::Dead => &mut hook.dead_rows,
                DeliveryState::Delivered => &mut hook.delivered_rows,
            };
            *rows = rows.saturating_sub(1);
            txn.delete(delivery_key(agent.number, &hook.hook, state, place));
            record
        }
    };
    hook.pending += 1;
    let until_ms = txn.now + limits::HOOK_RETRY_MS;
    let record = DeliveryRecord { next_ms: txn.now, until_ms, ..record };
    txn.put(delivery_key(agent.number, &hook.hook, DeliveryState::Pending, place), &record);
    Ok(true)
}

//! Says when something else is wanted of the compute of a bundle, so that whoever starts and stops it can follow the
//! events. It is looked at after every command: no verb can change what is wanted and forget to say so.

use std::collections::BTreeMap;

use pinrail_proto::log::{AgentRecord, BundleRecord};
use pinrail_proto::v1::Want;

use crate::event::With as _;
use crate::key::{Kind, Parts};
use crate::store::Fault;
use crate::txn::{Txn, decode};
use crate::{agent, event};

use super::environment::wanted;
use super::{all, save};

/// Emits `environment.wanted` for every bundle of which something else is wanted than was said last.
///
/// Looks at the bundles that the command wrote, and at all bundles of an agent whose route or policy it changed.
pub(crate) fn announce(txn: &mut Txn<'_>) -> Result<(), Fault> {
    let mut touched: BTreeMap<u32, Vec<BundleRecord>> = BTreeMap::new();
    for (key, value) in txn.written(Kind::Bundle) {
        let Some(number) = Parts::new(&key).u32() else { continue };
        touched.entry(number).or_default().push(decode(&key, &value)?);
    }
    for number in txn.changed_agents() {
        touched.insert(number, all(txn.read(), number)?);
    }
    for (number, bundles) in touched {
        let Some(agent) = agent::by_number(txn.read(), number)? else { continue };
        for bundle in bundles {
            announce_one(txn, &agent, bundle);
        }
    }
    Ok(())
}

fn announce_one(txn: &mut Txn<'_>, agent: &AgentRecord, mut bundle: BundleRecord) {
    let (want, why, slots) = wanted(agent, &bundle);
    let was = bundle.wanted();
    let said = (was, bundle.wanted_why.as_str(), bundle.wanted_slots);
    if said == (want, why, slots) || (was == Want::Unspecified && want == Want::Off) {
        return;
    }
    let mut wanted = event::of_bundle("environment.wanted", agent, &bundle.bundle_id)
        .with("want", word(want))
        .with("why", why)
        .with("slots", slots);
    if was != Want::Unspecified {
        wanted = wanted.with("was", word(was));
    }
    txn.event(wanted);
    bundle.set_wanted(want);
    why.clone_into(&mut bundle.wanted_why);
    bundle.wanted_slots = slots;
    save(txn, agent.number, &bundle);
}

fn word(want: Want) -> String {
    event::word(want.as_str_name(), "WANT_")
}

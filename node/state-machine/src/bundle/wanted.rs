//! Says when something else is wanted of the compute of a bundle, so that whoever starts and stops it can follow the
//! events. It is looked at after every command: no verb can change what is wanted and forget to say so.

use std::collections::BTreeMap;

use pinrail_proto::log::{AgentRecord, BundleRecord};
use pinrail_proto::v1::Want;

use crate::event::With as _;
use crate::key::Parts;
use crate::store::Fault;
use crate::txn::Txn;
use crate::{agent, event};

use super::environment::{OPEN_PINS, wanted};
use super::{all, save};

/// Emits `environment.wanted` for every bundle of which something else is wanted than was said last.
///
/// Looks at the bundles that the command wrote, unless the route alone says what is wanted of them, and at all bundles of an
/// agent whose route or policy it changed.
pub(crate) fn announce(txn: &mut Txn<'_>) -> Result<(), Fault> {
    let mut touched: BTreeMap<u32, Vec<BundleRecord>> = BTreeMap::new();
    for key in txn.take_unsettled() {
        let Some(number) = Parts::new(&key).u32() else { continue };
        touched.entry(number).or_default().extend(txn.get(&key)?);
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

/// Whether what was said last of a bundle follows from the route: then nothing of the bundle itself changes it. Every step
/// and every start writes its bundle, and mostly that of a routed one.
pub(super) fn is_by_route(bundle: &BundleRecord) -> bool {
    match bundle.wanted() {
        Want::Serve => true,
        Want::Warm => bundle.wanted_why != OPEN_PINS,
        Want::Unspecified | Want::Off => false,
    }
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

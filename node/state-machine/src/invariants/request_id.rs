//! Request ids: what is remembered is counted, and each id of traffic has its place.

use std::collections::BTreeSet;

use pinrail_proto::log::{ClusterRecord, TrafficIdRecord};

use crate::key::{Key, Kind};
use crate::store::{Fault, Read};
use crate::txn::decode;

use super::{Found, rows};

const ABOUT: &str = "request ids";

/// Those of traffic stand in their places without a gap, each once, and all others are counted.
pub(super) fn request_ids_are_counted(
    read: &dyn Read,
    cluster: &ClusterRecord,
    found: &mut Found,
) -> Result<(), Fault> {
    let mut ids = BTreeSet::new();
    let mut expected = cluster.traffic_ids_begin;
    for (key, value) in rows(read, Key::new(Kind::TrafficId))? {
        if *key != *Key::new(Kind::TrafficId).u64(expected).build() {
            found.say(ABOUT, format!("place {expected} is missing"));
        }
        expected += 1;
        ids.insert(decode::<TrafficIdRecord>(&key, &value)?.request_id);
    }
    if expected != cluster.traffic_ids_end {
        let end = cluster.traffic_ids_end;
        found.say(ABOUT, format!("places end before {expected}, and {end} is said"));
    }
    let remembered = rows(read, Key::new(Kind::Dedupe))?;
    let of_traffic = |key: &[u8]| std::str::from_utf8(&key[1..]).is_ok_and(|id| ids.contains(id));
    let of_administration = remembered.iter().filter(|(key, _)| !of_traffic(key)).count() as u64;
    let with_place = remembered.len() as u64 - of_administration;
    if with_place != cluster.traffic_ids_end - cluster.traffic_ids_begin {
        found.say(ABOUT, format!("{with_place} of traffic are remembered, others have a place"));
    }
    if of_administration != cluster.dedupe_rows {
        let counted = cluster.dedupe_rows;
        found.say(ABOUT, format!("{of_administration} are remembered, counted {counted}"));
    }
    Ok(())
}

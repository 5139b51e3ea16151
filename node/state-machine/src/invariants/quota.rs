//! P5: what quotas count is exact.

use pinrail_proto::log::NamespaceRecord;

use crate::key::{Key, Kind};
use crate::namespace::quota::{self, Quota};
use crate::store::{Fault, Read};
use crate::txn::decode;

use super::{Found, rows};

/// Counters of a namespace equal the sums over its agents, each is there just while its quota is, and the quotas that
/// were warned of are those that are nearly used up.
pub(super) fn quotas_count_what_is_there(read: &dyn Read, found: &mut Found) -> Result<(), Fault> {
    for (key, value) in rows(read, Key::new(Kind::Namespace))? {
        let record: NamespaceRecord = decode(&key, &value)?;
        let namespace = String::from_utf8_lossy(&key[1..]);
        let sums = quota::sum(read, &namespace)?;
        let mut must = |is_so: bool, quota: Quota, why: &str| {
            if !is_so {
                found.say("P5", format!("namespace {namespace}, {quota:?}: {why}: {record:?}"));
            }
        };
        for quota in quota::ALL {
            let (limit, sum) = (quota.of(record.quotas.as_ref()), quota.of(Some(&sums)));
            let counted = quota.of(record.used.as_ref());
            if quota == Quota::Agents {
                must(Some(record.agents) == sum, quota, "not the sum");
            } else {
                must(counted.is_some() == limit.is_some(), quota, "counted without a quota");
                must(counted.is_none() || counted == sum, quota, "not the sum");
            }
            let near = quota.was_near(&record);
            match (sum, limit) {
                (Some(sum), Some(limit)) => {
                    must(near || !Quota::is_near(sum, limit), quota, "near, and nobody was told");
                    must(!near || !Quota::is_far(sum, limit), quota, "far, and told to be near");
                }
                (_, _) => must(!near, quota, "near to no quota"),
            }
        }
    }
    Ok(())
}

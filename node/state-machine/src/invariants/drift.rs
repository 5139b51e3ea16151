//! What a bundle counts of its drift is what its rows say.

use std::collections::BTreeMap;

use pinrail_proto::log::{DriftCount, DriftRecord};
use pinrail_proto::v1::{DriftClass, DriftSource};

use crate::key::{Kind, Parts};
use crate::store::Fault;
use crate::txn::decode;

use super::{Found, Scene, broken};

pub(super) fn drift_is_counted(scene: &Scene<'_>, found: &mut Found) -> Result<(), Fault> {
    let mut there: BTreeMap<String, DriftCount> = BTreeMap::new();
    for (key, value) in scene.rows(Kind::Drift)? {
        let mut parts = Parts::new(&key);
        let (_, Some(bundle_id), Some(source)) = (parts.u32(), parts.text(), parts.u8()) else {
            return Err(broken(&key));
        };
        let record: DriftRecord = decode(&key, &value)?;
        let count = there.entry(bundle_id.to_owned()).or_default();
        count.rows += 1;
        count.of_runs += u32::from(i32::from(source) != i32::from(DriftSource::Schema));
        if record.accepted_ms == 0 && record.cleared_ms == 0 {
            match record.class() {
                DriftClass::Compatible => count.compatible += 1,
                DriftClass::Breaking | DriftClass::Unspecified => count.breaking += 1,
            }
        }
        if record.accepted_ms != 0 && record.cleared_ms != 0 {
            found.say("P6", format!("{bundle_id}: {record:?} is accepted and cleared"));
        }
    }
    for (bundle_id, bundle) in &scene.bundles {
        let counted = bundle.drift.unwrap_or_default();
        let compared = counted.compared;
        let wanted = DriftCount { compared, ..there.remove(bundle_id).unwrap_or_default() };
        if counted != wanted || (wanted.rows > 0 && !compared) {
            found.say("P6", format!("{bundle_id}: counts {counted:?}, has {wanted:?}"));
        }
    }
    for (bundle_id, count) in there {
        found.say("P6", format!("{bundle_id} is no bundle and has {count:?}"));
    }
    Ok(())
}

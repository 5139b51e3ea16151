//! What state a bundle is in: it follows from the route and the pins, and is stored nowhere.

use pinrail_proto::log::{AgentRecord, BundleRecord};
use pinrail_proto::v1::BundleState;

use super::open_pins;

/// ```text
/// registered ──switch──> live ──switch──> standby ──switch of another──> lingering ──pins 0──> recyclable ──> recycled
///     └──release──> candidate ──> canary ──> live
///                         └─────rollback──> rejected
/// ```
pub(crate) fn state(agent: &AgentRecord, bundle: &BundleRecord) -> BundleState {
    if bundle.bundle_id == agent.live_bundle_id {
        BundleState::Live
    } else if bundle.bundle_id == agent.standby_bundle_id {
        BundleState::Standby
    } else if bundle.bundle_id == agent.candidate_bundle_id {
        if agent.canary_bp == 0 { BundleState::Candidate } else { BundleState::Canary }
    } else if bundle.recycled {
        BundleState::Recycled
    } else if bundle.rejected {
        BundleState::Rejected
    } else if !bundle.was_live {
        BundleState::Registered
    } else if open_pins(bundle) > 0 {
        BundleState::Lingering
    } else {
        BundleState::Recyclable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinrail_proto::v1::OpenPins;

    #[test]
    fn the_route_comes_first_then_the_rejection_then_the_pins() {
        let agent = AgentRecord {
            live_bundle_id: "live".to_owned(),
            standby_bundle_id: "standby".to_owned(),
            ..AgentRecord::default()
        };
        let bundle = |id: &str, rejected, was_live, total| BundleRecord {
            bundle_id: id.to_owned(),
            rejected,
            was_live,
            open_pins: Some(OpenPins { total, live: total, ..OpenPins::default() }),
            ..BundleRecord::default()
        };
        for (expected, bundle) in [
            (BundleState::Live, bundle("live", false, true, 3)),
            (BundleState::Standby, bundle("standby", false, true, 0)),
            (BundleState::Rejected, bundle("other", true, true, 3)),
            (BundleState::Registered, bundle("other", false, false, 3)),
            (BundleState::Lingering, bundle("other", false, true, 3)),
            (BundleState::Recyclable, bundle("other", false, true, 0)),
        ] {
            assert_eq!(state(&agent, &bundle), expected);
        }
    }
}

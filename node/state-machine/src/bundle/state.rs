//! What state a bundle is in: it follows from the route and the pins, and is stored nowhere.

use pinrail_proto::log::{AgentRecord, BundleRecord};
use pinrail_proto::v1::BundleState;

use super::open_pins;

/// ```text
/// registered ──switch──> live ──switch──> standby ──switch of another──> lingering ──pins 0──> recyclable
///                         └─────rollback──> rejected
/// ```
pub(crate) fn state(agent: &AgentRecord, bundle: &BundleRecord) -> BundleState {
    if bundle.bundle_id == agent.live_bundle_id {
        BundleState::Live
    } else if bundle.bundle_id == agent.standby_bundle_id {
        BundleState::Standby
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

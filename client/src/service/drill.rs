//! The rollback, practised and timed.

use pinrail_proto::v1;
use pinrail_proto::v1::drill_service_client::DrillServiceClient;

use crate::client::Client;
use crate::service::methods;

/// `DrillService`.
#[derive(Debug, Clone, Copy)]
pub struct Drills<'c> {
    pub(super) client: &'c Client,
}

methods! { Drills, DrillServiceClient:
    /// Begins a drill.
    write start_drill as start(StartDrillRequest) -> StartDrillResponse;
    /// The drill that is under way, else the newest; or one by its id.
    read get_drill as get(GetDrillRequest) -> GetDrillResponse;
    /// A page of drills, newest first, and when the next one is due.
    read list_drills as list(ListDrillsRequest) -> ListDrillsResponse;
    /// Ends the drill that is under way.
    write abort_drill as abort(AbortDrillRequest) -> AbortDrillResponse;
}

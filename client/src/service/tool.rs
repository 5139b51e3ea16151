//! What tools and models really are, against what bundles say of them.

use pinrail_proto::v1;
use pinrail_proto::v1::tool_service_client::ToolServiceClient;

use crate::client::Client;
use crate::service::methods;

/// `ToolService`.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'c> {
    pub(super) client: &'c Client,
}

methods! { Tools, ToolServiceClient:
    /// What drifted.
    read list_drifts as drifts(ListDriftsRequest) -> ListDriftsResponse;
    /// Says that somebody lives with it.
    write accept_drift as accept(AcceptDriftRequest) -> AcceptDriftResponse;
}

//! Live runs and their mirrors, side by side.

use pinrail_proto::v1;
use pinrail_proto::v1::shadow_service_client::ShadowServiceClient;

use crate::client::Client;
use crate::service::methods;

/// `ShadowService`.
#[derive(Debug, Clone, Copy)]
pub struct Shadows<'c> {
    pub(super) client: &'c Client,
}

methods! { Shadows, ShadowServiceClient:
    /// A page of pairs of a release.
    read list_shadow_pairs as pairs(ListShadowPairsRequest) -> ListShadowPairsResponse;
    /// One pair, by one of its runs.
    read get_shadow_pair as pair(GetShadowPairRequest) -> GetShadowPairResponse;
}

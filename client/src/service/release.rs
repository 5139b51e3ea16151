//! Route changes.

use pinrail_proto::v1;
use pinrail_proto::v1::release_service_client::ReleaseServiceClient;

use crate::client::Client;
use crate::service::methods;

/// `ReleaseService`.
#[derive(Debug, Clone, Copy)]
pub struct Releases<'c> {
    pub(super) client: &'c Client,
}

methods! { Releases, ReleaseServiceClient:
    /// Makes a bundle live.
    write switch as switch(SwitchRequest) -> SwitchResponse;
    /// Returns to the bundle that was live before.
    write rollback as rollback(RollbackRequest) -> RollbackResponse;
}

//! Immutable releases of an agent.

use pinrail_proto::v1;
use pinrail_proto::v1::bundle_service_client::BundleServiceClient;

use crate::client::Client;
use crate::service::methods;

/// `BundleService`.
#[derive(Debug, Clone, Copy)]
pub struct Bundles<'c> {
    pub(super) client: &'c Client,
}

methods! { Bundles, BundleServiceClient:
    /// Registers a bundle; the same content again is a no-op.
    write create_bundle as create(CreateBundleRequest) -> CreateBundleResponse;
    /// One bundle with its manifest.
    read get_bundle as get(GetBundleRequest) -> GetBundleResponse;
    /// A page of bundles, without manifests.
    read list_bundles as list(ListBundlesRequest) -> ListBundlesResponse;
    /// What differs between two bundles, part by part.
    read diff_bundles as diff(DiffBundlesRequest) -> DiffBundlesResponse;
}

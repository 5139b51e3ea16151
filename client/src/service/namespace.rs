//! Tenants.

use pinrail_proto::v1;
use pinrail_proto::v1::namespace_service_client::NamespaceServiceClient;

use crate::client::Client;
use crate::error::Result;
use crate::service::{methods, read_call, send};

/// `NamespaceService`.
#[derive(Debug, Clone, Copy)]
pub struct Namespaces<'c> {
    pub(super) client: &'c Client,
}

methods! { Namespaces, NamespaceServiceClient:
    /// Creates a namespace.
    write create_namespace as create(CreateNamespaceRequest) -> CreateNamespaceResponse;
    /// One namespace with its quotas and all that its agents have.
    read get_namespace as get(GetNamespaceRequest) -> GetNamespaceResponse;
    /// Changes quotas.
    write update_namespace as update(UpdateNamespaceRequest) -> UpdateNamespaceResponse;
    /// Deletes a namespace without agents.
    write delete_namespace as delete(DeleteNamespaceRequest) -> DeleteNamespaceResponse;
}

impl Namespaces<'_> {
    /// All namespaces.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn list(
        &self,
        request: v1::ListNamespacesRequest,
    ) -> Result<v1::ListNamespacesResponse> {
        let call = read_call(self.client, request.read.as_ref());
        send!(self.client, call, NamespaceServiceClient::list_namespaces, request)
    }
}

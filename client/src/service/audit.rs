//! Who did what.

use pinrail_proto::v1;
use pinrail_proto::v1::audit_service_client::AuditServiceClient;

use crate::client::Client;
use crate::error::Result;
use crate::service::{read_call, send};

/// `AuditService`.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'c> {
    pub(super) client: &'c Client,
}

impl Audit<'_> {
    /// A page of entries, the newest first. Without a namespace of its own it is about the client's.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn list(&self, request: v1::ListAuditRequest) -> Result<v1::ListAuditResponse> {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        self.list_all(request).await
    }

    /// The same, where an empty namespace means all: entries about the cluster itself are of none.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn list_all(&self, request: v1::ListAuditRequest) -> Result<v1::ListAuditResponse> {
        let call = read_call(self.client, request.read.as_ref());
        send!(self.client, call, AuditServiceClient::list_audit, request)
    }

    /// Computes a part of the chain again at the member that is asked.
    ///
    /// # Errors
    /// Those of [`crate::Error`]. A broken chain is none: the answer says where.
    pub async fn verify(&self, request: v1::VerifyAuditRequest) -> Result<v1::VerifyAuditResponse> {
        let call = read_call(self.client, request.read.as_ref());
        send!(self.client, call, AuditServiceClient::verify_audit, request)
    }
}

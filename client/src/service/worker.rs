//! Live workers, as operators see them. The pull stream itself is `crate::worker`.

use pinrail_proto::v1;
use pinrail_proto::v1::worker_service_client::WorkerServiceClient;

use crate::client::Client;
use crate::error::Result;
use crate::retry::Repeat;
use crate::service::send;

/// `WorkerService` without its stream.
#[derive(Debug, Clone, Copy)]
pub struct Workers<'c> {
    pub(super) client: &'c Client,
}

impl Workers<'_> {
    /// The live workers of an agent, or of one bundle; only the leader knows them.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn list(&self, request: v1::ListWorkersRequest) -> Result<v1::ListWorkersResponse> {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        let call = self.client.call_for(Repeat::Read, String::new());
        send!(self.client, call, WorkerServiceClient::list_workers, request)
    }

    /// Tells a worker to take no more work. Telling it twice is the same.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn drain(&self, request: v1::DrainWorkerRequest) -> Result<v1::DrainWorkerResponse> {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        let call = self.client.call_for(Repeat::Safe, String::new());
        send!(self.client, call, WorkerServiceClient::drain_worker, request)
    }
}

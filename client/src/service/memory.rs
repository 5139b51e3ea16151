//! Memory under the bundle id, as operators and readers see it.

use pinrail_proto::v1;
use pinrail_proto::v1::memory_service_client::MemoryServiceClient;

use crate::client::Client;
use crate::error::Result;
use crate::service::resume::Resumed;
use crate::service::{methods, open};

/// `MemoryService`.
#[derive(Debug, Clone, Copy)]
pub struct Memory<'c> {
    pub(super) client: &'c Client,
}

methods! { Memory, MemoryServiceClient:
    /// The latest version that the scope sees, or the one as of a revision.
    read get_memory as get(GetMemoryRequest) -> GetMemoryResponse;
    /// Writes to the newest layer of a bundle.
    write put_memory as put(PutMemoryRequest) -> PutMemoryResponse;
    /// Deletes in the newest layer of a bundle.
    write delete_memory as delete(DeleteMemoryRequest) -> DeleteMemoryResponse;
    /// A page of the keys under a prefix.
    read list_memory as list(ListMemoryRequest) -> ListMemoryResponse;
    /// The versions of one key, newest first.
    read get_memory_history as history(GetMemoryHistoryRequest) -> GetMemoryHistoryResponse;
    /// A page of the keys of which two scopes see different versions.
    read diff_memory as diff(DiffMemoryRequest) -> DiffMemoryResponse;
    /// Carries a batch of what a layer has of its own over to a bundle; `next_key` goes on.
    write promote_memory as promote(PromoteMemoryRequest) -> PromoteMemoryResponse;
    /// Drops a batch of what a layer has of its own; `next_key` goes on.
    write discard_memory as discard(DiscardMemoryRequest) -> DiscardMemoryResponse;
}

impl Memory<'_> {
    /// Follows the changes that a scope sees for ever; resumes at another member where it stopped.
    #[must_use]
    pub fn watch(&self, request: v1::WatchMemoryRequest) -> MemoryWatch {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        MemoryWatch { stream: Resumed::new(self.client, request) }
    }
}

/// Changes of memory as they happen.
#[derive(Debug)]
pub struct MemoryWatch {
    stream: Resumed<v1::WatchMemoryRequest, v1::WatchMemoryResponse>,
}

impl MemoryWatch {
    /// The next changes, or none with the revision and layer that the watch has come to.
    ///
    /// # Errors
    /// `COMPACTED` when it resumes too late, another refusal, or that no member answers for a whole timeout.
    pub async fn next(&mut self) -> Result<v1::WatchMemoryResponse> {
        let answer = self.stream.next(open!(MemoryServiceClient::watch_memory)).await?;
        self.stream.request.after_revision = answer.revision;
        Ok(answer)
    }
}

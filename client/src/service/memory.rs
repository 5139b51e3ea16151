//! Memory under the bundle id, as operators and readers see it.

use pinrail_proto::v1;
use pinrail_proto::v1::memory_service_client::MemoryServiceClient;

use crate::client::Client;
use crate::service::methods;

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
}

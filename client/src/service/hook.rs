//! Where events of an agent are sent to.

use pinrail_proto::v1;
use pinrail_proto::v1::hook_service_client::HookServiceClient;
use tokio::time::Duration;

use crate::client::Client;
use crate::connection::Call;
use crate::error::Result;
use crate::retry::Repeat;
use crate::service::{methods, send};

/// `HookService`.
#[derive(Debug, Clone, Copy)]
pub struct Hooks<'c> {
    pub(super) client: &'c Client,
}

/// How long a receiver may take to answer.
const RECEIVER: Duration = Duration::from_secs(10);

methods! { Hooks, HookServiceClient:
    /// The hooks of an agent's policy and how far they are.
    read list_hooks as list(ListHooksRequest) -> ListHooksResponse;
    /// One hook.
    read get_hook as get(GetHookRequest) -> GetHookResponse;
    /// A page of a hook's deliveries.
    read list_deliveries as deliveries(ListDeliveriesRequest) -> ListDeliveriesResponse;
    /// Sends events again.
    write redeliver as redeliver(RedeliverRequest) -> RedeliverResponse;
}

impl Hooks<'_> {
    /// Sends a test event now, from the member that leads, and waits for what comes of it.
    ///
    /// # Errors
    /// Those of [`crate::Error`]. That the receiver does not answer is none: the answer says so.
    pub async fn test(&self, request: v1::TestHookRequest) -> Result<v1::TestHookResponse> {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        let call = self.client.call_for(Repeat::Read, String::new());
        let call =
            Call { prefer_leader: true, hold: RECEIVER, timeout: call.timeout + RECEIVER, ..call };
        send!(self.client, call, HookServiceClient::test_hook, request)
    }
}

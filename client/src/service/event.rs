//! What happened, in one order, resumable from a revision.

use pinrail_proto::v1::event_service_client::EventServiceClient;
use pinrail_proto::{limits, v1};
use tonic::Streaming;

use crate::client::Client;
use crate::error::Result;
use crate::retry::Repeat;
use crate::service::methods;
use crate::service::resume::Resumed;

/// `EventService`.
#[derive(Debug, Clone, Copy)]
pub struct Events<'c> {
    pub(super) client: &'c Client,
}

methods! { Events, EventServiceClient:
    /// A page of events.
    read list_events as list(ListEventsRequest) -> ListEventsResponse;
}

impl Events<'_> {
    /// Follows the events for ever; resumes at another member where it stopped.
    #[must_use]
    pub fn watch(&self, request: v1::WatchEventsRequest) -> EventWatch {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        EventWatch { stream: Resumed::new(self.client, request) }
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventWatch {
    stream: Resumed<v1::WatchEventsRequest, v1::WatchEventsResponse>,
}

impl EventWatch {
    /// The next events.
    ///
    /// # Errors
    /// `COMPACTED` when it resumes too late, another refusal, or that no member answers for a whole timeout.
    pub async fn next(&mut self) -> Result<v1::WatchEventsResponse> {
        let answer = self.stream.next(open).await?;
        self.stream.request.after_revision = answer.revision;
        Ok(answer)
    }
}

async fn open(
    client: Client,
    request: v1::WatchEventsRequest,
) -> Result<Streaming<v1::WatchEventsResponse>> {
    let call = client.call_for(Repeat::Read, String::new());
    let open = |channel, request: tonic::Request<v1::WatchEventsRequest>| async move {
        EventServiceClient::new(channel)
            .max_decoding_message_size(limits::API_MESSAGE_BYTES)
            // Without the call's deadline: the stream lives longer.
            .watch_events(request.into_inner())
            .await
    };
    client.connection().call(call, request, open).await
}

//! What happened, in one order, resumable from a revision.

use pinrail_proto::v1;
use pinrail_proto::v1::event_service_client::EventServiceClient;

use crate::client::Client;
use crate::error::Result;
use crate::service::resume::Resumed;
use crate::service::{methods, open};

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
        let answer = self.stream.next(open!(EventServiceClient::watch_events)).await?;
        self.stream.request.after_revision = answer.revision;
        Ok(answer)
    }
}

//! What happened, in one order, resumable from a revision.

use pinrail_proto::v1::event_service_client::EventServiceClient;
use pinrail_proto::{limits, v1};
use tonic::Streaming;

use crate::client::Client;
use crate::error::Result;
use crate::retry::{Repeat, Verdict, judge};
use crate::service::methods;

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
        EventWatch { client: self.client.clone(), request, stream: None }
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventWatch {
    client: Client,
    request: v1::WatchEventsRequest,
    stream: Option<Streaming<v1::WatchEventsResponse>>,
}

impl EventWatch {
    /// The next events.
    ///
    /// # Errors
    /// `COMPACTED` when it resumes too late, another refusal, or that no member answers for a whole timeout.
    pub async fn next(&mut self) -> Result<v1::WatchEventsResponse> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => self.stream.insert(open(&self.client, &self.request).await?),
            };
            match stream.message().await {
                Ok(Some(answer)) => {
                    self.request.after_revision = answer.revision;
                    return Ok(answer);
                }
                Ok(None) => self.stream = None,
                Err(status) => {
                    self.stream = None;
                    if let Verdict::Refused(error) = judge(&status) {
                        return Err(error);
                    }
                }
            }
        }
    }
}

async fn open(
    client: &Client,
    request: &v1::WatchEventsRequest,
) -> Result<Streaming<v1::WatchEventsResponse>> {
    let call = client.call_for(Repeat::Read, String::new());
    let open = |channel, request: tonic::Request<v1::WatchEventsRequest>| async move {
        EventServiceClient::new(channel)
            .max_decoding_message_size(limits::API_MESSAGE_BYTES)
            // Without the call's deadline: the stream lives longer.
            .watch_events(request.into_inner())
            .await
    };
    client.connection().call(call, request.clone(), open).await
}

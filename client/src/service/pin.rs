//! Which bundle a run belongs to, what a new run would get, and how far drains are.

use pinrail_proto::v1;
use pinrail_proto::v1::pin_service_client::PinServiceClient;

use crate::client::Client;
use crate::error::Result;
use crate::service::resume::Resumed;
use crate::service::{methods, open};

/// `PinService`.
#[derive(Debug, Clone, Copy)]
pub struct Pins<'c> {
    pub(super) client: &'c Client,
}

methods! { Pins, PinServiceClient:
    /// The pin of a run.
    read lookup_pin as lookup(LookupPinRequest) -> LookupPinResponse;
    /// The bundle that a run started now would get.
    read resolve_route as resolve_route(ResolveRouteRequest) -> ResolveRouteResponse;
    /// A page of open pins, oldest first.
    read list_pins as list(ListPinsRequest) -> ListPinsResponse;
    /// The drains of an agent, or of one bundle.
    read get_drain as drain(GetDrainRequest) -> GetDrainResponse;
    /// Brings a drain deadline nearer.
    write set_drain as set_drain(SetDrainRequest) -> SetDrainResponse;
    /// A page of the sessions that hold a pin.
    read list_sessions as sessions(ListSessionsRequest) -> ListSessionsResponse;
    /// One session.
    read get_session as session(GetSessionRequest) -> GetSessionResponse;
    /// Takes the pin of a session: its next run starts where the route leads.
    write end_session as end_session(EndSessionRequest) -> EndSessionResponse;
}

impl Pins<'_> {
    /// Follows all pins of an agent for ever; resumes at another member where it stopped. Whoever only looks some of them up
    /// wants a [`crate::PinCache`].
    #[must_use]
    pub fn watch(&self, request: v1::WatchPinsRequest) -> PinWatch {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        PinWatch { stream: Resumed::new(self.client, request) }
    }
}

/// Pins as they are made, move, change and end.
#[derive(Debug)]
pub struct PinWatch {
    stream: Resumed<v1::WatchPinsRequest, v1::WatchPinsResponse>,
}

impl PinWatch {
    /// The next pins, or none with the revision that the watch has come to. Where an answer `begins`, what was kept before is
    /// to be forgotten: a list that was interrupted begins anew.
    ///
    /// # Errors
    /// `COMPACTED` when it resumes too late, another refusal, or that no member answers for a whole timeout.
    pub async fn next(&mut self) -> Result<v1::WatchPinsResponse> {
        let answer = self.stream.next(open!(PinServiceClient::watch_pins)).await?;
        self.stream.request.after_revision = answer.revision;
        Ok(answer)
    }
}

//! Which bundle a run belongs to, what a new run would get, and how far drains are.

use pinrail_proto::v1;
use pinrail_proto::v1::pin_service_client::PinServiceClient;

use crate::client::Client;
use crate::service::methods;

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

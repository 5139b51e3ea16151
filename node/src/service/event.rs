//! EventService.

use std::pin::Pin;

use futures::Stream;
use pinrail_proto::v1;
use pinrail_proto::v1::event_service_server::EventService;
use pinrail_state_machine::query::{self, EventFilter};
use tonic::{Request, Response, Status};

use super::read::timeout_of;
use super::{Node, validate, watch};
use pinrail_proto::limits;

#[derive(Debug)]
pub(crate) struct Events(pub(crate) Node);

pub(super) fn check(namespace: &str, agent_id: &str) -> Result<(), Status> {
    validate::namespace(namespace)?;
    if agent_id.is_empty() { Ok(()) } else { validate::agent(agent_id) }
}

/// An agent is one of a namespace, and that is `default` when none is named; without an agent, none means all.
pub(super) fn namespace_of(namespace: String, agent_id: &str) -> String {
    if namespace.is_empty() && !agent_id.is_empty() { "default".to_owned() } else { namespace }
}

#[tonic::async_trait]
impl EventService for Events {
    type WatchEventsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        check(&it.namespace, &it.agent_id)?;
        let filter = EventFilter {
            namespace: namespace_of(it.namespace, &it.agent_id),
            agent_id: it.agent_id,
            type_: it.r#type,
            after_revision: it.after_revision,
            newest_first: false,
        };
        Ok(Response::new(watch::events(self.0.clone(), filter, timeout).await?))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        check(&it.namespace, &it.agent_id)?;
        let limit = if it.limit == 0 { limits::PAGE_DEFAULT } else { it.limit.min(limits::PAGE) };
        let filter = EventFilter {
            namespace: namespace_of(it.namespace.clone(), &it.agent_id),
            agent_id: it.agent_id.clone(),
            type_: it.r#type.clone(),
            after_revision: it.after_revision,
            newest_first: it.newest_first,
        };
        let page = self
            .0
            .query(it.read.as_ref(), timeout, |read| query::events(read, &filter, limit as usize));
        let ((events, next_after_revision), at) = page.await?;
        let revision = at.revision;
        Ok(Response::new(v1::ListEventsResponse { events, next_after_revision, revision }))
    }
}

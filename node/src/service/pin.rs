//! PinService.

use std::pin::Pin;

use futures::Stream;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{EndSession, SetDrain};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::pin_service_server::PinService;
use pinrail_proto::v1::{self, Consistency};
use pinrail_state_machine::query::{self, PinCursor};
use tonic::{Request, Response, Status};

use super::event::namespace_of;
use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, validate, watch};

#[derive(Debug)]
pub(crate) struct Pins(pub(crate) Node);

#[tonic::async_trait]
impl PinService for Pins {
    type WatchPinsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchPinsResponse, Status>> + Send>>;

    async fn lookup_pin(
        &self,
        request: Request<v1::LookupPinRequest>,
    ) -> Result<Response<v1::LookupPinResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let lookup = |read: &dyn pinrail_state_machine::store::Read| {
            query::pin(read, &it.namespace, &it.agent_id, &it.run_id)
        };
        let asked = it.read.unwrap_or_default();
        // A pin that cannot move is the same everywhere and for ever: it needs no quorum. A miss does.
        if asked.min_revision == 0
            && let Ok((pin, _)) = self.0.query_now(lookup)
            && !pin.movable
        {
            return Ok(Response::new(pin));
        }
        let options = v1::ReadOptions {
            consistency: match asked.consistency() {
                Consistency::Local => Consistency::Local.into(),
                Consistency::Unspecified | Consistency::Linearizable => {
                    Consistency::Linearizable.into()
                }
            },
            ..asked
        };
        let (pin, _) = self.0.query(Some(&options), timeout, lookup).await?;
        Ok(Response::new(pin))
    }

    async fn resolve_route(
        &self,
        request: Request<v1::ResolveRouteRequest>,
    ) -> Result<Response<v1::ResolveRouteResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let route = self.0.query(it.read.as_ref(), timeout, |read| {
            query::resolve_route(read, &it.namespace, &it.agent_id, &it.key)
        });
        let ((bundle_id, epoch, endpoint), at) = route.await?;
        let revision = at.revision;
        Ok(Response::new(v1::ResolveRouteResponse { bundle_id, epoch, endpoint, revision }))
    }

    async fn list_pins(
        &self,
        request: Request<v1::ListPinsRequest>,
    ) -> Result<Response<v1::ListPinsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle_or_empty(&it.bundle_id)?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::pins(
                read,
                &it.namespace,
                &it.agent_id,
                &it.bundle_id,
                it.page_size,
                &it.page_token,
            )
        });
        let ((pins, next_page_token), at) = page.await?;
        Ok(Response::new(v1::ListPinsResponse { pins, next_page_token, revision: at.revision }))
    }

    async fn watch_pins(
        &self,
        request: Request<v1::WatchPinsRequest>,
    ) -> Result<Response<Self::WatchPinsStream>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let namespace = namespace_of(it.namespace, &it.agent_id);
        let cursor = PinCursor::after(namespace, it.agent_id, it.after_revision);
        Ok(Response::new(watch::pins(self.0.clone(), cursor, timeout).await?))
    }

    async fn get_drain(
        &self,
        request: Request<v1::GetDrainRequest>,
    ) -> Result<Response<v1::GetDrainResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle_or_empty(&it.bundle_id)?;
        let drains = self.0.query(it.read.as_ref(), timeout, |read| {
            query::drains(read, &it.namespace, &it.agent_id, &it.bundle_id)
        });
        let (drains, at) = drains.await?;
        Ok(Response::new(v1::GetDrainResponse {
            drains,
            revision: at.revision,
            cluster_time: timestamp(at.now_ms),
        }))
    }

    async fn set_drain(
        &self,
        request: Request<v1::SetDrainRequest>,
    ) -> Result<Response<v1::SetDrainResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle(&it.bundle_id)?;
        let kind = Kind::SetDrain(SetDrain {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            bundle_id: it.bundle_id,
            cap_ms: validate::optional("cap", it.cap.as_ref())?,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Drain(drain), revision) => {
                Ok(Response::new(v1::SetDrainResponse { drain: Some(drain), revision }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::sessions(read, &it.namespace, &it.agent_id, it.page_size, &it.page_token)
        });
        let ((sessions, next_page_token), at) = page.await?;
        let revision = at.revision;
        Ok(Response::new(v1::ListSessionsResponse { sessions, next_page_token, revision }))
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::session(&it.session)?;
        let session = self.0.query(it.read.as_ref(), timeout, |read| {
            query::session(read, &it.namespace, &it.agent_id, &it.session)
        });
        let (session, at) = session.await?;
        let revision = at.revision;
        Ok(Response::new(v1::GetSessionResponse { session: Some(session), revision }))
    }

    async fn end_session(
        &self,
        request: Request<v1::EndSessionRequest>,
    ) -> Result<Response<v1::EndSessionResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        validate::session(&it.session)?;
        let kind = Kind::EndSession(EndSession { agent, session: it.session });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Session(session), revision) => {
                Ok(Response::new(v1::EndSessionResponse { session: Some(session), revision }))
            }
            _ => Err(mismatch()),
        }
    }
}

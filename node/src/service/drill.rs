//! DrillService: the rollback, practised.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AbortDrill, StartDrill};
use pinrail_proto::v1;
use pinrail_proto::v1::drill_service_server::DrillService;
use pinrail_state_machine::query;
use tonic::{Request, Response, Status};

use super::Node;
use super::read::timeout_of;
use super::release::capacity;
use super::write::{agent_ref, mismatch};

#[derive(Debug)]
pub(crate) struct Drills(pub(crate) Node);

#[tonic::async_trait]
impl DrillService for Drills {
    async fn start_drill(
        &self,
        request: Request<v1::StartDrillRequest>,
    ) -> Result<Response<v1::StartDrillResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        let workers = self.0.known_workers(&it.namespace, &it.agent_id).await?;
        // A member that is behind may not know of the switch yet that made the standby.
        let found =
            self.0.query(None, timeout, |read| query::agent(read, &it.namespace, &it.agent_id));
        let (found, _) = found.await?;
        let standby = found.route.map(|route| route.standby_bundle_id).unwrap_or_default();
        let kind = Kind::StartDrill(StartDrill {
            agent,
            mode: it.mode,
            scheduled: false,
            capacity: Some(capacity(&workers, &standby)),
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Drill(it), revision) => {
                Ok(Response::new(v1::StartDrillResponse { drill: it.drill, revision }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn get_drill(
        &self,
        request: Request<v1::GetDrillRequest>,
    ) -> Result<Response<v1::GetDrillResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let now_ms = self.0.replica.cluster_time_ms();
        let drill = self.0.query(it.read.as_ref(), timeout, |read| {
            query::drill(read, &it.namespace, &it.agent_id, &it.drill_id, now_ms)
        });
        let (drill, at) = drill.await?;
        let revision = at.revision;
        Ok(Response::new(v1::GetDrillResponse { drill: Some(drill), revision }))
    }

    async fn list_drills(
        &self,
        request: Request<v1::ListDrillsRequest>,
    ) -> Result<Response<v1::ListDrillsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let now_ms = self.0.replica.cluster_time_ms();
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::drills(read, &it.namespace, &it.agent_id, it.page_size, &it.page_token, now_ms)
        });
        let (page, at) = page.await?;
        Ok(Response::new(v1::ListDrillsResponse { revision: at.revision, ..page }))
    }

    async fn abort_drill(
        &self,
        request: Request<v1::AbortDrillRequest>,
    ) -> Result<Response<v1::AbortDrillResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let kind = Kind::AbortDrill(AbortDrill { agent: agent_ref(&it.namespace, &it.agent_id)? });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Drill(it), revision) => {
                Ok(Response::new(v1::AbortDrillResponse { drill: it.drill, revision }))
            }
            _ => Err(mismatch()),
        }
    }
}

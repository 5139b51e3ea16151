//! ReleaseService: switch and rollback.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{Rollback, Switch};
use pinrail_proto::v1;
use pinrail_proto::v1::release_service_server::ReleaseService;
use tonic::{Request, Response, Status};

use super::forward::slots_of;
use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, validate};

#[derive(Debug)]
pub(crate) struct Releases(pub(crate) Node);

#[tonic::async_trait]
impl ReleaseService for Releases {
    async fn switch(
        &self,
        request: Request<v1::SwitchRequest>,
    ) -> Result<Response<v1::SwitchResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle(&it.bundle_id)?;
        let kind = Kind::Switch(Switch {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            bundle_id: it.bundle_id,
            force: it.force,
            expected_epoch: it.expected_epoch,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Switch(switched), revision) => {
                Ok(Response::new(v1::SwitchResponse { revision, ..switched }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle_or_empty(&it.from_bundle_id)?;
        let kind = Kind::Rollback(Rollback {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            from_bundle_id: it.from_bundle_id,
            in_flight: it.in_flight,
            from_inferred: it.from_inferred,
        });
        let (Answer::Rollback(mut answer), revision) =
            self.0.write(it.options, kind, timeout).await?
        else {
            return Err(mismatch());
        };
        answer.revision = revision;
        if let Some(workers) = self.0.workers(&it.namespace, &it.agent_id).await {
            let (count, _, free) = slots_of(&workers, &answer.to_bundle_id);
            answer.target_workers = count;
            answer.target_free_slots = free;
        }
        Ok(Response::new(answer))
    }
}

//! ToolService: what tools and models really are, against what bundles say of them.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AcceptDrift, DriftResult};
use pinrail_proto::v1;
use pinrail_proto::v1::tool_service_server::ToolService;
use pinrail_state_machine::query;
use tonic::{Request, Response, Status};

use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, validate};

#[derive(Debug)]
pub(crate) struct Tools(pub(crate) Node);

#[tonic::async_trait]
impl ToolService for Tools {
    async fn list_drifts(
        &self,
        request: Request<v1::ListDriftsRequest>,
    ) -> Result<Response<v1::ListDriftsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let found = self.0.query(it.read.as_ref(), timeout, |read| query::drifts(read, &it));
        let (drifts, at) = found.await?;
        Ok(Response::new(v1::ListDriftsResponse { drifts, revision: at.revision }))
    }

    async fn accept_drift(
        &self,
        request: Request<v1::AcceptDriftRequest>,
    ) -> Result<Response<v1::AcceptDriftResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        if !it.bundle_id.is_empty() {
            validate::bundle(&it.bundle_id)?;
        }
        let kind = Kind::AcceptDrift(AcceptDrift {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            bundle_id: it.bundle_id,
            name: it.name,
            source: it.source,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Drift(DriftResult { drifts, already }), revision) => {
                Ok(Response::new(v1::AcceptDriftResponse { drifts, already, revision }))
            }
            _ => Err(mismatch()),
        }
    }
}

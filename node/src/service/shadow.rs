//! ShadowService: live runs and their mirrors, side by side.

use pinrail_proto::v1;
use pinrail_proto::v1::shadow_service_server::ShadowService;
use tonic::{Request, Response, Status};

use super::read::timeout_of;
use super::write::agent_ref;
use super::{Node, validate};
use crate::driver::pairs;

#[derive(Debug)]
pub(crate) struct Shadows(pub(crate) Node);

#[tonic::async_trait]
impl ShadowService for Shadows {
    async fn list_shadow_pairs(
        &self,
        request: Request<v1::ListShadowPairsRequest>,
    ) -> Result<Response<v1::ListShadowPairsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let pairs = self.0.query(it.read.as_ref(), timeout, |read| pairs::list(read, &it));
        let (pairs, at) = pairs.await?;
        Ok(Response::new(v1::ListShadowPairsResponse { revision: at.revision, ..pairs }))
    }

    async fn get_shadow_pair(
        &self,
        request: Request<v1::GetShadowPairRequest>,
    ) -> Result<Response<v1::GetShadowPairResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::run(&it.run_id)?;
        let pair = self.0.query(it.read.as_ref(), timeout, |read| pairs::show(read, &it));
        let (pair, at) = pair.await?;
        Ok(Response::new(v1::GetShadowPairResponse { revision: at.revision, ..pair }))
    }
}

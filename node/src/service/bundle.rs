//! BundleService.

use pinrail_proto::log::CreateBundle;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::v1;
use pinrail_proto::v1::bundle_service_server::BundleService;
use pinrail_state_machine::query;
use tonic::{Request, Response, Status};

use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, validate};
use crate::driver::tool_digests;

#[derive(Debug)]
pub(crate) struct Bundles(pub(crate) Node);

#[tonic::async_trait]
impl BundleService for Bundles {
    async fn create_bundle(
        &self,
        request: Request<v1::CreateBundleRequest>,
    ) -> Result<Response<v1::CreateBundleResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle(&it.bundle_id)?;
        validate::manifest(it.manifest.as_ref())?;
        let kind = Kind::CreateBundle(CreateBundle {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            bundle_id: it.bundle_id,
            manifest: it.manifest,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Bundle(made), revision) => Ok(Response::new(v1::CreateBundleResponse {
                bundle: made.bundle,
                already: made.already,
                revision,
            })),
            _ => Err(mismatch()),
        }
    }

    async fn get_bundle(
        &self,
        request: Request<v1::GetBundleRequest>,
    ) -> Result<Response<v1::GetBundleResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle(&it.bundle_id)?;
        let bundle = self.0.query(it.read.as_ref(), timeout, |read| {
            query::bundle(read, &it.namespace, &it.agent_id, &it.bundle_id)
        });
        let (mut bundle, at) = bundle.await?;
        bundle.tool_digests = bundle.manifest.as_ref().map(tool_digests).unwrap_or_default();
        Ok(Response::new(v1::GetBundleResponse { bundle: Some(bundle), revision: at.revision }))
    }

    async fn list_bundles(
        &self,
        request: Request<v1::ListBundlesRequest>,
    ) -> Result<Response<v1::ListBundlesResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::bundles(read, &it.namespace, &it.agent_id, it.page_size, &it.page_token)
        });
        let ((bundles, next_page_token), at) = page.await?;
        let revision = at.revision;
        Ok(Response::new(v1::ListBundlesResponse { bundles, next_page_token, revision }))
    }

    async fn diff_bundles(
        &self,
        request: Request<v1::DiffBundlesRequest>,
    ) -> Result<Response<v1::DiffBundlesResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle(&it.from_bundle_id)?;
        validate::bundle(&it.to_bundle_id)?;
        let diff = self.0.query(it.read.as_ref(), timeout, |read| {
            query::diff(read, &it.namespace, &it.agent_id, &it.from_bundle_id, &it.to_bundle_id)
        });
        let (changes, at) = diff.await?;
        Ok(Response::new(v1::DiffBundlesResponse { changes, revision: at.revision }))
    }
}

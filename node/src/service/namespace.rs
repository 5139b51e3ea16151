//! NamespaceService.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{CreateNamespace, DeleteNamespace, NamespaceResult, UpdateNamespace};
use pinrail_proto::v1;
use pinrail_proto::v1::namespace_service_server::NamespaceService;
use pinrail_state_machine::query;
use tonic::{Request, Response, Status};

use super::read::timeout_of;
use super::write::mismatch;
use super::{Node, validate};

#[derive(Debug)]
pub(crate) struct Namespaces(pub(crate) Node);

fn changed(answer: (Answer, u64)) -> Result<(NamespaceResult, u64), Status> {
    match answer {
        (Answer::Namespace(changed), revision) => Ok((changed, revision)),
        _ => Err(mismatch()),
    }
}

#[tonic::async_trait]
impl NamespaceService for Namespaces {
    async fn create_namespace(
        &self,
        request: Request<v1::CreateNamespaceRequest>,
    ) -> Result<Response<v1::CreateNamespaceResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::agent(&it.namespace)?;
        let v1::CreateNamespaceRequest { namespace, quotas, options } = it;
        let kind = Kind::CreateNamespace(CreateNamespace { namespace, quotas });
        let (made, revision) = changed(self.0.write(options, kind, timeout).await?)?;
        let namespace = made.namespace;
        Ok(Response::new(v1::CreateNamespaceResponse { namespace, revision }))
    }

    async fn get_namespace(
        &self,
        request: Request<v1::GetNamespaceRequest>,
    ) -> Result<Response<v1::GetNamespaceResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::namespace(&it.namespace)?;
        let namespace =
            self.0.query(it.read.as_ref(), timeout, |read| query::namespace(read, &it.namespace));
        let (namespace, at) = namespace.await?;
        let namespace = Some(namespace);
        Ok(Response::new(v1::GetNamespaceResponse { namespace, revision: at.revision }))
    }

    async fn list_namespaces(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let (namespaces, at) = self.0.query(it.read.as_ref(), timeout, query::namespaces).await?;
        Ok(Response::new(v1::ListNamespacesResponse { namespaces, revision: at.revision }))
    }

    async fn update_namespace(
        &self,
        request: Request<v1::UpdateNamespaceRequest>,
    ) -> Result<Response<v1::UpdateNamespaceResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::agent(&it.namespace)?;
        let v1::UpdateNamespaceRequest { namespace, quotas, unlimited, options } = it;
        let kind = Kind::UpdateNamespace(UpdateNamespace { namespace, quotas, unlimited });
        let (NamespaceResult { namespace, already }, revision) =
            changed(self.0.write(options, kind, timeout).await?)?;
        Ok(Response::new(v1::UpdateNamespaceResponse { namespace, already, revision }))
    }

    async fn delete_namespace(
        &self,
        request: Request<v1::DeleteNamespaceRequest>,
    ) -> Result<Response<v1::DeleteNamespaceResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::agent(&it.namespace)?;
        let kind = Kind::DeleteNamespace(DeleteNamespace { namespace: it.namespace });
        let (_, revision) = self.0.write(it.options, kind, timeout).await?;
        Ok(Response::new(v1::DeleteNamespaceResponse { revision }))
    }
}

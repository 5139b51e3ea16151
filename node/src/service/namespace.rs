//! NamespaceService.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{CreateNamespace, DeleteNamespace};
use pinrail_proto::v1;
use pinrail_proto::v1::namespace_service_server::NamespaceService;
use pinrail_state_machine::query;
use tonic::{Request, Response, Status};

use super::read::timeout_of;
use super::write::mismatch;
use super::{Node, validate};

#[derive(Debug)]
pub(super) struct Namespaces(pub(super) Node);

#[tonic::async_trait]
impl NamespaceService for Namespaces {
    async fn create_namespace(
        &self,
        request: Request<v1::CreateNamespaceRequest>,
    ) -> Result<Response<v1::CreateNamespaceResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::agent(&it.namespace)?;
        let kind = Kind::CreateNamespace(CreateNamespace { namespace: it.namespace });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Namespace(made), revision) => {
                let namespace = made.namespace;
                Ok(Response::new(v1::CreateNamespaceResponse { namespace, revision }))
            }
            _ => Err(mismatch()),
        }
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

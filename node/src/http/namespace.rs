//! Namespaces over HTTP: their quotas, and what is used of them.

use axum::routing::get;
use pinrail_proto::v1;
use pinrail_proto::v1::namespace_service_server::NamespaceService as _;

use super::api::{Answer, shown};
use super::call::Call;
use super::openapi::{Operation, of, read};
use crate::service::Namespaces;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        params: &["timeout", "local"],
        ..read(
            || get(list),
            "/v1/namespaces",
            "listNamespaces",
            "All namespaces with their quotas, and what is used of these.",
            &[("200", of::<v1::ListNamespacesResponse>)],
        )
    },
    Operation {
        params: &["timeout", "local"],
        ..read(
            || get(show),
            "/v1/namespaces/{namespace}",
            "getNamespace",
            "A namespace with its quotas and all that its agents have.",
            &[("200", of::<v1::Namespace>)],
        )
    },
];

async fn list(call: Call) -> Answer {
    let request = call.with(v1::ListNamespacesRequest { read: call.read() });
    let answer = Namespaces(call.node).list_namespaces(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn show(call: Call) -> Answer {
    let request = v1::GetNamespaceRequest { namespace: call.named_namespace(), read: call.read() };
    let request = call.with(request);
    let answer = Namespaces(call.node).get_namespace(request).await?.into_inner();
    Ok(shown(&answer.namespace.unwrap_or_default()))
}

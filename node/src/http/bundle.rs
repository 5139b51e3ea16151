//! Bundles over HTTP: which an agent has, and what is in one.

use axum::routing::get;
use pinrail_proto::v1;
use pinrail_proto::v1::bundle_service_server::BundleService as _;

use super::api::{Answer, shown};
use super::call::Call;
use super::openapi::{Operation, of, read};
use crate::service::Bundles;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        params: &["namespace", "timeout", "local", "page_size", "page_token"],
        ..read(
            || get(list),
            "/v1/agents/{agent}/bundles",
            "listBundles",
            "Bundles of an agent, without what is in them.",
            &[("200", of::<v1::ListBundlesResponse>)],
        )
    },
    read(
        || get(show),
        "/v1/agents/{agent}/bundles/{bundle}",
        "getBundle",
        "A bundle with all its parts.",
        &[("200", of::<v1::Bundle>)],
    ),
];

async fn list(call: Call) -> Answer {
    let request = v1::ListBundlesRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        page_size: call.query.page_size,
        page_token: call.query.page_token.clone(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Bundles(call.node).list_bundles(request).await?;
    Ok(shown(answer.get_ref()))
}

async fn show(call: Call) -> Answer {
    let request = v1::GetBundleRequest {
        namespace: call.namespace(),
        agent_id: call.agent(),
        bundle_id: call.bundle(),
        read: call.read(),
    };
    let request = call.with(request);
    let answer = Bundles(call.node).get_bundle(request).await?.into_inner();
    Ok(shown(&answer.bundle.unwrap_or_default()))
}

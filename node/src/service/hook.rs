//! HookService.

use std::time::Duration;

use pinrail_proto::log::Redeliver;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::v1::hook_service_client::HookServiceClient;
use pinrail_proto::v1::hook_service_server::HookService;
use pinrail_proto::v1::redeliver_request::What;
use pinrail_proto::{reason, time, v1};
use pinrail_state_machine::query;
use tonic::{Request, Response, Status};

use super::forward::forwarded;
use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, error, validate};
use crate::driver::TestError;

/// How long the leader may take to try a hook, which may take 10 s itself.
const TEST: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Hooks(pub(super) Node);

fn check(namespace: &str, agent_id: &str, hook: &str) -> Result<(), Status> {
    validate::namespace(namespace)?;
    validate::agent(agent_id)?;
    validate::hook(hook)
}

#[tonic::async_trait]
impl HookService for Hooks {
    async fn list_hooks(
        &self,
        request: Request<v1::ListHooksRequest>,
    ) -> Result<Response<v1::ListHooksResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::namespace(&it.namespace)?;
        validate::agent(&it.agent_id)?;
        let read = |read: &dyn pinrail_state_machine::store::Read| {
            query::hooks(read, &it.namespace, &it.agent_id)
        };
        let (hooks, at) = self.0.query(it.read.as_ref(), timeout, read).await?;
        Ok(Response::new(v1::ListHooksResponse { hooks, revision: at.revision }))
    }

    async fn get_hook(
        &self,
        request: Request<v1::GetHookRequest>,
    ) -> Result<Response<v1::GetHookResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        check(&it.namespace, &it.agent_id, &it.hook)?;
        let read = |read: &dyn pinrail_state_machine::store::Read| {
            query::hook(read, &it.namespace, &it.agent_id, &it.hook)
        };
        let (hook, at) = self.0.query(it.read.as_ref(), timeout, read).await?;
        Ok(Response::new(v1::GetHookResponse { hook: Some(hook), revision: at.revision }))
    }

    async fn test_hook(
        &self,
        request: Request<v1::TestHookRequest>,
    ) -> Result<Response<v1::TestHookResponse>, Status> {
        let it = request.get_ref();
        check(&it.namespace, &it.agent_id, &it.hook)?;
        match self.0.dispatch.test_hook(&it.namespace, &it.agent_id, &it.hook).await {
            Ok(tested) => {
                let took = u64::try_from(tested.took.as_millis()).unwrap_or(u64::MAX);
                Ok(Response::new(v1::TestHookResponse {
                    delivered: tested.delivered,
                    status: u32::from(tested.status),
                    error: tested.error,
                    took: Some(time::duration(took)),
                    signed: tested.signed,
                    node: self.0.replica.status().node,
                    body: tested.body,
                }))
            }
            Err(TestError::NotLeader { .. }) => {
                let channel = self.0.leader_channel(&request)?;
                let mut client = HookServiceClient::new(channel);
                let call = client.test_hook(forwarded(request.into_inner()));
                let answer = tokio::time::timeout(TEST, call).await;
                answer.map_err(|_| error::no_leader(None))?
            }
            Err(TestError::Refused(rejection)) => Err(error::rejected(&rejection, 0)),
            Err(TestError::Read(why)) => Err(error::read(why)),
        }
    }

    async fn list_deliveries(
        &self,
        request: Request<v1::ListDeliveriesRequest>,
    ) -> Result<Response<v1::ListDeliveriesResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        check(&it.namespace, &it.agent_id, &it.hook)?;
        let state = it.state();
        let read = |read: &dyn pinrail_state_machine::store::Read| {
            let (namespace, agent) = (it.namespace.as_str(), it.agent_id.as_str());
            let (size, token) = (it.page_size, it.page_token.as_str());
            query::hook_deliveries(read, namespace, agent, &it.hook, state, size, token)
        };
        let ((deliveries, next_page_token), at) =
            self.0.query(it.read.as_ref(), timeout, read).await?;
        let revision = at.revision;
        Ok(Response::new(v1::ListDeliveriesResponse { deliveries, next_page_token, revision }))
    }

    async fn redeliver(
        &self,
        request: Request<v1::RedeliverRequest>,
    ) -> Result<Response<v1::RedeliverResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::hook(&it.hook)?;
        let (revision, index) = match &it.what {
            Some(What::DeliveryId(id)) => place(id)?,
            Some(What::AllDead(true)) => (0, 0),
            Some(What::AllDead(false)) | None => {
                let message = "say which delivery, or all that are dead";
                return Err(error::refuse(reason::INVALID_REQUEST, message));
            }
        };
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        let kind = Kind::Redeliver(Redeliver { agent, hook: it.hook, revision, index });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Redeliver(answer), revision) => {
                Ok(Response::new(v1::RedeliverResponse { revision, ..answer }))
            }
            _ => Err(mismatch()),
        }
    }
}

/// `revision/index`.
fn place(id: &str) -> Result<(u64, u32), Status> {
    let parts = id.split_once('/').and_then(|(revision, index)| {
        let revision: u64 = revision.parse().ok().filter(|revision| *revision != 0)?;
        Some((revision, index.parse().ok()?))
    });
    parts.ok_or_else(|| {
        let message = format!("{id:?} is no delivery: one is named revision/index, as in 812/0");
        error::refuse(reason::INVALID_REQUEST, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_named_by_its_event() {
        assert_eq!(place("812/1").ok(), Some((812, 1)));
        for wrong in ["", "812", "0/0", "a/b", "812/-1", "prod/812/0"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}

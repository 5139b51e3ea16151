//! MemoryService.

use std::pin::Pin;

use futures::Stream;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::memory_target::Target;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    DeleteMemory, DiscardMemory, MemorySource, MemoryTarget, PromoteMemory, PutMemory,
};
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_proto::v1::memory_service_server::MemoryService;
use pinrail_proto::v1::{self, MemoryScope};
use pinrail_proto::{limits, reason};
use pinrail_state_machine::query::{self, MemoryDiff, MemoryFilter};
use tonic::{Request, Response, Status};

use super::error::refuse;
use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, validate, watch};

#[derive(Debug)]
pub(crate) struct Memories(pub(crate) Node);

fn check_scope(scope: Option<&MemoryScope>) -> Result<(), Status> {
    match scope.and_then(|scope| scope.scope.as_ref()) {
        Some(Scope::BundleId(bundle)) => validate::bundle_or_empty(bundle),
        Some(Scope::RunId(run)) => validate::run(run),
        Some(Scope::Layer(_)) | None => Ok(()),
    }
}

/// What an operator carries over or drops: the newest layer of a bundle, or a layer by its number.
fn source(scope: Option<MemoryScope>) -> Result<Option<MemorySource>, Status> {
    check_scope(scope.as_ref())?;
    let of = |bundle_id, layer| Ok(Some(MemorySource { bundle_id, layer }));
    match scope.and_then(|scope| scope.scope) {
        Some(Scope::BundleId(bundle)) if !bundle.is_empty() => of(bundle, 0),
        Some(Scope::Layer(number)) => match u32::try_from(number) {
            Ok(number) if number != 0 => of(String::new(), number),
            Ok(_) | Err(_) => Err(refuse(reason::INVALID_REQUEST, "there is no such memory layer")),
        },
        Some(Scope::BundleId(_) | Scope::RunId(_)) | None => {
            Err(refuse(reason::INVALID_REQUEST, "from names a bundle or a layer"))
        }
    }
}

/// A key to go on behind.
fn check_after(key: &str) -> Result<(), Status> {
    if key.is_empty() { Ok(()) } else { validate::memory_key(key) }
}

fn check_prefix(prefix: &str) -> Result<(), Status> {
    if prefix.len() > limits::MEMORY_KEY_BYTES || prefix.chars().any(char::is_control) {
        return Err(refuse(reason::INVALID_ID, "a prefix is at most as long as a key"));
    }
    Ok(())
}

/// Where an operator writes: the newest layer of a bundle. Runs write through their lease.
fn target(scope: Option<MemoryScope>) -> Result<Option<MemoryTarget>, Status> {
    check_scope(scope.as_ref())?;
    let bundle_id = match scope.and_then(|scope| scope.scope) {
        Some(Scope::BundleId(bundle)) => bundle,
        None => String::new(),
        Some(Scope::RunId(_) | Scope::Layer(_)) => {
            let message =
                "an operator writes to a bundle's memory; a run's is written through its lease";
            return Err(refuse(reason::INVALID_REQUEST, message));
        }
    };
    Ok(Some(MemoryTarget { target: Some(Target::BundleId(bundle_id)) }))
}

#[tonic::async_trait]
impl MemoryService for Memories {
    type WatchMemoryStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchMemoryResponse, Status>> + Send>>;

    async fn watch_memory(
        &self,
        request: Request<v1::WatchMemoryRequest>,
    ) -> Result<Response<Self::WatchMemoryStream>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        check_scope(it.scope.as_ref())?;
        check_prefix(&it.prefix)?;
        let filter = MemoryFilter {
            namespace: it.namespace,
            agent_id: it.agent_id,
            scope: it.scope,
            prefix: it.prefix,
            after_revision: it.after_revision,
        };
        Ok(Response::new(watch::memory(self.0.clone(), filter, timeout).await?))
    }

    async fn diff_memory(
        &self,
        request: Request<v1::DiffMemoryRequest>,
    ) -> Result<Response<v1::DiffMemoryResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        check_scope(it.from.as_ref())?;
        check_scope(it.to.as_ref())?;
        check_prefix(&it.prefix)?;
        let diff = MemoryDiff {
            from: it.from,
            to: it.to,
            prefix: it.prefix,
            late: it.late,
            keys_only: it.keys_only,
        };
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            let (size, token) = (it.page_size, &it.page_token);
            query::memory_diff(read, &it.namespace, &it.agent_id, &diff, size, token)
        });
        Ok(Response::new(page.await?.0))
    }

    async fn promote_memory(
        &self,
        request: Request<v1::PromoteMemoryRequest>,
    ) -> Result<Response<v1::PromoteMemoryResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle_or_empty(&it.to_bundle_id)?;
        check_prefix(&it.prefix)?;
        check_after(&it.after_key)?;
        let kind = Kind::PromoteMemory(PromoteMemory {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            on_conflict: it.on_conflict,
            from: source(it.from)?,
            to_bundle_id: it.to_bundle_id,
            prefix: it.prefix,
            late: it.late,
            after_key: it.after_key,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::PromoteMemory(promoted), _) => Ok(Response::new(promoted)),
            _ => Err(mismatch()),
        }
    }

    async fn discard_memory(
        &self,
        request: Request<v1::DiscardMemoryRequest>,
    ) -> Result<Response<v1::DiscardMemoryResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        check_prefix(&it.prefix)?;
        check_after(&it.after_key)?;
        let kind = Kind::DiscardMemory(DiscardMemory {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            from: source(it.from)?,
            prefix: it.prefix,
            after_key: it.after_key,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::DiscardMemory(discarded), _) => Ok(Response::new(discarded)),
            _ => Err(mismatch()),
        }
    }

    async fn get_memory(
        &self,
        request: Request<v1::GetMemoryRequest>,
    ) -> Result<Response<v1::GetMemoryResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::memory_key(&it.key)?;
        check_scope(it.scope.as_ref())?;
        let found = self.0.query(it.read.as_ref(), timeout, |read| {
            let scope = it.scope.as_ref();
            query::memory_get(read, &it.namespace, &it.agent_id, scope, &it.key, it.at_revision)
        });
        Ok(Response::new(found.await?.0))
    }

    async fn put_memory(
        &self,
        request: Request<v1::PutMemoryRequest>,
    ) -> Result<Response<v1::PutMemoryResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::memory_key(&it.key)?;
        validate::payload("value", it.value.as_ref())?;
        let kind = Kind::PutMemory(PutMemory {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            target: target(it.scope)?,
            key: it.key,
            value: it.value,
            ttl_ms: validate::positive_or_none("ttl", it.ttl.as_ref())?,
            expected_key_revision: it.expected_key_revision,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Memory(written), revision) => {
                Ok(Response::new(v1::PutMemoryResponse { version: written.version, revision }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn delete_memory(
        &self,
        request: Request<v1::DeleteMemoryRequest>,
    ) -> Result<Response<v1::DeleteMemoryResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::memory_key(&it.key)?;
        let kind = Kind::DeleteMemory(DeleteMemory {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            target: target(it.scope)?,
            key: it.key,
            expected_key_revision: it.expected_key_revision,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Memory(written), revision) => {
                let deleted = written.version.is_some();
                Ok(Response::new(v1::DeleteMemoryResponse { deleted, revision }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn list_memory(
        &self,
        request: Request<v1::ListMemoryRequest>,
    ) -> Result<Response<v1::ListMemoryResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        check_scope(it.scope.as_ref())?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::memory_list(
                read,
                &it.namespace,
                &it.agent_id,
                it.scope.as_ref(),
                &it.prefix,
                it.at_revision,
                it.keys_only,
                it.page_size,
                &it.page_token,
            )
        });
        Ok(Response::new(page.await?.0))
    }

    async fn get_memory_history(
        &self,
        request: Request<v1::GetMemoryHistoryRequest>,
    ) -> Result<Response<v1::GetMemoryHistoryResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::memory_key(&it.key)?;
        check_scope(it.scope.as_ref())?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            let scope = it.scope.as_ref();
            query::memory_history(
                read,
                &it.namespace,
                &it.agent_id,
                scope,
                &it.key,
                it.page_size,
                &it.page_token,
            )
        });
        Ok(Response::new(page.await?.0))
    }
}

//! ReleaseService: the release procedure, and the two route changes by hand.

use std::collections::BTreeSet;

use futures::stream::BoxStream;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AbortRelease, Capacity, ExtendQuarantine, HoldRelease, PromoteRelease, RecycleBundle,
    ResumeRelease, Rollback, StartRelease, Switch,
};
use pinrail_proto::v1;
use pinrail_proto::v1::release_service_server::ReleaseService;
use pinrail_state_machine::query;
use tonic::{Request, Response, Status};

use super::forward::slots_of;
use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, validate, watch};

#[derive(Debug)]
pub(crate) struct Releases(pub(crate) Node);

/// What a command about a release answers: the release, whether nothing changed, and the revision.
macro_rules! steer {
    ($self:ident, $request:ident, $it:ident => $kind:expr) => {{
        let timeout = timeout_of(&$request);
        let $it = $request.into_inner();
        let kind = $kind;
        match $self.0.write($it.options, kind, timeout).await? {
            (Answer::Release(it), revision) => (it.release, it.already, revision),
            _ => return Err(mismatch()),
        }
    }};
}

#[tonic::async_trait]
impl ReleaseService for Releases {
    type WatchReleaseStream = BoxStream<'static, Result<v1::WatchReleaseResponse, Status>>;

    async fn plan_release(
        &self,
        request: Request<v1::PlanReleaseRequest>,
    ) -> Result<Response<v1::PlanReleaseResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle(&it.bundle_id)?;
        let plan = self.0.query(it.read.as_ref(), timeout, |read| {
            query::plan_release(read, &it.namespace, &it.agent_id, &it.bundle_id, it.fast)
        });
        let (mut plan, at) = plan.await?;
        plan.revision = at.revision;
        if let Some(workers) = self.0.workers(&it.namespace, &it.agent_id).await {
            let (count, _, free) = slots_of(&workers, &it.bundle_id);
            plan.workers = count;
            plan.free_slots = free;
        }
        Ok(Response::new(plan))
    }

    async fn start_release(
        &self,
        request: Request<v1::StartReleaseRequest>,
    ) -> Result<Response<v1::StartReleaseResponse>, Status> {
        validate::bundle(&request.get_ref().bundle_id)?;
        let (release, _, revision) = steer!(self, request, it => Kind::StartRelease(StartRelease {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            bundle_id: it.bundle_id,
            force: it.force,
            fast: it.fast,
        }));
        Ok(Response::new(v1::StartReleaseResponse { release, revision }))
    }

    async fn get_release(
        &self,
        request: Request<v1::GetReleaseRequest>,
    ) -> Result<Response<v1::GetReleaseResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let release = self.0.query(it.read.as_ref(), timeout, |read| {
            query::release(read, &it.namespace, &it.agent_id, &it.release_id)
        });
        let (release, at) = release.await?;
        let revision = at.revision;
        Ok(Response::new(v1::GetReleaseResponse { release: Some(release), revision }))
    }

    async fn list_releases(
        &self,
        request: Request<v1::ListReleasesRequest>,
    ) -> Result<Response<v1::ListReleasesResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::releases(read, &it.namespace, &it.agent_id, it.page_size, &it.page_token)
        });
        let ((releases, next_page_token), at) = page.await?;
        let revision = at.revision;
        Ok(Response::new(v1::ListReleasesResponse { releases, next_page_token, revision }))
    }

    async fn watch_release(
        &self,
        request: Request<v1::WatchReleaseRequest>,
    ) -> Result<Response<Self::WatchReleaseStream>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        Ok(Response::new(watch::release(self.0.clone(), it, timeout).await?))
    }

    async fn promote_release(
        &self,
        request: Request<v1::PromoteReleaseRequest>,
    ) -> Result<Response<v1::PromoteReleaseResponse>, Status> {
        let (release, _, revision) = steer!(self, request, it => Kind::PromoteRelease(PromoteRelease {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            to: it.to,
            force: it.force,
        }));
        Ok(Response::new(v1::PromoteReleaseResponse { release, revision }))
    }

    async fn hold_release(
        &self,
        request: Request<v1::HoldReleaseRequest>,
    ) -> Result<Response<v1::HoldReleaseResponse>, Status> {
        let (release, already, revision) = steer!(self, request, it => Kind::HoldRelease(
            HoldRelease { agent: agent_ref(&it.namespace, &it.agent_id)? }
        ));
        Ok(Response::new(v1::HoldReleaseResponse { release, already, revision }))
    }

    async fn resume_release(
        &self,
        request: Request<v1::ResumeReleaseRequest>,
    ) -> Result<Response<v1::ResumeReleaseResponse>, Status> {
        let (release, already, revision) = steer!(self, request, it => Kind::ResumeRelease(
            ResumeRelease { agent: agent_ref(&it.namespace, &it.agent_id)? }
        ));
        Ok(Response::new(v1::ResumeReleaseResponse { release, already, revision }))
    }

    async fn abort_release(
        &self,
        request: Request<v1::AbortReleaseRequest>,
    ) -> Result<Response<v1::AbortReleaseResponse>, Status> {
        let (release, _, revision) = steer!(self, request, it => Kind::AbortRelease(
            AbortRelease { agent: agent_ref(&it.namespace, &it.agent_id)? }
        ));
        Ok(Response::new(v1::AbortReleaseResponse { release, revision }))
    }

    async fn extend_quarantine(
        &self,
        request: Request<v1::ExtendQuarantineRequest>,
    ) -> Result<Response<v1::ExtendQuarantineResponse>, Status> {
        let (release, _, revision) = steer!(self, request, it => Kind::ExtendQuarantine(ExtendQuarantine {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            by_ms: validate::optional("until", it.until.as_ref())?,
        }));
        Ok(Response::new(v1::ExtendQuarantineResponse { release, revision }))
    }

    async fn recycle_bundle(
        &self,
        request: Request<v1::RecycleBundleRequest>,
    ) -> Result<Response<v1::RecycleBundleResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle(&it.bundle_id)?;
        let kind = Kind::RecycleBundle(RecycleBundle {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            bundle_id: it.bundle_id,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::RecycleBundle(answer), revision) => {
                Ok(Response::new(v1::RecycleBundleResponse { revision, ..answer }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn switch(
        &self,
        request: Request<v1::SwitchRequest>,
    ) -> Result<Response<v1::SwitchResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle(&it.bundle_id)?;
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        // A switch by force goes on without them.
        let workers = match self.0.known_workers(&it.namespace, &it.agent_id).await {
            Err(status) if !it.force => return Err(status),
            workers => workers.ok(),
        };
        let kind = Kind::Switch(Switch {
            agent,
            capacity: workers.map(|workers| capacity(&workers, &it.bundle_id)),
            bundle_id: it.bundle_id,
            force: it.force,
            expected_epoch: it.expected_epoch,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Switch(switched), revision) => {
                Ok(Response::new(v1::SwitchResponse { revision, ..*switched }))
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
        Ok(Response::new(*answer))
    }
}

/// What the live workers of a bundle can do together.
pub(crate) fn capacity(workers: &[v1::Worker], bundle_id: &str) -> Capacity {
    let (count, _, free_slots) = slots_of(workers, bundle_id);
    let live = |worker: &&v1::Worker| {
        worker.bundle_id == bundle_id && worker.state() == v1::WorkerState::Live
    };
    let steps: BTreeSet<String> =
        workers.iter().filter(live).flat_map(|worker| worker.steps.iter().cloned()).collect();
    let any = workers.iter().filter(live).any(|worker| worker.steps.is_empty());
    Capacity { workers: count, free_slots, steps: steps.into_iter().collect(), any }
}

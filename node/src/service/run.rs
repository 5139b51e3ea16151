//! RunService.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    CancelRun, FinishRun, KeepRun, PauseRun, RepinRun, ResumeRun, RetryRun, RunResult, ScoreRun,
    SignalRun, StartRun,
};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1::run_service_server::RunService;
use pinrail_proto::v1::{self, WriteOptions};
use pinrail_proto::{id, limits, reason};
use pinrail_state_machine::query::{self, CostFilter, RunFilter};
use pinrail_state_machine::store::Read;
use tonic::{Request, Response, Status};

use super::error::refuse;
use super::read::{DEFAULT_TIMEOUT, timeout_of};
use super::write::{agent_ref, mismatch};
use super::{Node, chunks, error, validate, watch};

#[derive(Debug)]
pub(crate) struct Runs(pub(crate) Node);

impl Runs {
    /// The agent's name of a run; a run id of our libraries leads to its agent. A run never changes its agent, so what
    /// is found here is right; a miss may only say that this node is behind, and is confirmed.
    async fn agent_of(
        &self,
        namespace: &str,
        agent_id: &str,
        run_id: &str,
        timeout: Duration,
    ) -> Result<String, Status> {
        if !agent_id.is_empty() {
            return Ok(agent_id.to_owned());
        }
        let agent = |read: &dyn Read| Ok(query::run(read, namespace, "", run_id)?.agent_id);
        if let Ok((agent_id, _)) = self.0.query_now(agent) {
            return Ok(agent_id);
        }
        Ok(self.0.query(None, timeout, agent).await?.0)
    }

    async fn change(
        &self,
        options: Option<WriteOptions>,
        kind: Kind,
        timeout: Duration,
    ) -> Result<(RunResult, u64), Status> {
        match self.0.write(options, kind, timeout).await? {
            (Answer::Run(changed), revision) => Ok((changed, revision)),
            _ => Err(mismatch()),
        }
    }
}

fn check_start(it: &v1::StartRunRequest) -> Result<(), Status> {
    validate::run(&it.run_id)?;
    validate::bundle_or_empty(&it.bundle_id)?;
    if !it.parent_run_id.is_empty() {
        validate::run(&it.parent_run_id)?;
    }
    if !it.session.is_empty() {
        validate::session(&it.session)?;
    }
    check_kind(it.kind())?;
    validate::payload("input", it.input.as_ref())?;
    if it.labels.len() > limits::LABELS {
        let message =
            format!("labels: {}; at most {} are allowed", it.labels.len(), limits::LABELS);
        return Err(refuse(reason::LIMIT_EXCEEDED, message));
    }
    Ok(())
}

/// Shadow runs and drills are started by the leader alone, beside what they belong to.
fn check_kind(kind: v1::RunKind) -> Result<(), Status> {
    match kind {
        v1::RunKind::Unspecified | v1::RunKind::Live | v1::RunKind::Smoke | v1::RunKind::Eval => {
            Ok(())
        }
        v1::RunKind::Canary | v1::RunKind::Shadow | v1::RunKind::Drill => {
            let message = "runs of kind live, smoke and eval can be started; the route and the release procedure \
                           make the others";
            Err(refuse(reason::INVALID_REQUEST, message))
        }
    }
}

#[tonic::async_trait]
impl RunService for Runs {
    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<v1::WatchRunResponse, Status>> + Send>>;

    async fn start_run(
        &self,
        request: Request<v1::StartRunRequest>,
    ) -> Result<Response<v1::StartRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let mut it = request.into_inner();
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        if it.run_id.is_empty() {
            let namespace = if it.namespace.is_empty() { "default" } else { &it.namespace };
            it.run_id =
                id::make_run_id(namespace, &it.agent_id, self.0.replica.env().random_u128());
        }
        check_start(&it)?;
        let wait_ms = validate::optional("wait", it.wait.as_ref())?;
        self.0.starts.take().map_err(error::too_fast)?;
        let run = v1::GetResultRequest {
            namespace: it.namespace,
            agent_id: it.agent_id,
            run_id: it.run_id.clone(),
            ..v1::GetResultRequest::default()
        };
        let waits = wait_ms > 0 && !it.options.as_ref().is_some_and(|options| options.dry_run);
        let starting = waits.then(|| watch::Starting::new(&self.0, &run.run_id, wait_ms));
        // The time that the call takes is mostly for the run.
        let timeout = if waits { timeout.min(DEFAULT_TIMEOUT) } else { timeout };
        let kind = Kind::StartRun(StartRun {
            agent,
            run_id: it.run_id,
            input: it.input,
            labels: it.labels,
            entry: it.entry,
            max_age_ms: validate::positive_or_none("max_age", it.max_age.as_ref())?,
            bundle_id: it.bundle_id,
            kind: it.kind,
            parent_run_id: it.parent_run_id,
            delay_ms: validate::optional("delay", it.delay.as_ref())?,
            session: it.session,
            repinnable: it.repinnable,
            restart_step: it.restart_step,
            priority: it.priority,
            fairness_key: it.fairness_key,
            lease_first: None,
            memory_revision: it.memory_revision,
            memory_layer: 0,
            trace_parent: it.trace_parent,
            callback: it.callback,
        });
        let (Answer::StartRun(started), revision) = self.0.write(it.options, kind, timeout).await?
        else {
            return Err(mismatch());
        };
        let pinned = started.pin.as_ref().map(|pin| pin.bundle_id.clone());
        let mut answer = v1::StartRunResponse {
            run_id: run.run_id.clone(),
            bundle_id: pinned.unwrap_or_default(),
            pin: started.pin,
            state: started.state,
            already: started.already,
            revision,
            result: None,
        };
        if let Some(starting) = starting {
            answer.result = starting.result(&self.0, &run, &answer, timeout).await;
        }
        Ok(Response::new(answer))
    }

    async fn get_run(
        &self,
        request: Request<v1::GetRunRequest>,
    ) -> Result<Response<v1::GetRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let run = self.0.query(it.read.as_ref(), timeout, |read| {
            query::run(read, &it.namespace, &it.agent_id, &it.run_id)
        });
        let (run, at) = run.await?;
        Ok(Response::new(v1::GetRunResponse { run: Some(run), revision: at.revision }))
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle_or_empty(&it.bundle_id)?;
        let filter = RunFilter {
            state: it.state(),
            kind: it.kind(),
            older_than_ms: validate::positive_or_none("older_than", it.older_than.as_ref())?,
            bundle_id: it.bundle_id,
            open: it.open,
            labels: it.labels,
            waiting_for: it.waiting_for,
        };
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::runs(read, &it.namespace, &it.agent_id, &filter, it.page_size, &it.page_token)
        });
        let ((runs, next_page_token), at) = page.await?;
        Ok(Response::new(v1::ListRunsResponse { runs, next_page_token, revision: at.revision }))
    }

    async fn list_steps(
        &self,
        request: Request<v1::ListStepsRequest>,
    ) -> Result<Response<v1::ListStepsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::steps(
                read,
                &it.namespace,
                &it.agent_id,
                &it.run_id,
                it.page_size,
                &it.page_token,
            )
        });
        let ((steps, next_page_token), at) = page.await?;
        Ok(Response::new(v1::ListStepsResponse { steps, next_page_token, revision: at.revision }))
    }

    async fn list_branches(
        &self,
        request: Request<v1::ListBranchesRequest>,
    ) -> Result<Response<v1::ListBranchesResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::branches(
                read,
                &it.namespace,
                &it.agent_id,
                &it.run_id,
                it.step,
                it.page_size,
                &it.page_token,
            )
        });
        let ((branches, next_page_token), at) = page.await?;
        let revision = at.revision;
        Ok(Response::new(v1::ListBranchesResponse { branches, next_page_token, revision }))
    }

    async fn get_result(
        &self,
        request: Request<v1::GetResultRequest>,
    ) -> Result<Response<v1::GetResultResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let wait_ms = validate::optional("wait", it.wait.as_ref())?;
        watch::result(&self.0, it, wait_ms, timeout).await.map(Response::new)
    }

    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let timeout = timeout_of(&request);
        let it = request.get_ref();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let node = self.0.clone();
        Ok(Response::new(match (it.chunks, node.dispatch.leads()) {
            (true, true) => chunks::run(node, request.into_inner(), timeout).await?,
            (true, false) => chunks::relay(&node, request).await?,
            (false, _) => watch::run(node, request.into_inner(), timeout).await?,
        }))
    }

    async fn cancel_run(
        &self,
        request: Request<v1::CancelRunRequest>,
    ) -> Result<Response<v1::CancelRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let agent_id = self.agent_of(&it.namespace, &it.agent_id, &it.run_id, timeout).await?;
        let agent = agent_ref(&it.namespace, &agent_id)?;
        let kind = Kind::CancelRun(CancelRun { agent, run_id: it.run_id.clone() });
        let (changed, revision) = self.change(it.options, kind, timeout).await?;
        let RunResult { state, already, .. } = changed;
        Ok(Response::new(v1::CancelRunResponse { run_id: it.run_id, state, already, revision }))
    }

    async fn retry_run(
        &self,
        request: Request<v1::RetryRunRequest>,
    ) -> Result<Response<v1::RetryRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let agent_id = self.agent_of(&it.namespace, &it.agent_id, &it.run_id, timeout).await?;
        let agent = agent_ref(&it.namespace, &agent_id)?;
        let kind = Kind::RetryRun(RetryRun { agent, run_id: it.run_id.clone() });
        let (changed, revision) = self.change(it.options, kind, timeout).await?;
        let state = changed.state;
        Ok(Response::new(v1::RetryRunResponse { run_id: it.run_id, state, revision }))
    }

    async fn pause_run(
        &self,
        request: Request<v1::PauseRunRequest>,
    ) -> Result<Response<v1::PauseRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let agent_id = self.agent_of(&it.namespace, &it.agent_id, &it.run_id, timeout).await?;
        let agent = agent_ref(&it.namespace, &agent_id)?;
        let kind = Kind::PauseRun(PauseRun { agent, run_id: it.run_id.clone() });
        let (changed, revision) = self.change(it.options, kind, timeout).await?;
        let RunResult { state, already, .. } = changed;
        Ok(Response::new(v1::PauseRunResponse { run_id: it.run_id, state, already, revision }))
    }

    async fn resume_run(
        &self,
        request: Request<v1::ResumeRunRequest>,
    ) -> Result<Response<v1::ResumeRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let agent_id = self.agent_of(&it.namespace, &it.agent_id, &it.run_id, timeout).await?;
        let agent = agent_ref(&it.namespace, &agent_id)?;
        let kind = Kind::ResumeRun(ResumeRun { agent, run_id: it.run_id.clone() });
        let (changed, revision) = self.change(it.options, kind, timeout).await?;
        let state = changed.state;
        Ok(Response::new(v1::ResumeRunResponse { run_id: it.run_id, state, revision }))
    }

    async fn repin_run(
        &self,
        request: Request<v1::RepinRunRequest>,
    ) -> Result<Response<v1::RepinRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        validate::bundle_or_empty(&it.bundle_id)?;
        let agent_id = self.agent_of(&it.namespace, &it.agent_id, &it.run_id, timeout).await?;
        let agent = agent_ref(&it.namespace, &agent_id)?;
        let run_id = it.run_id.clone();
        let kind = Kind::RepinRun(RepinRun { agent, run_id, bundle_id: it.bundle_id });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::RepinRun(answer), revision) => {
                Ok(Response::new(v1::RepinRunResponse { run_id: it.run_id, revision, ..answer }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn signal_run(
        &self,
        request: Request<v1::SignalRunRequest>,
    ) -> Result<Response<v1::SignalRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        validate::signal(&it.name)?;
        validate::payload("value", it.value.as_ref())?;
        let agent_id = self.agent_of(&it.namespace, &it.agent_id, &it.run_id, timeout).await?;
        let agent = agent_ref(&it.namespace, &agent_id)?;
        let run_id = it.run_id.clone();
        let kind = Kind::SignalRun(SignalRun { agent, run_id, name: it.name, value: it.value });
        let (changed, revision) = self.change(it.options, kind, timeout).await?;
        let RunResult { state, delivered, .. } = changed;
        Ok(Response::new(v1::SignalRunResponse { run_id: it.run_id, state, delivered, revision }))
    }

    async fn score_run(
        &self,
        request: Request<v1::ScoreRunRequest>,
    ) -> Result<Response<v1::ScoreRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let agent_id = self.agent_of(&it.namespace, &it.agent_id, &it.run_id, timeout).await?;
        let kind = Kind::ScoreRun(ScoreRun {
            agent: agent_ref(&it.namespace, &agent_id)?,
            run_id: it.run_id,
            score_permille: it.score_permille,
            source: it.source,
            comment: it.comment,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::ScoreRun(answer), revision) => {
                Ok(Response::new(v1::ScoreRunResponse { revision, ..answer }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn finish_run(
        &self,
        request: Request<v1::FinishRunRequest>,
    ) -> Result<Response<v1::FinishRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        validate::payload("output", it.output.as_ref())?;
        let agent_id = self.agent_of(&it.namespace, &it.agent_id, &it.run_id, timeout).await?;
        let kind = Kind::FinishRun(FinishRun {
            agent: agent_ref(&it.namespace, &agent_id)?,
            run_id: it.run_id.clone(),
            outcome: it.outcome,
            output: it.output,
            failure: it.failure,
            usage: it.usage,
        });
        let (changed, revision) = self.change(it.options, kind, timeout).await?;
        let RunResult { state, already, .. } = changed;
        Ok(Response::new(v1::FinishRunResponse { run_id: it.run_id, state, already, revision }))
    }

    async fn keep_run(
        &self,
        request: Request<v1::KeepRunRequest>,
    ) -> Result<Response<v1::KeepRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let agent_id = self.agent_of(&it.namespace, &it.agent_id, &it.run_id, timeout).await?;
        let agent = agent_ref(&it.namespace, &agent_id)?;
        let kind = Kind::KeepRun(KeepRun { agent, run_id: it.run_id });
        let (changed, revision) = self.change(it.options, kind, timeout).await?;
        let keep_until = timestamp(changed.keep_until_ms);
        Ok(Response::new(v1::KeepRunResponse { keep_until, revision }))
    }

    async fn explain_run(
        &self,
        request: Request<v1::ExplainRunRequest>,
    ) -> Result<Response<v1::ExplainRunResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::run_of(&it.namespace, &it.agent_id, &it.run_id)?;
        let now_ms = self.0.replica.cluster_time_ms();
        let explained = self.0.query(it.read.as_ref(), timeout, |read| {
            query::explain_run(read, &it.namespace, &it.agent_id, &it.run_id, now_ms)
        });
        Ok(Response::new(explained.await?.0))
    }

    async fn get_costs(
        &self,
        request: Request<v1::GetCostsRequest>,
    ) -> Result<Response<v1::GetCostsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle_or_empty(&it.bundle_id)?;
        let filter = CostFilter { by: it.by(), bundle_id: it.bundle_id };
        let costs = self.0.query(it.read.as_ref(), timeout, |read| {
            query::costs(read, &it.namespace, &it.agent_id, &filter, it.page_size, &it.page_token)
        });
        let (costs, _) = costs.await?;
        let currency = self.0.currency.to_string();
        Ok(Response::new(v1::GetCostsResponse { currency, ..costs }))
    }
}

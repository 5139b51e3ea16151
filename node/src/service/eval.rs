//! EvalService: sets, reports, coverage.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{CreateEvalSet, SubmitEvalReport};
use pinrail_proto::reason;
use pinrail_proto::v1;
use pinrail_proto::v1::eval_service_server::EvalService;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query;
use pinrail_state_machine::store::Read;
use tonic::{Request, Response, Status};

use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, error, validate};
use crate::driver::evals::{self, Question};

#[derive(Debug)]
pub(crate) struct Evals(pub(crate) Node);

#[tonic::async_trait]
impl EvalService for Evals {
    async fn create_eval_set(
        &self,
        request: Request<v1::CreateEvalSetRequest>,
    ) -> Result<Response<v1::CreateEvalSetResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        it.examples.iter().try_for_each(expectation)?;
        let set = v1::EvalSet {
            name: it.name,
            version: it.version,
            description: it.description,
            metrics: it.metrics,
            memory_revision: it.memory_revision,
            examples: it.examples,
            ..v1::EvalSet::default()
        };
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        let kind = Kind::CreateEvalSet(CreateEvalSet { agent, set: Some(set) });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::EvalSet(made), revision) => Ok(Response::new(v1::CreateEvalSetResponse {
                set: made.set,
                already: made.already,
                revision,
            })),
            _ => Err(mismatch()),
        }
    }

    async fn list_eval_sets(
        &self,
        request: Request<v1::ListEvalSetsRequest>,
    ) -> Result<Response<v1::ListEvalSetsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::eval_sets(read, &it.namespace, &it.agent_id, it.page_size, &it.page_token)
        });
        let ((sets, next_page_token), at) = page.await?;
        Ok(Response::new(v1::ListEvalSetsResponse { sets, next_page_token, revision: at.revision }))
    }

    async fn get_eval_set(
        &self,
        request: Request<v1::GetEvalSetRequest>,
    ) -> Result<Response<v1::GetEvalSetResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let set = self.0.query(it.read.as_ref(), timeout, |read| {
            query::eval_set(read, &it.namespace, &it.agent_id, &it.set)
        });
        let (set, at) = set.await?;
        Ok(Response::new(v1::GetEvalSetResponse { set: Some(set), revision: at.revision }))
    }

    async fn submit_eval_report(
        &self,
        request: Request<v1::SubmitEvalReportRequest>,
    ) -> Result<Response<v1::SubmitEvalReportResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle(&it.bundle_id)?;
        let report = v1::EvalReport {
            bundle_id: it.bundle_id,
            set: it.set,
            format: it.format,
            source: it.source,
            metrics: it.metrics,
            results: it.results,
            ..v1::EvalReport::default()
        };
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        let kind = Kind::SubmitEvalReport(SubmitEvalReport { agent, report: Some(report) });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::EvalReport(made), revision) => {
                Ok(Response::new(v1::SubmitEvalReportResponse {
                    report: made.report,
                    already: made.already,
                    revision,
                }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn list_eval_reports(
        &self,
        request: Request<v1::ListEvalReportsRequest>,
    ) -> Result<Response<v1::ListEvalReportsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle_or_empty(&it.bundle_id)?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            let (namespace, agent) = (&it.namespace, &it.agent_id);
            query::eval_reports(read, namespace, agent, &it.bundle_id, it.page_size, &it.page_token)
        });
        let ((reports, next_page_token), at) = page.await?;
        let revision = at.revision;
        Ok(Response::new(v1::ListEvalReportsResponse { reports, next_page_token, revision }))
    }

    async fn get_eval_report(
        &self,
        request: Request<v1::GetEvalReportRequest>,
    ) -> Result<Response<v1::GetEvalReportResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle(&it.bundle_id)?;
        let report = self.0.query(it.read.as_ref(), timeout, |read| {
            query::eval_report(read, &it.namespace, &it.agent_id, &it.bundle_id, &it.report_id)
        });
        let (mut report, at) = report.await?;
        if it.failed {
            report.results.retain(|result| result.outcome() != v1::EvalOutcome::Passed);
        }
        Ok(Response::new(v1::GetEvalReportResponse { report: Some(report), revision: at.revision }))
    }

    async fn judge_evals(
        &self,
        request: Request<v1::JudgeEvalsRequest>,
    ) -> Result<Response<v1::JudgeEvalsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle(&it.bundle_id)?;
        let judgement = self.0.query(it.read.as_ref(), timeout, |read| judge(read, &it));
        let (judgement, at) = judgement.await?;
        let judgement = Some(judgement);
        Ok(Response::new(v1::JudgeEvalsResponse { judgement, revision: at.revision }))
    }

    async fn get_eval_coverage(
        &self,
        request: Request<v1::GetEvalCoverageRequest>,
    ) -> Result<Response<v1::GetEvalCoverageResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle_or_empty(&it.bundle_id)?;
        let coverage = self.0.query(it.read.as_ref(), timeout, |read| {
            query::eval_coverage(read, &it.namespace, &it.agent_id, &it.bundle_id, &it.set)
        });
        let (coverage, at) = coverage.await?;
        let coverage = Some(coverage);
        Ok(Response::new(v1::GetEvalCoverageResponse { coverage, revision: at.revision }))
    }
}

/// By the policy as it is now, against what is live now.
fn judge(read: &dyn Read, it: &v1::JudgeEvalsRequest) -> Result<v1::EvalJudgement, Stop> {
    let agent = query::agent(read, &it.namespace, &it.agent_id)?;
    let number = query::agent_number(read, &it.namespace, &it.agent_id)?;
    query::bundle(read, &it.namespace, &it.agent_id, &it.bundle_id)?;
    let gates = agent.policy.unwrap_or_default().gates.unwrap_or_default();
    let mut gate = gates.evals.unwrap_or_default();
    if !it.set.is_empty() {
        gate.set.clone_from(&it.set);
    }
    let live = agent.route.unwrap_or_default().live_bundle_id;
    let asked = Question { agent: number, candidate: &it.bundle_id, baseline: &live, gate: &gate };
    let mut judgement = evals::judge(read, &asked)?;
    for line in &mut judgement.next {
        *line = line.replace("AGENT", &it.agent_id);
    }
    Ok(judgement)
}

/// What the core does not know: JSON.
fn expectation(example: &v1::EvalExample) -> Result<(), Status> {
    validate::payload("input of an example", example.input.as_ref())?;
    let expect = example.expect.clone().unwrap_or_default();
    validate::payload("expectation of an example", expect.exact.as_ref())?;
    if !expect.schema.is_empty() {
        let schema: Result<serde_json::Value, _> = serde_json::from_str(&expect.schema);
        schema.map_err(|cause| {
            let message = format!("the schema of example {:?} is no JSON: {cause}", example.id);
            error::refuse(reason::INVALID_EVAL_SET, message)
        })?;
    }
    Ok(())
}

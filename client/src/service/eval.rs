//! Sets of examples, and how bundles did on them.

use pinrail_proto::v1;
use pinrail_proto::v1::eval_service_client::EvalServiceClient;

use crate::client::Client;
use crate::service::methods;

/// `EvalService`.
#[derive(Debug, Clone, Copy)]
pub struct Evals<'c> {
    pub(super) client: &'c Client,
}

methods! { Evals, EvalServiceClient:
    /// Registers a version of a set; the same content again is a no-op.
    write create_eval_set as create_set(CreateEvalSetRequest) -> CreateEvalSetResponse;
    /// A page of sets, without examples.
    read list_eval_sets as list_sets(ListEvalSetsRequest) -> ListEvalSetsResponse;
    /// One version of a set with its examples.
    read get_eval_set as get_set(GetEvalSetRequest) -> GetEvalSetResponse;
    /// Says how a bundle did; the same content again is a no-op.
    write submit_eval_report as submit(SubmitEvalReportRequest) -> SubmitEvalReportResponse;
    /// A page of reports, newest first, without results.
    read list_eval_reports as list_reports(ListEvalReportsRequest) -> ListEvalReportsResponse;
    /// One report with its results.
    read get_eval_report as get_report(GetEvalReportRequest) -> GetEvalReportResponse;
    /// What the gate would say of a bundle now.
    read judge_evals as judge(JudgeEvalsRequest) -> JudgeEvalsResponse;
    /// The categories of a set beside those of production.
    read get_eval_coverage as coverage(GetEvalCoverageRequest) -> GetEvalCoverageResponse;
}

//! ReportService: what a release was, for whoever was not there.

mod markdown;

use pinrail_proto::v1;
use pinrail_proto::v1::report_service_server::ReportService;
use pinrail_state_machine::query;
use tonic::{Request, Response, Status};

use super::Node;
use super::read::timeout_of;
use super::write::agent_ref;

#[derive(Debug)]
pub(crate) struct Reports(pub(crate) Node);

#[tonic::async_trait]
impl ReportService for Reports {
    async fn get_release_report(
        &self,
        request: Request<v1::GetReleaseReportRequest>,
    ) -> Result<Response<v1::GetReleaseReportResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let now_ms = self.0.replica.cluster_time_ms();
        let report = self.0.query(it.read.as_ref(), timeout, |read| {
            query::release_report(read, &it.namespace, &it.agent_id, &it.release_id, now_ms)
        });
        let (mut report, at) = report.await?;
        report.currency = self.0.currency.to_string();
        report.markdown = markdown::of(&report);
        let revision = at.revision;
        Ok(Response::new(v1::GetReleaseReportResponse { report: Some(report), revision }))
    }
}

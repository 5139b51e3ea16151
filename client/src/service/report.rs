//! What a release was.

use pinrail_proto::v1;
use pinrail_proto::v1::report_service_client::ReportServiceClient;

use crate::client::Client;
use crate::service::methods;

/// `ReportService`.
#[derive(Debug, Clone, Copy)]
pub struct Reports<'c> {
    pub(super) client: &'c Client,
}

methods! { Reports, ReportServiceClient:
    /// The active release, else the newest; or one by its id.
    read get_release_report as release(GetReleaseReportRequest) -> GetReleaseReportResponse;
}

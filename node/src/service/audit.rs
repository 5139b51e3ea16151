//! AuditService.

use pinrail_proto::v1;
use pinrail_proto::v1::audit_service_server::AuditService;
use pinrail_state_machine::query::{self, AuditCheck, AuditFilter};
use tonic::{Request, Response, Status};

use super::event::{check, namespace_of};
use super::read::timeout_of;
use super::{Node, validate};

#[derive(Debug)]
pub(super) struct Audits(pub(super) Node);

#[tonic::async_trait]
impl AuditService for Audits {
    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        check(&it.namespace, &it.agent_id)?;
        let since_ms = validate::instant("since", it.since.as_ref())?;
        let filter = AuditFilter {
            namespace: namespace_of(it.namespace, &it.agent_id),
            agent_id: it.agent_id,
            actor: it.actor,
            action: it.action,
            since_ms,
        };
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::audit(read, &filter, it.page_size, &it.page_token)
        });
        let ((entries, next_page_token), at) = page.await?;
        let revision = at.revision;
        Ok(Response::new(v1::ListAuditResponse { entries, next_page_token, revision }))
    }

    async fn verify_audit(
        &self,
        request: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let check = AuditCheck {
            from_sequence: it.from_sequence,
            from_hash: it.from_hash,
            expect_sequence: it.expect_sequence,
            expect_hash: it.expect_hash,
        };
        let page =
            self.0.query(it.read.as_ref(), timeout, |read| query::verify_audit(read, &check));
        let (answer, at) = page.await?;
        Ok(Response::new(v1::VerifyAuditResponse { revision: at.revision, ..answer }))
    }
}

//! The release procedure, and route changes by hand.

use pinrail_proto::v1;
use pinrail_proto::v1::release_service_client::ReleaseServiceClient;

use crate::client::Client;
use crate::error::Result;
use crate::service::resume::Resumed;
use crate::service::{methods, open};

/// `ReleaseService`.
#[derive(Debug, Clone, Copy)]
pub struct Releases<'c> {
    pub(super) client: &'c Client,
}

methods! { Releases, ReleaseServiceClient:
    /// What a release would go through.
    read plan_release as plan(PlanReleaseRequest) -> PlanReleaseResponse;
    /// Begins the release of a bundle.
    write start_release as start(StartReleaseRequest) -> StartReleaseResponse;
    /// The active release, else the newest; or one by its id.
    read get_release as get(GetReleaseRequest) -> GetReleaseResponse;
    /// A page of releases, newest first.
    read list_releases as list(ListReleasesRequest) -> ListReleasesResponse;
    /// Goes on from a hold, or past a stage.
    write promote_release as promote(PromoteReleaseRequest) -> PromoteReleaseResponse;
    /// Stops the timers of the stage.
    write hold_release as hold(HoldReleaseRequest) -> HoldReleaseResponse;
    /// Ends a hold.
    write resume_release as resume(ResumeReleaseRequest) -> ResumeReleaseResponse;
    /// Ends the active release.
    write abort_release as abort(AbortReleaseRequest) -> AbortReleaseResponse;
    /// Keeps the standby for longer.
    write extend_quarantine as extend_quarantine(ExtendQuarantineRequest) -> ExtendQuarantineResponse;
    /// Gives a bundle's environment and memory up.
    write recycle_bundle as recycle(RecycleBundleRequest) -> RecycleBundleResponse;
    /// Makes a bundle live.
    write switch as switch(SwitchRequest) -> SwitchResponse;
    /// Returns to the bundle that was live before.
    write rollback as rollback(RollbackRequest) -> RollbackResponse;
}

impl Releases<'_> {
    /// Follows a release until it ends; resumes at another member where it stopped.
    #[must_use]
    pub fn watch(&self, request: v1::WatchReleaseRequest) -> ReleaseWatch {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        ReleaseWatch { stream: Resumed::new(self.client, request), seen: 0, ended: false }
    }
}

/// A release as it goes on.
#[derive(Debug)]
pub struct ReleaseWatch {
    stream: Resumed<v1::WatchReleaseRequest, v1::WatchReleaseResponse>,
    seen: u64,
    ended: bool,
}

impl ReleaseWatch {
    /// The release after its next change; none when it is over.
    ///
    /// # Errors
    /// A refusal, or that no member answers for a whole timeout.
    pub async fn next(&mut self) -> Result<Option<v1::Release>> {
        while !self.ended {
            let Some(release) =
                self.stream.next(open!(ReleaseServiceClient::watch_release)).await?.release
            else {
                continue;
            };
            // The same release at another member, however many follow it.
            self.stream.request.release_id.clone_from(&release.release_id);
            self.ended = release.ended_at.is_some();
            if release.revision > self.seen {
                self.seen = release.revision;
                return Ok(Some(release));
            }
        }
        Ok(None)
    }
}

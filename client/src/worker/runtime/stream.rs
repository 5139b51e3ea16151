//! The worker's side of its stream: opened, welcomed, lost, and what the cluster says on it.

use std::sync::Arc;

use pinrail_proto::v1::{self, work_response};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use crate::error::Result;
use crate::retry::{Verdict, backoff, judge};
use crate::worker::bundle::BundleView;
use crate::worker::held::list;
use crate::worker::link::{Link, OpenError};
use crate::worker::outbox::Settled;

use super::{HEARTBEAT, Opening, Runtime};

/// How long a full stream is left alone.
const CROWDED: Duration = Duration::from_millis(20);
/// A worker that was welcomed before gives up after so many refusals in a row.
const REFUSALS: u32 = 5;

impl Runtime {
    pub(super) fn hello(&self) -> v1::WorkerHello {
        let held = list(self.held.iter().map(|(token, lease)| (*token, lease)));
        let tools = self.plan.tools.short();
        v1::WorkerHello { held, tools, ..self.plan.hello.clone() }
    }

    pub(super) fn opened(
        &mut self,
        opened: std::result::Result<(Link, v1::Welcome), OpenError>,
    ) -> Result<()> {
        self.opening = None;
        match opened {
            Ok((link, welcome)) => return self.welcomed(link, welcome),
            Err(OpenError::Refused(error)) => {
                self.refusals += 1;
                if self.bundle.is_none() || self.refusals >= REFUSALS {
                    return Err(error);
                }
                tracing::warn!(%error, "the cluster refuses this worker; it tries again");
            }
            Err(OpenError::NotNow { error, .. } | OpenError::Failed(error)) => {
                tracing::debug!(%error, "no stream");
            }
        }
        let wait = self.plan.client.connection().jitter(backoff(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.open_at = Some(Instant::now() + wait);
        Ok(())
    }

    fn welcomed(&mut self, link: Link, welcome: v1::Welcome) -> Result<()> {
        tracing::info!(
            endpoint = link.address,
            bundle = self.plan.hello.bundle_id,
            worker = self.plan.hello.worker_id,
            verified = welcome.verified,
            held = self.held.len(),
            "worker is connected"
        );
        if self.bundle.is_none() {
            let bundle = welcome.bundle.unwrap_or_default();
            let view = BundleView::new(bundle, welcome.sample_permille)?;
            self.bundle = Some(Arc::new(view));
        }
        self.usage_at_once = welcome.usage_at_once;
        let every = welcome.heartbeat_interval.as_ref().and_then(pinrail_proto::time::millis);
        let every = every.filter(|ms| *ms > 0).map_or(HEARTBEAT, Duration::from_millis);
        // The first tick comes at once and tells the new stream what is held.
        self.heartbeat = interval(every);
        self.heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.link = Some(link);
        self.tell_progress_again();
        self.told_tools = 0;
        self.failures = 0;
        self.refusals = 0;
        self.slots.stream_opened();
        Ok(())
    }

    fn lost(&mut self, why: &str) {
        let Some(address) = self.unlink(why) else { return };
        self.plan.client.connection().failed(&address, why);
    }

    fn broken(&mut self, status: &tonic::Status) {
        let Some(address) = self.unlink(status.message()) else { return };
        let connection = self.plan.client.connection();
        match judge(status) {
            // A member that merely leads no more did nothing wrong.
            Verdict::NotDone { leader, unreachable: false, .. } => {
                connection.redirected(leader.as_deref());
            }
            Verdict::NotDone { .. } | Verdict::Refused(_) | Verdict::Unknown { .. } => {
                connection.failed(&address, status.message());
            }
        }
    }

    /// The stream is gone: everything that was not answered waits for the next one.
    fn unlink(&mut self, why: &str) -> Option<String> {
        let link = self.link.take()?;
        tracing::info!(endpoint = link.address, why, "worker lost its stream");
        self.outbox.stream_lost();
        self.crowded_until = None;
        self.open_at = Some(Instant::now());
        Some(link.address)
    }

    pub(super) fn received(
        &mut self,
        message: std::result::Result<Option<v1::WorkResponse>, tonic::Status>,
    ) {
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return self.lost("the member ended it"),
            Err(status) => return self.broken(&status),
        };
        let (sequence, now) = (response.sequence, Instant::now());
        let settled = match response.message {
            Some(work_response::Message::Done(done)) => self.outbox.done(sequence, done),
            Some(work_response::Message::Refused(refused)) => {
                self.outbox.refused(sequence, refused, now)
            }
            Some(work_response::Message::Unknown(_)) => self.outbox.unknown(sequence, now),
            Some(work_response::Message::Assignment(assignment)) => {
                return self.assigned(*assignment);
            }
            Some(work_response::Message::Cancel(cancel)) => return self.cancel(&cancel),
            Some(work_response::Message::Drain(_)) => {
                tracing::info!("worker is drained: it takes no more work");
                self.draining = true;
                return;
            }
            // A second welcome, or a message of a later version.
            Some(work_response::Message::Welcome(_)) | None => return,
        };
        match settled {
            Settled::LeaseOver { token, next } => self.lease_over(token, &next),
            Settled::Other | Settled::Again => {}
        }
    }

    /// Whether the stream took the message.
    pub(super) fn send(&mut self, request: v1::WorkRequest) -> bool {
        let Some(link) = &self.link else { return false };
        match link.outbound.try_send(request) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.crowded_until = Some(Instant::now() + CROWDED);
                false
            }
            Err(TrySendError::Closed(_)) => {
                self.lost("the stream was closed");
                false
            }
        }
    }
}

/// What became of a stream that is being opened.
pub(super) async fn opened(
    opening: &mut Option<Opening>,
) -> std::result::Result<(Link, v1::Welcome), OpenError> {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

/// The next message on the stream.
pub(super) async fn received(
    link: &mut Option<Link>,
) -> std::result::Result<Option<v1::WorkResponse>, tonic::Status> {
    match link {
        Some(link) => link.inbound.message().await,
        None => std::future::pending().await,
    }
}

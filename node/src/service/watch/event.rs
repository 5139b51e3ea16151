//! The event stream.

use std::sync::Arc;
use std::time::Duration;

use pinrail_proto::v1;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{self, EventFilter, Position};
use pinrail_state_machine::store::Read;
use tokio::time::Instant;
use tonic::Status;

use crate::raft::AppliedBatch;

use super::super::Node;
use super::{Answers, Looks, PAGE, PROGRESS, Then, Watched, follow};

/// Events after a revision, then as they happen. A page without events is sent only to say how far the stream is, and
/// only now and then: a busy cluster would otherwise flood who watches a quiet agent.
pub(in super::super) async fn events(
    node: Node,
    filter: EventFilter,
    timeout: Duration,
) -> Result<Answers<v1::WatchEventsResponse>, Status> {
    let looks = Arc::clone(&node.looks);
    follow(node, Events { filter, told: None, looks }, timeout).await
}

struct Events {
    filter: EventFilter,
    told: Option<Instant>,
    looks: Arc<Looks>,
}

impl Watched for Events {
    type Found = (Vec<v1::Event>, u64);
    type Answer = v1::WatchEventsResponse;

    const PATIENCE: Duration = PROGRESS;

    fn look(&self, read: &dyn Read) -> Result<(Vec<v1::Event>, u64), Stop> {
        self.looks.events.look(read, &self.filter, || query::events(read, &self.filter, PAGE))
    }

    fn tell(
        &mut self,
        (events, next): (Vec<v1::Event>, u64),
        at: Position,
    ) -> (Option<v1::WatchEventsResponse>, Then) {
        let advanced = next > self.filter.after_revision;
        let revision = next.max(self.filter.after_revision);
        self.filter.after_revision = revision;
        // Not at the end of what is kept yet: a filter that matches little gets pages without events before it.
        let then = if advanced && revision < at.revision { Then::GoOn } else { Then::Wait };
        if events.is_empty() && self.told.is_some_and(|told| told.elapsed() < PROGRESS) {
            return (None, then);
        }
        self.told = Some(Instant::now());
        (Some(v1::WatchEventsResponse { events, revision }), then)
    }

    /// Which events were written is known only by reading them.
    fn is_concerned(&self, _: &AppliedBatch) -> bool {
        true
    }
}

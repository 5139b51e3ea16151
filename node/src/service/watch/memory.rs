//! What changes in memory.

use std::sync::Arc;
use std::time::Duration;

use pinrail_proto::v1;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{self, MemoryFilter, Position};
use pinrail_state_machine::store::Read;
use tokio::time::Instant;
use tonic::Status;

use crate::raft::AppliedBatch;

use super::super::Node;
use super::{Answers, Looks, PAGE, PROGRESS, Then, Watched, follow};

/// Changes of memory after a revision, then as they happen; and each time the scope has come to mean another layer.
pub(in super::super) async fn memory(
    node: Node,
    filter: MemoryFilter,
    timeout: Duration,
) -> Result<Answers<v1::WatchMemoryResponse>, Status> {
    let looks = Arc::clone(&node.looks);
    follow(node, Memory { filter, told: None, looks }, timeout).await
}

struct Memory {
    filter: MemoryFilter,
    /// When something was said last, and the layer that the scope meant then.
    told: Option<(Instant, u64)>,
    looks: Arc<Looks>,
}

impl Watched for Memory {
    type Found = v1::WatchMemoryResponse;
    type Answer = v1::WatchMemoryResponse;

    const PATIENCE: Duration = PROGRESS;

    fn look(&self, read: &dyn Read) -> Result<v1::WatchMemoryResponse, Stop> {
        let look = || query::memory_changes(read, &self.filter, PAGE);
        self.looks.memory.look(read, &self.filter, look)
    }

    fn tell(
        &mut self,
        page: v1::WatchMemoryResponse,
        at: Position,
    ) -> (Option<v1::WatchMemoryResponse>, Then) {
        let advanced = page.revision > self.filter.after_revision;
        self.filter.after_revision = self.filter.after_revision.max(page.revision);
        // Not at the end of what is kept yet: there is more to read at once.
        let is_behind = advanced && self.filter.after_revision < at.revision;
        let then = if is_behind { Then::GoOn } else { Then::Wait };
        let is_quiet = self.told.is_some_and(|(when, layer)| {
            page.versions.is_empty() && layer == page.layer && when.elapsed() < PROGRESS
        });
        if is_quiet {
            return (None, then);
        }
        self.told = Some((Instant::now(), page.layer));
        (Some(page), then)
    }

    /// Whether the scope sees what was written is known only by reading it.
    fn is_concerned(&self, _: &AppliedBatch) -> bool {
        true
    }
}

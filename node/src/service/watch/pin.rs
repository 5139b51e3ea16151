//! What becomes of an agent's pins.

use std::sync::Arc;
use std::time::Duration;

use pinrail_proto::v1;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{self, PinCursor, Position};
use pinrail_state_machine::store::Read;
use tokio::time::Instant;
use tonic::Status;

use crate::raft::AppliedBatch;

use super::super::Node;
use super::{Answers, Looks, PROGRESS, Then, Watched, follow};

/// Pins or events read at once.
const PAGE: u32 = 500;

/// All open pins, unless the cursor is behind them, then each that is made, moves, changes or ends. An answer without pins says
/// that the list is complete, or now and then how far the stream is.
pub(in super::super) async fn pins(
    node: Node,
    cursor: PinCursor,
    timeout: Duration,
) -> Result<Answers<v1::WatchPinsResponse>, Status> {
    let looks = Arc::clone(&node.looks);
    follow(node, Pins { cursor, told: None, looks }, timeout).await
}

struct Pins {
    cursor: PinCursor,
    told: Option<Instant>,
    looks: Arc<Looks>,
}

impl Watched for Pins {
    type Found = (Vec<v1::LookupPinResponse>, PinCursor);
    type Answer = v1::WatchPinsResponse;

    const PATIENCE: Duration = PROGRESS;

    fn look(&self, read: &dyn Read) -> Result<Self::Found, Stop> {
        let look = || query::pin_changes(read, &self.cursor, PAGE);
        self.looks.pins.look(read, &self.cursor, look)
    }

    fn tell(
        &mut self,
        (pins, next): Self::Found,
        at: Position,
    ) -> (Option<v1::WatchPinsResponse>, Then) {
        let before = std::mem::replace(&mut self.cursor, next);
        let then = if self.cursor.is_behind(at.revision) { Then::GoOn } else { Then::Wait };
        let revision = self.cursor.revision();
        let is_listed = before.revision() == 0 && revision != 0;
        let is_quiet = self.told.is_some_and(|told| told.elapsed() < PROGRESS);
        if pins.is_empty() && is_quiet && !is_listed {
            return (None, then);
        }
        self.told = Some(Instant::now());
        (Some(v1::WatchPinsResponse { pins, revision, begins: before.is_new() }), then)
    }

    /// Which runs have another pin is known only by reading the events.
    fn is_concerned(&self, _: &AppliedBatch) -> bool {
        true
    }
}

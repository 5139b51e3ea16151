//! Waiting for the result of a run.

use std::time::Duration;

use pinrail_proto::v1;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query;
use pinrail_state_machine::store::Read;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::super::Node;
use super::Watching;
use super::closings::Closing;

/// The longest that one call waits for a result; callers ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Waits until a run is over, at most `wait_ms`.
pub(in super::super) async fn result(
    node: &Node,
    it: v1::GetResultRequest,
    wait_ms: u64,
    timeout: Duration,
) -> Result<v1::GetResultResponse, Status> {
    let deadline = deadline(wait_ms);
    let closing = node.closings.wait_for(&it.run_id);
    let (answer, at) = node.query(it.read.as_ref(), timeout, look(&it)).await?;
    // Who waits is a watcher too; who only looks is not.
    if answer.closed || wait_ms == 0 {
        return Ok(answer);
    }
    let _watching = Watching::begin(node)?;
    let known = Known { run: &it, revision: at.revision };
    Ok(end(node, known, closing, deadline, timeout).await?.unwrap_or(answer))
}

/// Somebody who starts a run and waits for its result.
pub(in super::super) struct Starting {
    /// From before the start on: the run may be over before its start is answered.
    closing: Closing,
    deadline: Instant,
}

impl Starting {
    pub(in super::super) fn new(node: &Node, run_id: &str, wait_ms: u64) -> Self {
        Self { closing: node.closings.wait_for(run_id), deadline: deadline(wait_ms) }
    }

    /// Waits for the end of the run, which has been started. None: it is not over by then, or who asks for its result will be told
    /// why there is none; that it was started is what counts.
    pub(in super::super) async fn result(
        self,
        node: &Node,
        it: &v1::GetResultRequest,
        started: &v1::StartRunResponse,
        timeout: Duration,
    ) -> Option<v1::GetResultResponse> {
        let _watching = Watching::begin(node).ok()?;
        let is_new = started.pin.as_ref().is_some_and(|pin| pin.revision == started.revision);
        if !is_new {
            // It was started before, by its id or by that of the request, and may have been over long ago.
            let (answer, _) = node.query(None, timeout, look(it)).await.ok()?;
            if answer.closed {
                return Some(answer);
            }
        }
        let known = Known { run: it, revision: started.revision };
        let last = end(node, known, self.closing, self.deadline, timeout).await.ok()?;
        last.filter(|answer| answer.closed)
    }
}

fn deadline(wait_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms).min(LONGEST_WAIT)
}

/// A run that is there since a revision, which a follower may not have come to.
struct Known<'a> {
    run: &'a v1::GetResultRequest,
    revision: u64,
}

fn look(
    it: &v1::GetResultRequest,
) -> impl Fn(&dyn Read) -> Result<v1::GetResultResponse, Stop> + '_ {
    |read| query::result(read, &it.namespace, &it.agent_id, &it.run_id)
}

/// Waits until a run that was not over when `closing` began is, or the deadline has come. What the last look showed; none: there was
/// no reason to look.
async fn end(
    node: &Node,
    known: Known<'_>,
    mut closing: Closing,
    deadline: Instant,
    timeout: Duration,
) -> Result<Option<v1::GetResultResponse>, Status> {
    let Known { run, revision } = known;
    let local = v1::Consistency::Local.into();
    let at_least = v1::ReadOptions { consistency: local, min_revision: revision };
    let mut last = None;
    while let Ok(true) = timeout_at(deadline, closing.woken()).await {
        closing = node.closings.wait_for(&run.run_id);
        let (answer, _) = node.query(Some(&at_least), timeout, look(run)).await?;
        let is_over = answer.closed;
        last = Some(answer);
        if is_over {
            break;
        }
    }
    Ok(last)
}

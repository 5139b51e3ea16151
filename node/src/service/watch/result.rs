//! Waiting for the result of a run.

use std::time::Duration;

use pinrail_proto::v1;
use pinrail_state_machine::query;
use pinrail_state_machine::store::Read;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::super::Node;
use super::Watching;

/// The longest that one call waits for a result; callers ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Waits until a run is over, at most `wait_ms`.
pub(in super::super) async fn result(
    node: &Node,
    it: v1::GetResultRequest,
    wait_ms: u64,
    timeout: Duration,
) -> Result<v1::GetResultResponse, Status> {
    let wait = Duration::from_millis(wait_ms).min(LONGEST_WAIT);
    let deadline = Instant::now() + wait;
    let mut closing = node.closings.wait_for(&it.run_id);
    let look = |read: &dyn Read| query::result(read, &it.namespace, &it.agent_id, &it.run_id);
    let (mut answer, _) = node.query(it.read.as_ref(), timeout, look).await?;
    // Who waits is a watcher too; who only looks is not.
    let _watching = match !answer.closed && wait_ms > 0 {
        true => Some(Watching::begin(node)?),
        false => None,
    };
    while !answer.closed {
        match timeout_at(deadline, closing.woken()).await {
            Ok(true) => {
                closing = node.closings.wait_for(&it.run_id);
                answer = node.query_now(look)?.0;
            }
            Ok(false) | Err(_) => break,
        }
    }
    Ok(answer)
}

//! Waiting and watching: results, one run's changes, the event stream. All from this node's own feed of what is
//! applied; who lags behind reads the state anew, so nothing is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::Stream;
use pinrail_proto::limits;
use pinrail_proto::v1;
use pinrail_state_machine::query::{self, EventFilter};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Node, error};

/// The longest that one call waits for a result; callers ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Answers that a watcher may leave unread before its stream stops filling.
const BUFFER: usize = 128;
/// Events read at once.
const PAGE: usize = 500;
/// How often a watcher without events hears how far the stream is.
const PROGRESS: Duration = Duration::from_secs(5);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Counts a watcher as long as it lives.
struct Watching(Arc<AtomicUsize>);

impl Watching {
    fn begin(node: &Node) -> Result<Self, Status> {
        let watchers = Arc::clone(&node.watchers);
        if watchers.fetch_add(1, Ordering::Relaxed) >= limits::WATCHERS {
            watchers.fetch_sub(1, Ordering::Relaxed);
            return Err(error::overloaded(Duration::from_secs(1)));
        }
        Ok(Self(watchers))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until a run is over, at most `wait_ms`.
pub(super) async fn result(
    node: &Node,
    it: v1::GetResultRequest,
    wait_ms: u64,
    timeout: Duration,
) -> Result<v1::GetResultResponse, Status> {
    let wait = Duration::from_millis(wait_ms).min(LONGEST_WAIT);
    let deadline = Instant::now() + wait;
    // Before the first look: what happens in between is not missed.
    let mut feed = node.replica.feed();
    let (mut answer, _) = node
        .query(it.read.as_ref(), timeout, |read| {
            query::result(read, &it.namespace, &it.agent_id, &it.run_id)
        })
        .await?;
    while !answer.closed {
        let concerned = match timeout_at(deadline, feed.recv()).await {
            Err(_) | Ok(Err(RecvError::Closed)) => break,
            Ok(Err(RecvError::Lagged(_))) => true,
            Ok(Ok(batch)) => batch.applied.is_empty() || closes(&batch, &it.run_id),
        };
        if concerned {
            let query = |read: &dyn pinrail_state_machine::store::Read| {
                query::result(read, &it.namespace, &it.agent_id, &it.run_id)
            };
            answer = node.query_now(query)?.0;
        }
    }
    Ok(answer)
}

fn closes(batch: &crate::raft::AppliedBatch, run_id: &str) -> bool {
    use pinrail_state_machine::effect::Effect;
    batch.applied.iter().flat_map(|applied| &applied.effects).any(
        |effect| matches!(effect, Effect::RunClosed { run_id: closed, .. } if closed == run_id),
    )
}

/// The present state of a run, then each change, until its end.
pub(super) async fn run(
    node: Node,
    it: v1::WatchRunRequest,
    timeout: Duration,
) -> Result<Answers<v1::WatchRunResponse>, Status> {
    let watching = Watching::begin(&node)?;
    let mut feed = node.replica.feed();
    node.query(None, timeout, |read| query::run(read, &it.namespace, &it.agent_id, &it.run_id))
        .await?;
    let (answers, stream) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let _watching = watching;
        let mut seen = it.from_revision;
        loop {
            match look(&node, &it) {
                Ok(now) if now.revision > seen || (seen == 0 && now.run.is_some()) => {
                    seen = now.revision.max(1);
                    let closed = now.closed;
                    if answers.send(Ok(now)).await.is_err() || closed {
                        return;
                    }
                }
                Ok(now) if now.closed => return,
                Ok(_) => {}
                Err(status) => {
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            }
            tokio::select! {
                changed = changed(&mut feed, &it.run_id) => if !changed { return },
                () = answers.closed() => return,
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Waits until something about a run was applied. False: the node ends.
async fn changed(
    feed: &mut tokio::sync::broadcast::Receiver<Arc<crate::raft::AppliedBatch>>,
    run_id: &str,
) -> bool {
    loop {
        match feed.recv().await {
            Ok(batch) if batch.applied.is_empty() || concerns(&batch, run_id) => return true,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

fn concerns(batch: &crate::raft::AppliedBatch, run_id: &str) -> bool {
    use pinrail_state_machine::effect::Effect;
    batch.applied.iter().flat_map(|applied| &applied.effects).any(|effect| match effect {
        Effect::StepReady { step, .. }
        | Effect::StepWithdrawn { step, .. }
        | Effect::Leased { step, .. }
        | Effect::LeaseEnded { step, .. }
        | Effect::CancelRequested { step, .. } => step.run_id == run_id,
        Effect::RunClosed { run_id: closed, .. } => closed == run_id,
        Effect::DeadlineSet { .. } | Effect::AgentChanged { .. } => false,
    })
}

fn look(node: &Node, it: &v1::WatchRunRequest) -> Result<v1::WatchRunResponse, Status> {
    let ((run, steps), at) = node.query_now(|read| {
        let run = query::run(read, &it.namespace, &it.agent_id, &it.run_id)?;
        let (steps, _) =
            query::steps(read, &it.namespace, &it.agent_id, &it.run_id, limits::PAGE, "")?;
        Ok((run, steps))
    })?;
    Ok(v1::WatchRunResponse {
        revision: run.revision,
        at: pinrail_proto::time::timestamp(at.now_ms),
        closed: run.ended_at.is_some(),
        run: Some(run),
        step: steps.into_iter().next_back(),
    })
}

/// Events after a revision, then as they happen.
pub(super) async fn events(
    node: Node,
    filter: EventFilter,
    timeout: Duration,
) -> Result<Answers<v1::WatchEventsResponse>, Status> {
    let watching = Watching::begin(&node)?;
    let mut feed = node.replica.feed();
    // The first page also says whether the stream can be resumed there at all.
    let (first, _) = node.query(None, timeout, |read| query::events(read, &filter, PAGE)).await?;
    let (answers, stream) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let _watching = watching;
        let mut filter = filter;
        let mut page = Some(first);
        loop {
            let (events, next) = match page.take() {
                Some(page) => page,
                None => match node.query_now(|read| query::events(read, &filter, PAGE)) {
                    Ok((page, _)) => page,
                    Err(status) => {
                        let _ = answers.send(Err(status)).await;
                        return;
                    }
                },
            };
            let more = next > filter.after_revision && !events.is_empty();
            filter.after_revision = next.max(filter.after_revision);
            let answer = v1::WatchEventsResponse { events, revision: filter.after_revision };
            if answers.send(Ok(answer)).await.is_err() {
                return;
            }
            if more {
                continue;
            }
            tokio::select! {
                heard = tokio::time::timeout(PROGRESS, feed.recv()) => match heard {
                    Ok(Err(RecvError::Closed)) => return,
                    Ok(Ok(_) | Err(RecvError::Lagged(_))) | Err(_) => {}
                },
                () = answers.closed() => return,
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

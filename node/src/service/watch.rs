//! Waiting and watching: results, one run's changes, the event stream. All from this node's own feed of what is
//! applied; who lags behind reads the state anew, so nothing is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::Stream;
use pinrail_proto::limits;
use pinrail_proto::v1;
use pinrail_state_machine::query::{self, EventFilter, MemoryFilter, Position};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::raft::AppliedBatch;

use super::{Node, error};

/// The longest that one call waits for a result; callers ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Answers that a watcher may leave unread before its stream stops filling.
pub(super) const BUFFER: usize = 128;
/// Events read at once.
const PAGE: usize = 500;
/// How often a watcher without events hears how far the stream is.
pub(super) const PROGRESS: Duration = Duration::from_secs(5);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Counts a watcher as long as it lives.
pub(super) struct Watching(Arc<AtomicUsize>);

impl Watching {
    pub(super) fn begin(node: &Node) -> Result<Self, Status> {
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
    // Who waits is a watcher too; who only looks is not.
    let _watching = match !answer.closed && wait_ms > 0 {
        true => Some(Watching::begin(node)?),
        false => None,
    };
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

fn closes(batch: &AppliedBatch, run_id: &str) -> bool {
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
pub(super) async fn changed(
    feed: &mut broadcast::Receiver<Arc<AppliedBatch>>,
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

fn concerns(batch: &AppliedBatch, run_id: &str) -> bool {
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

pub(super) fn look(node: &Node, it: &v1::WatchRunRequest) -> Result<v1::WatchRunResponse, Status> {
    let ((run, step), at) = node.query_now(|read| {
        let run = query::run(read, &it.namespace, &it.agent_id, &it.run_id)?;
        let step = query::step(read, &it.namespace, &it.agent_id, &it.run_id, run.steps)?;
        Ok((run, step))
    })?;
    Ok(v1::WatchRunResponse {
        revision: run.revision,
        at: pinrail_proto::time::timestamp(at.now_ms),
        closed: run.ended_at.is_some(),
        run: Some(run),
        step,
        ..v1::WatchRunResponse::default()
    })
}

/// A release now, then after each change, until its end.
pub(super) async fn release(
    node: Node,
    it: v1::WatchReleaseRequest,
    timeout: Duration,
) -> Result<Answers<v1::WatchReleaseResponse>, Status> {
    let watching = Watching::begin(&node)?;
    let mut feed = node.replica.feed();
    let first = node.query(None, timeout, |read| {
        let number = query::agent_number(read, &it.namespace, &it.agent_id)?;
        Ok((number, query::release(read, &it.namespace, &it.agent_id, &it.release_id)?))
    });
    let ((agent, mut release), mut at) = first.await?;
    // From here on that one, whatever is started beside it.
    let release_id = release.release_id.clone();
    let (answers, stream) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let _watching = watching;
        let mut seen = 0;
        loop {
            let ended = release.ended_at.is_some();
            if release.revision > seen {
                seen = release.revision;
                let answer =
                    v1::WatchReleaseResponse { release: Some(release), revision: at.revision };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            if ended {
                return;
            }
            tokio::select! {
                changed = agent_changed(&mut feed, agent) => if !changed { return },
                () = answers.closed() => return,
            }
            let query = |read: &dyn pinrail_state_machine::store::Read| {
                query::release(read, &it.namespace, &it.agent_id, &release_id)
            };
            match node.query_now(query) {
                Ok(now) => (release, at) = now,
                Err(status) => {
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Waits until route, release or policy of an agent changed. False: the node ends.
async fn agent_changed(feed: &mut broadcast::Receiver<Arc<AppliedBatch>>, agent: u32) -> bool {
    use pinrail_state_machine::effect::Effect;
    let concerns = |batch: &AppliedBatch| {
        batch.applied.iter().flat_map(|applied| &applied.effects).any(
            |effect| matches!(effect, Effect::AgentChanged { agent: changed } if *changed == agent),
        )
    };
    loop {
        match feed.recv().await {
            Ok(batch) if batch.applied.is_empty() || concerns(&batch) => return true,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

/// Events after a revision, then as they happen.
pub(super) async fn events(
    node: Node,
    filter: EventFilter,
    timeout: Duration,
) -> Result<Answers<v1::WatchEventsResponse>, Status> {
    let watching = Watching::begin(&node)?;
    let feed = node.replica.feed();
    // The first page also says whether the stream can be resumed there at all.
    let first = node.query(None, timeout, |read| query::events(read, &filter, PAGE)).await?;
    let (answers, stream) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let _watching = watching;
        if let Err(status) = tell(&node, filter, feed, first, &answers).await {
            let _ = answers.send(Err(status)).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

type Page = ((Vec<v1::Event>, u64), Position);

/// Sends page after page until the watcher or the node is gone. A page without events is sent only to say how far the
/// stream is, and only now and then: a busy cluster would otherwise flood who watches a quiet agent.
async fn tell(
    node: &Node,
    mut filter: EventFilter,
    mut feed: broadcast::Receiver<Arc<AppliedBatch>>,
    first: Page,
    answers: &mpsc::Sender<Result<v1::WatchEventsResponse, Status>>,
) -> Result<(), Status> {
    let mut page = first;
    let mut told: Option<Instant> = None;
    loop {
        let ((events, next), at) = page;
        let advanced = next > filter.after_revision;
        filter.after_revision = next.max(filter.after_revision);
        if !events.is_empty() || told.is_none_or(|told| told.elapsed() >= PROGRESS) {
            told = Some(Instant::now());
            let answer = v1::WatchEventsResponse { events, revision: filter.after_revision };
            if answers.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
        }
        // Not at the end of what is kept yet: a filter that matches little gets pages without events before it.
        if !(advanced && filter.after_revision < at.revision) {
            tokio::select! {
                heard = tokio::time::timeout(PROGRESS, feed.recv()) => {
                    if matches!(heard, Ok(Err(RecvError::Closed))) {
                        return Ok(());
                    }
                }
                () = answers.closed() => return Ok(()),
            }
        }
        page = node.query_now(|read| query::events(read, &filter, PAGE))?;
    }
}

/// Changes of memory after a revision, then as they happen; and each time the scope has come to mean another layer.
pub(super) async fn memory(
    node: Node,
    filter: MemoryFilter,
    timeout: Duration,
) -> Result<Answers<v1::WatchMemoryResponse>, Status> {
    let watching = Watching::begin(&node)?;
    let mut feed = node.replica.feed();
    // The first page also says whether the stream can be resumed there at all.
    let first = node.query(None, timeout, |read| query::memory_changes(read, &filter, PAGE));
    let (mut page, mut at) = first.await?;
    let (answers, stream) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let _watching = watching;
        let mut filter = filter;
        let mut told: Option<(Instant, u64)> = None;
        loop {
            let advanced = page.revision > filter.after_revision;
            filter.after_revision = filter.after_revision.max(page.revision);
            let is_quiet = told.is_some_and(|(when, layer)| {
                page.versions.is_empty() && layer == page.layer && when.elapsed() < PROGRESS
            });
            if !is_quiet {
                told = Some((Instant::now(), page.layer));
                if answers.send(Ok(page)).await.is_err() {
                    return;
                }
            }
            // Not at the end of what is kept yet: there is more to read at once.
            if !(advanced && filter.after_revision < at.revision) {
                tokio::select! {
                    heard = tokio::time::timeout(PROGRESS, feed.recv()) => {
                        if matches!(heard, Ok(Err(RecvError::Closed))) {
                            return;
                        }
                    }
                    () = answers.closed() => return,
                }
            }
            match node.query_now(|read| query::memory_changes(read, &filter, PAGE)) {
                Ok((next, position)) => (page, at) = (next, position),
                Err(status) => {
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

//! Watching: what is found in this node's state, then again whenever something was applied that may concern the watcher.
//! Who lags behind reads the state anew, so nothing is lost. [`follow`] is the one loop; each file beside it knows what
//! one noun's watchers are told.

mod closings;
mod event;
mod looks;
mod memory;
mod pin;
mod release;
mod result;
mod run;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::Stream;
use pinrail_proto::limits;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::Position;
use pinrail_state_machine::store::Read;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::raft::AppliedBatch;

use super::{Node, error};

pub(crate) use closings::Closings;
pub(super) use event::events;
pub(crate) use looks::Looks;
pub(super) use memory::memory;
pub(super) use pin::pins;
pub(super) use release::release;
pub(super) use result::{Starting, result};
pub(super) use run::{changed, look, run};

/// Answers that a watcher may leave unread before its stream stops filling.
pub(super) const BUFFER: usize = 128;
/// Events or changes read at once.
const PAGE: usize = 500;
/// A watcher that takes nothing for so long is cut: it holds a place that others want, and resumes where it was.
const PATIENCE_WITH_WATCHERS: Duration = Duration::from_secs(60);
/// How often a watcher without news hears how far the stream is.
pub(super) const PROGRESS: Duration = Duration::from_secs(5);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
pub(super) type Feed = broadcast::Receiver<Arc<AppliedBatch>>;

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

/// What somebody watches, and how far they are.
trait Watched: Send + Sync + 'static {
    type Found: Send;
    type Answer: Send + 'static;

    /// The longest time between two looks, whatever is applied or not.
    const PATIENCE: Duration = Duration::MAX;

    fn look(&self, read: &dyn Read) -> Result<Self::Found, Stop>;

    /// What there is to say of what was found at `at`, if it is news; and what comes then.
    fn tell(&mut self, found: Self::Found, at: Position) -> (Option<Self::Answer>, Then);

    /// Whether what was applied may be news.
    fn is_concerned(&self, batch: &AppliedBatch) -> bool;
}

/// What a watcher does after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Wait,
    /// There is more to read at once.
    GoOn,
    End,
}

/// Looks, tells and waits, until there is nothing more to tell, or until the watcher or the node is gone.
///
/// # Errors
/// What is wrong with the question is refused before the stream begins.
async fn follow<W: Watched>(
    node: Node,
    mut watched: W,
    timeout: Duration,
) -> Result<Answers<W::Answer>, Status> {
    let watching = Watching::begin(&node)?;
    // Before the first look: what happens in between is not missed.
    let mut feed = node.replica.feed();
    let (mut found, mut at) = node.query(None, timeout, |read| watched.look(read)).await?;
    let (answers, stream) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let _watching = watching;
        loop {
            let (answer, then) = watched.tell(found, at);
            if let Some(answer) = answer
                && !is_taken(&answers, answer).await
            {
                return;
            }
            match then {
                Then::End => return,
                Then::GoOn => {}
                Then::Wait => {
                    let stirred = stirred(&mut feed, |batch| watched.is_concerned(batch));
                    tokio::select! {
                        // Patience that ends is a reason to look, too.
                        stirred = tokio::time::timeout(W::PATIENCE, stirred) => {
                            if stirred == Ok(false) {
                                return;
                            }
                        }
                        () = answers.closed() => return,
                    }
                }
            }
            match node.query_now(|read| watched.look(read)) {
                Ok(next) => (found, at) = next,
                Err(status) => {
                    // The watcher may be gone.
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Whether a watcher took an answer, or at least has room for it.
async fn is_taken<A>(answers: &mpsc::Sender<Result<A, Status>>, answer: A) -> bool {
    let sent = tokio::time::timeout(PATIENCE_WITH_WATCHERS, answers.send(Ok(answer))).await;
    if sent.is_err() {
        tracing::info!("a watcher reads nothing and is cut; it may resume where it was");
    }
    matches!(sent, Ok(Ok(())))
}

/// Waits until something was applied that concerns the caller. False: the node ends.
async fn stirred(feed: &mut Feed, concerns: impl Fn(&AppliedBatch) -> bool) -> bool {
    loop {
        match feed.recv().await {
            // A batch without commands stands for a state that came as a whole.
            Ok(batch) if batch.effects.is_none() || concerns(&batch) => return true,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

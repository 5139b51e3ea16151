//! Who waits for the end of a run. One task reads what is applied and wakes those whom it concerns: when each of them read
//! all of it, every entry of the log woke everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pinrail_state_machine::effect::Effect;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

use super::Feed;

/// By run.
type Waiting = BTreeMap<String, Vec<oneshot::Sender<()>>>;

#[derive(Debug, Clone, Default)]
pub(crate) struct Closings {
    waiting: Arc<Mutex<Waiting>>,
}

/// Somebody who waits for the end of a run.
#[derive(Debug)]
pub(super) struct Closing {
    run_id: String,
    woken: oneshot::Receiver<()>,
    closings: Closings,
}

impl Closings {
    /// Reads what is applied until the node ends.
    pub(crate) fn start(feed: Feed) -> Self {
        let closings = Self::default();
        tokio::spawn(closings.clone().read(feed));
        closings
    }

    /// To be called before the look that shows whether the run is over: what happens in between is not missed.
    pub(super) fn wait_for(&self, run_id: &str) -> Closing {
        let (wake, woken) = oneshot::channel();
        self.waiting.lock().entry(run_id.to_owned()).or_default().push(wake);
        Closing { run_id: run_id.to_owned(), woken, closings: self.clone() }
    }

    async fn read(self, mut feed: Feed) {
        loop {
            match feed.recv().await {
                Ok(batch) if batch.effects.is_none() => self.wake_all(),
                Ok(batch) => {
                    for effect in batch.effects() {
                        if let Effect::RunClosed { run_id, .. } = effect {
                            self.wake(run_id);
                        }
                    }
                }
                Err(RecvError::Lagged(_)) => self.wake_all(),
                Err(RecvError::Closed) => {
                    self.waiting.lock().clear();
                    return;
                }
            }
        }
    }

    fn wake(&self, run_id: &str) {
        // Agents may have runs of the same id: who is woken for another's looks and waits again.
        for waiting in self.waiting.lock().remove(run_id).into_iter().flatten() {
            // Who waited may have gone.
            let _ = waiting.send(());
        }
    }

    fn wake_all(&self) {
        let all = std::mem::take(&mut *self.waiting.lock());
        for waiting in all.into_values().flatten() {
            let _ = waiting.send(());
        }
    }
}

impl Closing {
    /// Waits until the run may be over. False: the node ends.
    pub(super) async fn woken(&mut self) -> bool {
        (&mut self.woken).await.is_ok()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.woken.close();
        let mut waiting = self.closings.waiting.lock();
        if let Some(of_run) = waiting.get_mut(&self.run_id) {
            of_run.retain(|wake| !wake.is_closed());
            if of_run.is_empty() {
                waiting.remove(&self.run_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::sync::broadcast;

    use super::*;
    use crate::raft::AppliedBatch;

    fn batch(closed: &[&str]) -> Arc<AppliedBatch> {
        let effect = |run_id: &&str| Effect::RunClosed { agent: 1, run_id: (*run_id).to_owned() };
        let effects = Some(closed.iter().map(effect).collect());
        Arc::new(AppliedBatch { log_index: 1, revision: 1, now_ms: 1, effects })
    }

    /// Everybody who waits for this run is woken.
    async fn is_woken(closing: &mut Closing) -> bool {
        tokio::task::yield_now().await;
        closing.woken().now_or_never() == Some(true)
    }

    #[tokio::test]
    async fn all_who_wait_for_a_run_are_woken_by_its_end_and_nobody_else() {
        let (feed, read) = broadcast::channel(8);
        let closings = Closings::start(read);
        let [mut one, mut two, mut other] = ["a", "a", "b"].map(|run| closings.wait_for(run));
        feed.send(batch(&["c", "a"])).unwrap();
        assert!(is_woken(&mut one).await && is_woken(&mut two).await);
        assert!(!is_woken(&mut other).await);
        drop((one, two, other));
        assert!(closings.waiting.lock().is_empty(), "who is gone is forgotten");
    }

    #[tokio::test]
    async fn a_state_that_came_as_a_whole_and_what_was_missed_wake_everybody() {
        let (feed, read) = broadcast::channel(2);
        let closings = Closings::start(read);
        let mut waits = closings.wait_for("a");
        let whole = AppliedBatch { log_index: 9, revision: 9, now_ms: 1, effects: None };
        feed.send(Arc::new(whole)).unwrap();
        assert!(is_woken(&mut waits).await);

        let mut waits = closings.wait_for("a");
        for _ in 0..4 {
            feed.send(batch(&["b"])).unwrap();
        }
        assert!(is_woken(&mut waits).await, "two of four were lost");
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_node_is_there() {
        let (feed, read) = broadcast::channel::<Arc<AppliedBatch>>(2);
        let closings = Closings::start(read);
        let mut waits = closings.wait_for("a");
        drop(feed);
        assert!(!waits.woken().await);
    }
}

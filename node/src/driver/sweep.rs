//! Works off what is due by cluster time: one bounded `Tick` after the other for an agent whose earliest deadline is
//! past. Other commands share the log's queue, so starts go on between two ticks of a long sweep.

use std::collections::BTreeSet;

use pinrail_proto::log;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_state_machine::query;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::dispatch::{encode, pause};
use super::state::ask;
use super::{Dispatch, PROPOSE_TIMEOUT};

/// Agents that one proposal sweeps.
const AGENTS: usize = 16;
/// Units of work of one tick, as `limits::TICK_ITEMS` counts them: an entry of the log is applied in one go, and whatever else a
/// member has to do waits for it. Units that RocksDB has to be asked for take 0.2 ms each.
const ITEMS: u32 = 32;
/// Ticks of one agent in one proposal, once it is known that more than one is needed.
const TICKS: usize = 4;
/// Longest sleep: a due time that was missed is made good after it.
const LONGEST: Duration = Duration::from_secs(1);
/// What was due and is still there after a tick is not asked for again before this, in milliseconds.
const AGAIN_MS: u64 = 100;

/// Sweeps until its task is ended with the leadership.
pub(super) async fn run(dispatch: Dispatch) {
    // Agents whose last tick left something due.
    let mut more = BTreeSet::new();
    loop {
        let now_ms = dispatch.inner.replica.cluster_time_ms();
        let (due, next_ms) = dispatch.with_desk(|desk| due(&desk.due, now_ms)).unwrap_or_default();
        if due.is_empty() {
            let wait = next_ms.map_or(LONGEST, |next| Duration::from_millis(next - now_ms));
            // Either a deadline was set or the time has come; both are looked at alike.
            let _ = timeout(wait.min(LONGEST), dispatch.inner.sweep.notified()).await;
            continue;
        }
        sweep(&dispatch, &due, &mut more).await;
    }
}

/// Agents that are due, the most overdue first, and when the next one is.
fn due(all: &std::collections::BTreeMap<u32, u64>, now_ms: u64) -> (Vec<u32>, Option<u64>) {
    let mut due: Vec<(u64, u32)> =
        all.iter().filter(|(_, at)| **at <= now_ms).map(|(agent, at)| (*at, *agent)).collect();
    due.sort_unstable();
    due.truncate(AGENTS);
    let next = all.values().copied().filter(|at| *at > now_ms).min();
    (due.into_iter().map(|(_, agent)| agent).collect(), next)
}

async fn sweep(dispatch: &Dispatch, due: &[u32], more: &mut BTreeSet<u32>) {
    let agents: Vec<u32> = due
        .iter()
        .flat_map(|agent| std::iter::repeat_n(*agent, if more.contains(agent) { TICKS } else { 1 }))
        .collect();
    // What is set from here on is due again, whatever the ticks find.
    dispatch.with_desk(|desk| desk.due.retain(|agent, _| !due.contains(agent)));
    let commands = agents
        .iter()
        .map(|agent| encode(Kind::Tick(log::Tick { agent: *agent, max_items: ITEMS })));
    let began = Instant::now();
    match dispatch.inner.replica.propose_here(commands.collect(), PROPOSE_TIMEOUT).await {
        Ok(outcomes) => {
            tracing::debug!(ticks = agents.len(), took = ?began.elapsed(), "what was due is done");
            more.clear();
            // Of several ticks of an agent the last one says whether more is due.
            for (agent, outcome) in agents.iter().zip(&outcomes) {
                match &outcome.result {
                    Some(Answer::Tick(tick)) if tick.more => more.insert(*agent),
                    Some(_) | None => more.remove(agent),
                };
            }
            due.iter().for_each(|agent| look_again(dispatch, *agent, more.contains(agent)));
        }
        Err(error) => {
            let now_ms = dispatch.inner.replica.cluster_time_ms();
            dispatch.with_desk(|desk| due.iter().for_each(|agent| desk.set_due(*agent, now_ms)));
            sleep(pause(&error)).await;
        }
    }
}

/// Remembers when an agent is due next.
fn look_again(dispatch: &Dispatch, agent: u32, more: bool) {
    let now_ms = dispatch.inner.replica.cluster_time_ms();
    let next =
        ask(&dispatch.inner.replica, |read| Ok(query::dispatch::next_deadline(read, agent)?));
    let next = match next {
        Ok(Some(next)) if more => next,
        Ok(Some(next)) => next.max(now_ms + AGAIN_MS),
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(agent, %error, "deadlines cannot be read");
            now_ms + AGAIN_MS
        }
    };
    dispatch.with_desk(|desk| desk.set_due(agent, next));
}

#[cfg(test)]
mod tests {
    use super::due;

    #[test]
    fn the_most_overdue_agent_is_first_and_the_next_due_time_is_known() {
        let all = [(1, 50), (2, 10), (3, 101), (4, 900)].into_iter().collect();
        assert_eq!(due(&all, 100), (vec![2, 1], Some(101)));
        assert_eq!(due(&all, 5), (vec![], Some(10)));
        assert_eq!(due(&all, 1_000), (vec![2, 1, 3, 4], None));
    }
}

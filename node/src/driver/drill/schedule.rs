//! When the next drill is due: a moment by chance, in a window of the policy. The leader draws it and proposes it.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRef, ScheduleDrill, StartDrill};
use pinrail_proto::policy::window::Window;
use pinrail_state_machine::query::Drilled;

use super::super::Dispatch;
use super::super::propose::propose;
use super::window::next_in_window;

/// Without a window a drill comes within so long of the moment that it falls due.
const SPREAD_MS: u64 = 24 * 3_600_000;
/// A drill that could not begin is not tried again before this.
const AGAIN_MS: u64 = 3_600_000;

/// Begins the drill that is due, or draws the next one.
pub(super) async fn plan(dispatch: &Dispatch, it: &Drilled) {
    let agent = &it.agent;
    let now_ms = dispatch.inner.replica.cluster_time_ms();
    if agent.drill_every_ms == 0 || agent.drill_due_ms > now_ms {
        return;
    }
    let mut base_ms = now_ms;
    if agent.drill_due_ms != 0 {
        match propose(dispatch, start(dispatch, it), "it is due").await {
            Some(Answer::Rejection(refused)) => {
                tracing::info!(
                    agent = agent.agent_id,
                    reason = refused.reason,
                    "a drill that is due cannot begin: {}",
                    refused.message
                );
                base_ms += AGAIN_MS;
            }
            // It is under way, or nobody knows: the state will tell.
            Some(_) | None => return,
        }
    } else if it.last_ms != 0 {
        base_ms = base_ms.max(it.last_ms + agent.drill_every_ms);
    }
    let drill = it.policy.drill.clone().unwrap_or_default();
    let random = dispatch.inner.replica.env().random_u64();
    let Some(due_ms) = draw(&drill.window, agent.drill_every_ms, base_ms, random) else { return };
    let command = Kind::ScheduleDrill(ScheduleDrill {
        agent: agent.number,
        due_ms,
        policy_revision: agent.policy_revision,
    });
    propose(dispatch, command, "").await;
}

fn start(dispatch: &Dispatch, it: &Drilled) -> Kind {
    let agent = &it.agent;
    let (namespace, agent_id) = (agent.namespace.clone(), agent.agent_id.clone());
    Kind::StartDrill(StartDrill {
        capacity: dispatch.capacity(&namespace, &agent_id, &agent.standby_bundle_id),
        agent: Some(AgentRef { namespace, agent_id }),
        scheduled: true,
        ..StartDrill::default()
    })
}

/// None: the window names a zone that is not known here, or the calendar ends.
fn draw(window: &str, every_ms: u64, base_ms: u64, random: u64) -> Option<u64> {
    if window.is_empty() {
        return Some(base_ms + random % every_ms.clamp(1, SPREAD_MS));
    }
    next_in_window(&Window::parse(window).ok()?, base_ms, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_window_it_comes_within_a_day_or_its_own_distance() {
        let days = 14 * SPREAD_MS;
        for random in (0..u64::MAX).step_by(1 << 59) {
            let due = draw("", days, 1_000, random).expect("there is a moment");
            assert!((1_000..1_000 + SPREAD_MS).contains(&due));
            let due = draw("", 60_000, 1_000, random).expect("there is a moment");
            assert!((1_000..61_000).contains(&due));
        }
    }

    #[test]
    fn a_window_decides_when_there_is_one() {
        let due = draw("Mon-Sun 00:00-24:00 UTC", SPREAD_MS, 1_700_000_000_000, 0);
        assert_eq!(due, Some(1_700_000_000_000));
        assert_eq!(draw("Mon 09:00-10:00 Europe/Atlantis", SPREAD_MS, 0, 0), None);
    }
}

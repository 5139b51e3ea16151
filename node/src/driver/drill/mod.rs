//! The drill driver: tries the present part of each drill and says how it went; draws when the next drill is due.
//!
//! It only proposes; apply decides whether the part still is the present one. It remembers nothing that the state does not
//! hold, so another leader goes on where this one stopped: at worst it tries a part once more, and its stopwatch counts
//! from the part's begin.
//!
//! ```text
//!   prepare    what a rollback finds: a route, runs in flight, memory of both bundles
//!   rollback   from the command to its acknowledgement
//!   starts     a start at every member
//!   seen       memory, and the runs in flight
//!   probes     runs on the workers of the bundle that the drill returns to
//!   schedule   the moment of the next drill, by the policy's window
//! ```

mod prepare;
mod probes;
mod rollback;
mod schedule;
mod seen;
mod starts;
pub(crate) mod window;

use std::collections::BTreeSet;
use std::sync::Arc;

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRef, DrillRecord, RecordDrill};
use pinrail_proto::v1::{DrillMode, DrillPart, DrillState, Verdict};
use pinrail_state_machine::query::{self, Drilled};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Duration, Instant, timeout_at};

use super::propose::propose;
use super::release::changed;
use super::{Dispatch, metrics};
use crate::raft::AppliedBatch;

/// How often drills are looked at when nothing changes.
const EVERY: Duration = Duration::from_millis(500);
/// And while one is under way: what its parts wait for changes no agent.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// What trying a part comes to.
#[derive(Debug)]
enum Finding {
    /// Not yet, and for what it waits: the reason when the drill's time is over.
    Wait(String),
    Done {
        verdict: Verdict,
        reason: String,
        evidence: serde_json::Value,
        /// By this leader's stopwatch. None: since the part began.
        took: Option<Duration>,
    },
}

impl Finding {
    fn pass(reason: impl Into<String>, evidence: serde_json::Value) -> Self {
        Self::done(Verdict::Pass, reason, evidence)
    }

    fn fail(reason: impl Into<String>, evidence: serde_json::Value) -> Self {
        Self::done(Verdict::Fail, reason, evidence)
    }

    fn skip(reason: impl Into<String>, evidence: serde_json::Value) -> Self {
        Self::done(Verdict::Skipped, reason, evidence)
    }

    fn done(verdict: Verdict, reason: impl Into<String>, evidence: serde_json::Value) -> Self {
        Self::Done { verdict, reason: reason.into(), evidence, took: None }
    }
}

/// Attends to drills until its task is ended with the leadership.
pub(super) async fn run(dispatch: Dispatch, mut feed: broadcast::Receiver<Arc<AppliedBatch>>) {
    let mut agents: BTreeSet<u32> = BTreeSet::new();
    let mut again = true;
    loop {
        if again {
            match dispatch.inner.replica.read(query::agents_with_drills) {
                Ok(all) => agents.extend(all),
                Err(error) => tracing::warn!(%error, "drills cannot be read"),
            }
        }
        let mut under_way = false;
        for agent in agents.clone() {
            match attend(&dispatch, agent).await {
                None => {
                    agents.remove(&agent);
                }
                Some(is_under_way) => under_way |= is_under_way,
            }
        }
        let until = Instant::now() + if under_way { UNDER_WAY } else { EVERY };
        again = match changes(&mut feed, &mut agents, until).await {
            Ok(()) => false,
            Err(RecvError::Lagged(_)) => true,
            Err(RecvError::Closed) => return,
        };
    }
}

/// Takes in which agents changed, until one has or the time has come.
async fn changes(
    feed: &mut broadcast::Receiver<Arc<AppliedBatch>>,
    agents: &mut BTreeSet<u32>,
    until: Instant,
) -> Result<(), RecvError> {
    let mut any = false;
    while !any {
        let Ok(batch) = timeout_at(until, feed.recv()).await else { break };
        let batch = batch?;
        for agent in changed(&batch) {
            agents.insert(agent);
            any = true;
        }
    }
    Ok(())
}

/// Looks at one agent. None: it has no drill and plans none. Whether a drill is under way.
async fn attend(dispatch: &Dispatch, agent: u32) -> Option<bool> {
    let it = match dispatch.inner.replica.read(|read| query::drilled(read, agent)) {
        Ok(found) => found?,
        Err(error) => {
            tracing::warn!(agent, %error, "drills cannot be read");
            return Some(false);
        }
    };
    match &it.drill {
        None => schedule::plan(dispatch, &it).await,
        Some(drill) => go_on(dispatch, &it, drill).await,
    }
    Some(it.drill.is_some())
}

async fn go_on(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord) {
    let now_ms = dispatch.inner.replica.cluster_time_ms();
    let is_late = now_ms.saturating_sub(drill.started_ms) > drill.limit_ms;
    match look(dispatch, it, drill, now_ms).await {
        Finding::Wait(waits) if is_late => {
            let reason = format!("not over within the limit of {} ms: {waits}", drill.limit_ms);
            let evidence = serde_json::json!({ "waited_for": waits });
            say(dispatch, it, drill, (Verdict::Fail, reason, evidence), None).await;
        }
        Finding::Wait(_) => {}
        Finding::Done { verdict, reason, evidence, took } => {
            say(dispatch, it, drill, (verdict, reason, evidence), took).await;
        }
    }
}

async fn look(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord, now_ms: u64) -> Finding {
    match drill.part() {
        DrillPart::Prepare => prepare::look(dispatch, it, drill).await,
        DrillPart::Rollback => rollback::look(dispatch, it, drill).await,
        DrillPart::Starts => starts::look(dispatch, it, drill).await,
        DrillPart::Memory => seen::memory(dispatch, it, drill),
        DrillPart::InFlight => seen::in_flight(dispatch, it, drill),
        DrillPart::Probes => probes::look(dispatch, it, drill, now_ms).await,
        DrillPart::Return => rollback::back(dispatch, it, drill).await,
        DrillPart::Unspecified => Finding::Wait("no part".to_owned()),
    }
}

async fn say(
    dispatch: &Dispatch,
    it: &Drilled,
    drill: &DrillRecord,
    (verdict, reason, evidence): (Verdict, String, serde_json::Value),
    took: Option<Duration>,
) {
    let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let command = Kind::RecordDrill(RecordDrill {
        agent: it.agent.number,
        drill: drill.number,
        part: drill.part,
        verdict: verdict.into(),
        took_micros: took.map_or(0, micros),
        reason,
        evidence: evidence.to_string(),
    });
    // A drill that ended otherwise, by a person or another route change, is counted by nobody but its history.
    if let Some(Answer::Drill(answer)) = propose(dispatch, command, "").await
        && let Some(drill) = answer.drill
        && drill.state() != DrillState::Running
    {
        metrics::drill(&drill);
        tracing::info!(
            agent = drill.agent_id,
            drill = drill.drill_id,
            passed = drill.state() == DrillState::Passed,
            why = drill.end_reason,
            "a drill is over"
        );
    }
}

/// The agent's name on the route that the drill is on.
fn route(it: &Drilled) -> AgentRef {
    AgentRef { namespace: it.agent.namespace.clone(), agent_id: it.route() }
}

fn is_live(drill: &DrillRecord) -> bool {
    drill.mode() == DrillMode::Live
}

/// The bundle that starts lead to once the route was rolled back.
fn good(drill: &DrillRecord) -> &str {
    if is_live(drill) { &drill.to_bundle_id } else { query::DRILL_STANDBY }
}

/// The bundle that is live on the route that the drill is on; empty: none is.
fn live_on_route(dispatch: &Dispatch, it: &Drilled) -> Result<String, String> {
    let route = route(it);
    let read = super::state::ask(&dispatch.inner.replica, |read| {
        query::agent(read, &route.namespace, &route.agent_id)
    });
    let agent = read.map_err(|error| error.to_string())?;
    Ok(agent.route.map(|route| route.live_bundle_id).unwrap_or_default())
}

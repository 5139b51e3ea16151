//! The release driver: looks at what each release waits for, and says what it found.
//!
//! It only proposes; apply decides whether the stage and the attempt are still the present ones. It remembers nothing
//! that the state does not hold, so another leader goes on where this one stopped: at worst it looks once more.
//!
//! ```text
//!   prepare     live workers of the candidate: which steps, how many free slots
//!   smoke       runs of the policy's cases, and what their outputs must satisfy
//!   evals       what reports on the policy's set say
//!   shadow      live runs mirrored on the candidate, and how their outputs compare
//!   canary      the hold of the present share, then the next one
//!   quarantine  its time, and clean signals; then the last pins of the standby
//!   switch      nothing of its own
//!   hooks       of the policy, which may gate each of these
//!   signals     of canary and quarantine: what fires, what is clean again
//!   waits       what holds an attempt up, for those who ask
//! ```

mod canary;
mod eval_runs;
mod evals;
mod hooks;
mod leftovers;
mod prepare;
mod quarantine;
pub(crate) mod shadow;
mod signals;
mod smoke;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pinrail_proto::log::RecordVerdict;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::v1::{self, HoldCause, Stage, Verdict};
use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::query::{self, Attended};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Duration, Instant, sleep};

use super::Dispatch;
use crate::raft::AppliedBatch;

/// How often releases are looked at when nothing changes.
const EVERY: Duration = Duration::from_millis(500);

/// How long releases are left alone between two looks, for each agent that has one: a look takes some ten microseconds
/// (`start-bundles` of `make bench-curves`), and all of them would otherwise be taken for each entry of the log.
const REST: Duration = Duration::from_millis(1);

/// What a look at a stage comes to.
#[derive(Debug, PartialEq)]
enum Finding {
    /// Not yet, and why: the state says so meanwhile, and it is the verdict's reason when the stage's time is over.
    Wait(String),
    Judged {
        verdict: Verdict,
        reason: String,
        evidence: serde_json::Value,
    },
    /// The next share of the canary.
    Advance {
        evidence: serde_json::Value,
    },
}

impl Finding {
    fn pass(reason: impl Into<String>, evidence: serde_json::Value) -> Self {
        Self::Judged { verdict: Verdict::Pass, reason: reason.into(), evidence }
    }

    fn fail(reason: impl Into<String>, evidence: serde_json::Value) -> Self {
        Self::Judged { verdict: Verdict::Fail, reason: reason.into(), evidence }
    }
}

/// What is remembered of releases between two looks. Another leader begins without it.
#[derive(Debug, Default)]
struct Known {
    seen: BTreeMap<(u32, u32), leftovers::Seen>,
    shadows: shadow::Shadows,
    hooks: hooks::Hooks,
    watching: signals::Watching,
    waits: waits::Waits,
}

/// Attends to releases until its task is ended with the leadership.
pub(super) async fn run(dispatch: Dispatch, mut feed: broadcast::Receiver<Arc<AppliedBatch>>) {
    let mut agents: BTreeSet<u32> = BTreeSet::new();
    let mut known = Known::default();
    let mut again = true;
    loop {
        if again {
            match dispatch.inner.replica.read(query::agents_with_releases) {
                Ok(all) => agents.extend(all),
                Err(error) => tracing::warn!(%error, "releases cannot be read"),
            }
            again = false;
        }
        for agent in agents.clone() {
            if !attend(&dispatch, agent, &mut known).await {
                agents.remove(&agent);
                known.watching.forget(agent);
            }
        }
        sleep(rest(agents.len())).await;
        tokio::select! {
            () = sleep(EVERY) => {}
            batch = feed.recv() => match batch {
                Ok(batch) => take_in(&dispatch, &batch, &mut agents, &mut known.shadows).await,
                Err(RecvError::Lagged(_)) => again = true,
                Err(RecvError::Closed) => return,
            }
        }
        // What came in the meantime is looked at in one go.
        while let Ok(batch) = feed.try_recv() {
            take_in(&dispatch, &batch, &mut agents, &mut known.shadows).await;
        }
    }
}

/// How long so many agents are left alone.
fn rest(agents: usize) -> Duration {
    REST * u32::try_from(agents).unwrap_or(u32::MAX)
}

/// Remembers agents that changed, and mirrors live runs that began.
async fn take_in(
    dispatch: &Dispatch,
    batch: &AppliedBatch,
    agents: &mut BTreeSet<u32>,
    shadows: &mut shadow::Shadows,
) {
    agents.extend(changed(batch));
    let mut began: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (agent, run_id) in first_steps(batch).filter(|(agent, _)| shadows.has(*agent)) {
        began.entry(agent).or_default().push(run_id);
    }
    for (agent, runs) in began {
        shadows.mirror(dispatch, agent, &runs).await;
    }
}

/// Runs whose first step waits for a worker, or was leased at once: those that have just begun.
fn first_steps(batch: &AppliedBatch) -> impl Iterator<Item = (u32, String)> + '_ {
    batch.effects().filter_map(|effect| match effect {
        Effect::StepReady { step, attempt: 1, .. } | Effect::Leased { step, attempt: 1, .. }
            if step.step == 1 =>
        {
            Some((step.agent, step.run_id.clone()))
        }
        Effect::StepReady { .. }
        | Effect::Leased { .. }
        | Effect::StepWithdrawn { .. }
        | Effect::LeaseEnded { .. }
        | Effect::CancelRequested { .. }
        | Effect::RunClosed { .. }
        | Effect::DeadlineSet { .. }
        | Effect::AgentChanged { .. } => None,
    })
}

/// Agents whose route, policy, release or drill changed.
pub(super) fn changed(batch: &AppliedBatch) -> impl Iterator<Item = u32> + '_ {
    batch.effects().filter_map(|effect| match effect {
        Effect::AgentChanged { agent } => Some(*agent),
        Effect::StepReady { .. }
        | Effect::StepWithdrawn { .. }
        | Effect::Leased { .. }
        | Effect::LeaseEnded { .. }
        | Effect::CancelRequested { .. }
        | Effect::RunClosed { .. }
        | Effect::DeadlineSet { .. } => None,
    })
}

/// Looks at the releases of one agent. False: it has none.
async fn attend(dispatch: &Dispatch, agent: u32, known: &mut Known) -> bool {
    let now_ms = dispatch.inner.replica.cluster_time_ms();
    let all = match dispatch.inner.replica.read(|read| query::attended(read, agent, now_ms)) {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(agent, %error, "releases cannot be read");
            return true;
        }
    };
    leftovers::clear(dispatch, agent, &all, &mut known.seen).await;
    known.shadows.keep(agent, &all);
    known.hooks.keep(agent, &all);
    known.waits.keep(agent, &all);
    if known.watching.look(dispatch, agent, &all).await {
        return true;
    }
    for it in &all {
        if it.release.hold() != HoldCause::Unspecified {
            continue;
        }
        let found = look(dispatch, it, &mut known.shadows, known.watching.of(it)).await;
        let finding = known.hooks.judge(dispatch, it, found);
        let over = it.release.deadline_ms != 0 && it.now_ms >= it.release.deadline_ms;
        match finding {
            Finding::Wait(reason) if over => {
                let evidence = serde_json::json!({ "waited_for": reason });
                say(dispatch, it, Verdict::InsufficientData, reason, &evidence).await;
            }
            Finding::Wait(reason) => {
                if known.waits.is_news(it, &reason, Instant::now()) {
                    say(dispatch, it, Verdict::Running, reason, &serde_json::json!({})).await;
                }
            }
            Finding::Judged { verdict, reason, evidence } => {
                say(dispatch, it, verdict, reason, &evidence).await;
            }
            Finding::Advance { evidence } => canary::advance(dispatch, it, &evidence).await,
        }
    }
    !all.is_empty()
}

async fn look(
    dispatch: &Dispatch,
    it: &Attended,
    shadows: &mut shadow::Shadows,
    watch: Option<&v1::SignalWatch>,
) -> Finding {
    let present = it.release.plan.iter().find(|plan| plan.stage == it.release.stage);
    if let Some(plan) = present.filter(|plan| !plan.only_hooks.is_empty()) {
        return Finding::pass(format!("it {}", plan.only_hooks), serde_json::json!({}));
    }
    match it.release.stage() {
        Stage::Prepare => prepare::look(dispatch, it),
        Stage::Smoke => smoke::look(dispatch, it).await,
        Stage::Evals => evals::look(dispatch, it).await,
        Stage::Shadow => shadows.look(dispatch, it).await,
        Stage::Canary => canary::look(it, watch),
        Stage::Quarantine => quarantine::look(it, watch),
        Stage::Recycle => quarantine::look_at_pins(it),
        Stage::Switch => Finding::pass("all stages are behind", serde_json::json!({})),
        Stage::Unspecified => Finding::Wait(String::new()),
    }
}

/// `evals`, as a policy names it.
fn stage_word(stage: Stage) -> String {
    let name = stage.as_str_name();
    name.strip_prefix("STAGE_").unwrap_or(name).to_ascii_lowercase()
}

async fn say(
    dispatch: &Dispatch,
    it: &Attended,
    verdict: Verdict,
    reason: String,
    evidence: &serde_json::Value,
) {
    let command = Kind::RecordVerdict(RecordVerdict {
        agent: it.agent,
        release: it.release.number,
        stage: it.release.stage,
        attempt: it.release.attempt,
        verdict: verdict.into(),
        reason,
        evidence: evidence.to_string(),
    });
    propose(dispatch, it, command).await;
}

/// Proposes about a release. What became of it shows in the next look.
async fn propose(dispatch: &Dispatch, it: &Attended, kind: Kind) -> Option<Answer> {
    propose_because(dispatch, it, kind, "").await
}

/// The same with a reason, which whatever it leads to carries.
async fn propose_because(
    dispatch: &Dispatch,
    it: &Attended,
    kind: Kind,
    why: &str,
) -> Option<Answer> {
    let answer = super::propose::propose(dispatch, kind, why).await;
    if let Some(Answer::Rejection(refused)) = &answer {
        tracing::debug!(
            agent = it.agent_id,
            bundle = it.release.bundle_id,
            reason = refused.reason,
            "a release is elsewhere by now: {}",
            refused.message
        );
    }
    answer
}

#[cfg(test)]
mod tests {
    use pinrail_proto::log::ReleaseRecord;
    use pinrail_proto::v1::{self, SignalState};
    use pinrail_state_machine::query::Attended;

    /// A release of nothing, at this time.
    pub(super) fn attended(now_ms: u64) -> Attended {
        Attended {
            namespace: "default".to_owned(),
            agent_id: "support".to_owned(),
            agent: 1,
            release: ReleaseRecord::default(),
            policy: v1::Policy::default(),
            steps: Vec::new(),
            baseline_pins: 0,
            fires: None,
            now_ms,
        }
    }

    /// One signal that stands like this.
    pub(super) fn watch(state: SignalState, summary: &str) -> v1::SignalWatch {
        let reading = v1::SignalReading {
            state: state.into(),
            summary: summary.to_owned(),
            ..v1::SignalReading::default()
        };
        v1::SignalWatch { readings: vec![reading], ..v1::SignalWatch::default() }
    }
}

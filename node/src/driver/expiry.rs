//! Ends leases that nobody keeps alive. Apply knows no lease clock: a lease ends by the command that is proposed here.

use pinrail_proto::log;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use tokio::time::{Duration, Instant, sleep};

use super::dispatch::{encode, step_ref};
use super::lease::{Lease, Token};
use super::metrics::StepOutcome;
use super::state::agent_name;
use super::{Dispatch, PROPOSE_TIMEOUT, metrics};

/// How often leases and sessions are looked at.
const EVERY: Duration = Duration::from_millis(100);
/// A longer gap between two looks is a stall of this node, and no worker's fault.
const STALL: Duration = Duration::from_secs(1);
/// When an expiry was proposed and nothing was heard, it is proposed again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Expires until its task is ended with the leadership.
pub(super) async fn run(dispatch: Dispatch) {
    loop {
        let before = Instant::now();
        sleep(EVERY).await;
        let gap = before.elapsed().saturating_sub(EVERY);
        let now = Instant::now();
        let due = dispatch.with_desk(|desk| {
            if gap > STALL {
                tracing::warn!(?gap, "this node stood still; leases are extended");
                desk.forgive(gap);
            }
            let due = desk.look(now);
            for (token, _) in &due {
                desk.leases.end_at(*token, now + AGAIN);
            }
            due
        });
        match due {
            Some(due) if !due.is_empty() => expire(&dispatch, due).await,
            Some(_) | None => {}
        }
    }
}

async fn expire(dispatch: &Dispatch, due: Vec<(Token, Lease)>) {
    let commands = due.iter().map(|(token, lease)| {
        let (step, token) = (Some(step_ref(&lease.step)), Some((*token).into()));
        let progress = lease.progress.clone();
        encode(if lease.sent {
            Kind::ExpireLease(log::ExpireLease { step, token, progress })
        } else {
            // Its worker never saw it: that costs no attempt.
            Kind::HandBackStep(log::HandBackStep { step, token, progress, usage: None })
        })
    });
    let replica = &dispatch.inner.replica;
    let outcomes = match replica.propose_here(commands.collect(), PROPOSE_TIMEOUT).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            tracing::debug!(%error, "leases could not be ended yet");
            return;
        }
    };
    for ((token, lease), outcome) in due.iter().zip(&outcomes) {
        if let Some(Answer::Rejection(_)) = &outcome.result {
            // The state has no such lease any more.
            dispatch.with_desk(|desk| drop(desk.leases.remove(*token)));
            continue;
        }
        let name = agent_name(replica, lease.step.agent);
        let agent = name.map(|(_, agent)| agent).unwrap_or_default();
        tracing::info!(
            agent,
            bundle = lease.bundle_id,
            run = lease.step.run_id,
            step = lease.step.step,
            worker = lease.worker_id,
            sent = lease.sent,
            "lease ended: its worker was not heard of, or never got it"
        );
        let outcome = if lease.sent { StepOutcome::Expired } else { StepOutcome::HandedBack };
        metrics::steps(&agent, &lease.bundle_id, [outcome]);
    }
}

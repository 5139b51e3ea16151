//! When a stage is left, the runs that it started are cancelled: nobody waits for them.

use std::collections::BTreeMap;

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{AgentRef, CancelRun};
use pinrail_proto::v1::RunKind;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{self, Attended, RunFilter};
use pinrail_state_machine::store::{Fault, Read};

use super::super::dispatch::encode;
use super::super::{Dispatch, PROPOSE_TIMEOUT};

/// Runs that are read at once.
const PAGE: u32 = 1_000;

/// The stage and attempt that a release was seen at last, and whose runs those are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    stage: i32,
    attempt: u32,
    namespace: String,
    agent_id: String,
    bundle_id: String,
}

/// Cancels the runs of stages that were left since the last look.
pub(super) async fn clear(
    dispatch: &Dispatch,
    agent: u32,
    all: &[Attended],
    seen: &mut BTreeMap<(u32, u32), Seen>,
) {
    let now: BTreeMap<(u32, u32), Seen> = all
        .iter()
        .map(|it| {
            let at = Seen {
                stage: it.release.stage,
                attempt: it.release.attempt,
                namespace: it.namespace.clone(),
                agent_id: it.agent_id.clone(),
                bundle_id: it.release.bundle_id.clone(),
            };
            ((agent, it.release.number), at)
        })
        .collect();
    let before: Vec<_> =
        seen.range((agent, 0)..=(agent, u32::MAX)).map(|(k, v)| (*k, v.clone())).collect();
    for (key, was) in before {
        if now.get(&key) != Some(&was) {
            cancel(dispatch, &was).await;
            seen.remove(&key);
        }
    }
    seen.extend(now);
}

async fn cancel(dispatch: &Dispatch, was: &Seen) {
    let found = dispatch.inner.replica.read(|read| open_runs(read, was));
    let runs = match found {
        Ok(runs) if runs.is_empty() => return,
        Ok(runs) => runs,
        Err(error) => {
            tracing::warn!(%error, "runs of a stage that was left cannot be read");
            return;
        }
    };
    tracing::info!(
        agent = was.agent_id,
        bundle = was.bundle_id,
        runs = runs.len(),
        "runs of a stage that was left are cancelled"
    );
    let command = |run_id: String| {
        let agent =
            Some(AgentRef { namespace: was.namespace.clone(), agent_id: was.agent_id.clone() });
        encode(Kind::CancelRun(CancelRun { agent, run_id }))
    };
    let commands = runs.into_iter().map(command).collect();
    if let Err(error) = dispatch.inner.replica.propose_here(commands, PROPOSE_TIMEOUT).await {
        // Their pins end them all the same.
        tracing::debug!(%error, "runs of a stage that was left could not be cancelled");
    }
}

fn open_runs(read: &dyn Read, was: &Seen) -> Result<Vec<String>, Fault> {
    let mut found = Vec::new();
    for kind in [RunKind::Smoke, RunKind::Eval, RunKind::Shadow] {
        let filter = RunFilter {
            kind,
            bundle_id: was.bundle_id.clone(),
            open: true,
            ..RunFilter::default()
        };
        let mut token = String::new();
        loop {
            let page = query::runs(read, &was.namespace, &was.agent_id, &filter, PAGE, &token);
            let (runs, next) = match page {
                Ok(page) => page,
                // The agent is gone, and its runs with it.
                Err(Stop::Rejected(_)) => break,
                Err(Stop::Fault(fault)) => return Err(fault),
            };
            found.extend(runs.into_iter().map(|run| run.run_id));
            if next.is_empty() {
                break;
            }
            token = next;
        }
    }
    Ok(found)
}

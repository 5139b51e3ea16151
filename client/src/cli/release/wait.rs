//! Waiting for a release: scripts get an exit code for how it went.

use std::time::Duration;

use clap::{Args, ValueEnum};
use pinrail_proto::v1::{self, HoldCause, ReleaseState, Stage};
use tokio::time::timeout;

use super::super::context::{Context, Done};
use super::super::flags::duration;
use super::super::problem::{self, Problem};
use super::super::view::View;
use super::text;

/// Held or failed at a gate.
const GATE: u8 = 3;
/// Aborted or rolled back.
const ENDED: u8 = 4;

/// Flags of verbs that can wait.
#[derive(Debug, Clone, Args)]
pub(super) struct WaitFlags {
    /// Wait; exit code 0 reached, 3 failed or held at a gate, 4 aborted or rolled back, 5 timeout (the release goes on)
    #[arg(long)]
    pub(super) wait: bool,
    /// What to wait for
    #[arg(long, value_name = "STAGE", default_value = "switch", requires = "wait")]
    until: Until,
    /// The longest to wait; without it what --timeout says, if that is given
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    within: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    /// The candidate is live
    Switch,
    /// The quarantine is over
    Quarantine,
    /// The bundle before it is recycled
    Recycle,
}

/// Follows a release until it is where the caller wants it, or will not come there without a person.
pub(super) async fn wait(
    context: &Context,
    agent_id: &str,
    release_id: &str,
    flags: &WaitFlags,
) -> Done {
    let follow = async {
        let mut changes = context.client.releases().watch(v1::WatchReleaseRequest {
            agent_id: agent_id.to_owned(),
            release_id: release_id.to_owned(),
            ..Default::default()
        });
        while let Some(release) = changes.next().await? {
            let last = release.transitions.last().map(text::transition);
            last.iter().for_each(|line| eprintln!("{line}"));
            if reached(&release, flags.until) || code(&release) != problem::OK {
                return Ok(Some(release));
            }
        }
        Ok::<_, Problem>(None)
    };
    let limit = &context.settings.timeout;
    // What a file or the environment says is meant for single calls.
    let within = flags.within.or(limit.origin.starts_with("flag").then_some(limit.value));
    let release = match within {
        None => follow.await?,
        Some(within) => timeout(within, follow).await.unwrap_or_else(|_| {
            Err(Problem::timed_out("the release is not there yet; it goes on")
                .next(format!("pinrail release status {agent_id} --wait")))
        })?,
    };
    let release = release.unwrap_or_default();
    context.show(&View::object(&release, &release.release_id, text::release(&release)))?;
    Ok(if reached(&release, flags.until) { problem::OK } else { code(&release) })
}

fn reached(release: &v1::Release, until: Until) -> bool {
    let is_switched = release.switched_at.is_some() && release.state() != ReleaseState::RolledBack;
    is_switched
        && match until {
            Until::Switch => true,
            Until::Quarantine => {
                release.stage() == Stage::Recycle || release.state() == ReleaseState::Recycled
            }
            Until::Recycle => release.state() == ReleaseState::Recycled,
        }
}

/// The exit code that a release comes to as it is now.
pub(super) fn code(release: &v1::Release) -> u8 {
    let held = release.hold.as_ref().map(v1::Hold::cause);
    match release.state() {
        ReleaseState::Failed => GATE,
        ReleaseState::Aborted | ReleaseState::RolledBack => ENDED,
        ReleaseState::Unspecified
        | ReleaseState::Preparing
        | ReleaseState::Smoke
        | ReleaseState::Evals
        | ReleaseState::Shadow
        | ReleaseState::Canary
        | ReleaseState::Switching
        | ReleaseState::Switched
        | ReleaseState::Recycled => match held {
            None | Some(HoldCause::Unspecified | HoldCause::Operator) => problem::OK,
            Some(HoldCause::HoldBefore | HoldCause::InsufficientData | HoldCause::GateFailed) => {
                GATE
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(state: ReleaseState, cause: Option<HoldCause>) -> v1::Release {
        let hold = cause.map(|cause| v1::Hold { cause: cause.into(), ..Default::default() });
        v1::Release { state: state.into(), hold, ..Default::default() }
    }

    #[test]
    fn each_end_has_its_exit_code() {
        for (state, cause, expected) in [
            (ReleaseState::Evals, None, 0),
            (ReleaseState::Evals, Some(HoldCause::Operator), 0),
            (ReleaseState::Evals, Some(HoldCause::InsufficientData), 3),
            (ReleaseState::Failed, None, 3),
            (ReleaseState::Aborted, None, 4),
            (ReleaseState::RolledBack, None, 4),
        ] {
            assert_eq!(code(&release(state, cause)), expected, "{state:?} {cause:?}");
        }
    }
}

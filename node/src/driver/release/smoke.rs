//! Smoke: the policy's synthetic inputs run on the candidate; each must be over in time and satisfy what is expected.

use pinrail_proto::id;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{AgentRef, RunRecord, StartRun};
use pinrail_proto::time::millis;
use pinrail_proto::v1::{Payload, RunKind, RunState, SmokeCase};
use pinrail_state_machine::key::{Key, Kind as Row};
use pinrail_state_machine::query::Attended;
use pinrail_state_machine::txn;
use serde_json::json;

use super::super::Dispatch;
use super::super::state::run_in;
use super::{Finding, expect, propose};

/// How a case stands.
#[derive(Debug)]
enum Case {
    /// Its run is still to be started.
    New,
    Open,
    Passed,
    Failed(String),
}

pub(super) async fn look(dispatch: &Dispatch, it: &Attended) -> Finding {
    let gate = it.policy.gates.as_ref().and_then(|gates| gates.smoke.clone()).unwrap_or_default();
    let mut open = 0;
    let mut failed = Vec::new();
    let mut told = Vec::new();
    for case in &gate.cases {
        let run_id = run_id(it, &case.name);
        let stands = dispatch.inner.replica.read(|read| {
            let run = run_in(read, it.agent, &run_id)?;
            let output =
                txn::get::<Payload>(read, &Key::of(Row::RunOutput, it.agent).last(&run_id))?;
            Ok((run, output))
        });
        let case_stands = match stands {
            Ok((run, output)) => judge(case, run.as_ref(), output.as_ref(), it.now_ms),
            Err(error) => {
                tracing::warn!(%error, "a smoke run cannot be read");
                return Finding::Wait("the state cannot be read".to_owned());
            }
        };
        match case_stands {
            Case::New => {
                start(dispatch, it, case, run_id).await;
                open += 1;
            }
            Case::Open => open += 1,
            Case::Passed => told.push(json!({ "case": case.name, "run_id": run_id, "pass": true })),
            Case::Failed(why) => {
                failed.push(format!("{}: {why}", case.name));
                told.push(
                    json!({ "case": case.name, "run_id": run_id, "pass": false, "why": why }),
                );
            }
        }
    }
    let evidence = json!({ "cases": told });
    let total = gate.cases.len();
    if !failed.is_empty() {
        return Finding::fail(failed.join("; "), evidence);
    }
    if open > 0 {
        return Finding::Wait(format!("{} of {total} cases", total - open));
    }
    Finding::pass(format!("{total} of {total} cases"), evidence)
}

/// The same run for the same attempt, whichever leader starts it.
fn run_id(it: &Attended, case: &str) -> String {
    let hash = id::agent_hash(&it.namespace, &it.agent_id);
    let (release, attempt) = (it.release.number, it.release.attempt);
    format!("{hash}-r{release}.smoke.{attempt}.{case}")
}

async fn start(dispatch: &Dispatch, it: &Attended, case: &SmokeCase, run_id: String) {
    let within_ms = case.within.as_ref().and_then(millis).unwrap_or(60_000);
    let agent = Some(AgentRef { namespace: it.namespace.clone(), agent_id: it.agent_id.clone() });
    let command = Kind::StartRun(StartRun {
        agent,
        run_id,
        input: case.input.clone(),
        entry: case.entry.clone(),
        // It ends by itself, whoever leads then.
        max_age_ms: within_ms.max(1_000),
        bundle_id: it.release.bundle_id.clone(),
        kind: RunKind::Smoke.into(),
        ..StartRun::default()
    });
    propose(dispatch, it, command).await;
}

fn judge(case: &SmokeCase, run: Option<&RunRecord>, output: Option<&Payload>, now_ms: u64) -> Case {
    let Some(run) = run else { return Case::New };
    let within_ms = case.within.as_ref().and_then(millis).unwrap_or(60_000);
    let took_ms = if run.ended_ms == 0 { now_ms } else { run.ended_ms } - run.started_ms;
    if took_ms > within_ms || run.state() == RunState::Expired {
        return Case::Failed(format!("did not answer within {within_ms} ms"));
    }
    match run.state() {
        RunState::Completed => match expect::satisfies(case, output) {
            Ok(()) => Case::Passed,
            Err(why) => Case::Failed(why),
        },
        RunState::Failed | RunState::Cancelled => {
            let failure = run.failure.clone().unwrap_or_default();
            Case::Failed(format!("the run failed: {} {}", failure.reason, failure.message))
        }
        // It goes on as another run, which is not followed.
        RunState::Continued => Case::Failed("the run continued as another one".to_owned()),
        RunState::Unspecified
        | RunState::Scheduled
        | RunState::Queued
        | RunState::Running
        | RunState::Waiting
        | RunState::Paused
        | RunState::Cancelling
        | RunState::Expired => Case::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> SmokeCase {
        SmokeCase {
            name: "refund".to_owned(),
            within: Some(pinrail_proto::time::duration(60_000)),
            contains: vec!["refund".to_owned()],
            ..SmokeCase::default()
        }
    }

    fn run(state: RunState, ended_ms: u64) -> RunRecord {
        RunRecord { state: state.into(), started_ms: 1_000, ended_ms, ..RunRecord::default() }
    }

    fn text(text: &str) -> Payload {
        Payload { content_type: "text/plain".to_owned(), data: text.to_owned().into() }
    }

    #[test]
    fn a_case_passes_fails_or_waits() {
        let case = case();
        let good = text("your refund is on its way");
        let told = |run: Option<&RunRecord>, output: Option<&Payload>, now| {
            format!("{:?}", judge(&case, run, output, now))
        };
        assert_eq!(told(None, None, 0), "New");
        assert_eq!(told(Some(&run(RunState::Running, 0)), None, 30_000), "Open");
        assert!(told(Some(&run(RunState::Running, 0)), None, 61_001).contains("within 60000 ms"));
        let done = run(RunState::Completed, 5_000);
        assert_eq!(told(Some(&done), Some(&good), 90_000), "Passed");
        assert!(told(Some(&done), Some(&text("no")), 5_000).contains("does not contain"));
        let slow = run(RunState::Completed, 70_000);
        assert!(told(Some(&slow), Some(&good), 70_000).contains("did not answer"));
        assert!(told(Some(&run(RunState::Failed, 2_000)), None, 2_000).contains("the run failed"));
    }
}

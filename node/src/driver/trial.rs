//! A trial: synthetic inputs run on one bundle, and their outputs are held to what is expected. Ids follow from who tries, so
//! whichever leader looks finds the runs of the one before it.

use pinrail_proto::id;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{AgentRef, RunRecord, StartRun};
use pinrail_proto::time::millis;
use pinrail_proto::v1::{Payload, RunKind, RunState, SmokeCase};
use pinrail_state_machine::query;
use serde_json::json;

use super::propose::propose;
use super::{Dispatch, expect};

/// What is tried, where, and for whom.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    pub(super) namespace: &'a str,
    pub(super) agent_id: &'a str,
    /// The agent's number.
    pub(super) agent: u32,
    pub(super) bundle_id: &'a str,
    pub(super) kind: RunKind,
    /// Who tries: `r7.smoke.1`.
    pub(super) id: String,
    pub(super) cases: &'a [SmokeCase],
    pub(super) now_ms: u64,
}

/// How it stands.
#[derive(Debug)]
pub(super) enum Tried {
    /// Runs are open; the reason says how many.
    Wait(String),
    Passed(String, serde_json::Value),
    Failed(String, serde_json::Value),
}

/// How a case stands.
#[derive(Debug)]
enum Case {
    /// Its run is still to be started.
    New,
    Open,
    Passed,
    Failed(String),
}

impl Trial<'_> {
    /// Starts what is still to be started, and says how all of it stands.
    pub(super) async fn look(&self, dispatch: &Dispatch) -> Tried {
        let mut open = 0;
        let mut failed = Vec::new();
        let mut told = Vec::new();
        for case in self.cases {
            let run_id = self.run_id(&case.name);
            let stands = dispatch.inner.replica.read(|read| {
                let run = query::run_record(read, self.agent, &run_id)?;
                Ok((run, query::run_output(read, self.agent, &run_id)?))
            });
            let case_stands = match stands {
                Ok((run, output)) => judge(case, run.as_ref(), output.as_ref(), self.now_ms),
                Err(error) => {
                    tracing::warn!(%error, "a run of a trial cannot be read");
                    return Tried::Wait("the state cannot be read".to_owned());
                }
            };
            match case_stands {
                Case::New => {
                    propose(dispatch, self.start(case, run_id), "").await;
                    open += 1;
                }
                Case::Open => open += 1,
                Case::Passed => {
                    told.push(json!({ "case": case.name, "run_id": run_id, "pass": true }));
                }
                Case::Failed(why) => {
                    failed.push(format!("{}: {why}", case.name));
                    told.push(
                        json!({ "case": case.name, "run_id": run_id, "pass": false, "why": why }),
                    );
                }
            }
        }
        let evidence = json!({ "cases": told });
        let total = self.cases.len();
        if !failed.is_empty() {
            return Tried::Failed(failed.join("; "), evidence);
        }
        if open > 0 {
            return Tried::Wait(format!("{} of {total} cases", total - open));
        }
        Tried::Passed(format!("{total} of {total} cases"), evidence)
    }

    fn run_id(&self, case: &str) -> String {
        let hash = id::agent_hash(self.namespace, self.agent_id);
        format!("{hash}-{}.{case}", self.id)
    }

    fn start(&self, case: &SmokeCase, run_id: String) -> Kind {
        let (namespace, agent_id) = (self.namespace.to_owned(), self.agent_id.to_owned());
        Kind::StartRun(StartRun {
            agent: Some(AgentRef { namespace, agent_id }),
            run_id,
            input: case.input.clone(),
            entry: case.entry.clone(),
            // It ends by itself, whoever leads then.
            max_age_ms: within_ms(case).max(1_000),
            bundle_id: self.bundle_id.to_owned(),
            kind: self.kind.into(),
            ..StartRun::default()
        })
    }
}

fn within_ms(case: &SmokeCase) -> u64 {
    case.within.as_ref().and_then(millis).unwrap_or(60_000)
}

fn judge(case: &SmokeCase, run: Option<&RunRecord>, output: Option<&Payload>, now_ms: u64) -> Case {
    let Some(run) = run else { return Case::New };
    let within_ms = within_ms(case);
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

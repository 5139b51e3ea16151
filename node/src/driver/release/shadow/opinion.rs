//! The opinion of a step on a pair: a run of the candidate's bundle that begins at `gates.shadow.judge_step`, gets what both
//! runs were given and came to, and answers whether they are the same.
//!
//! ```text
//!   {"input": …, "live": …, "shadow": …}  ──>  true, false, or {"same": false, "why": "the amount differs"}
//! ```
//! It is a shadow run as well: it serves nobody, its tools with side effects are not called, and its cost is the stage's.

use std::collections::BTreeMap;

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::{AgentRef, RunRecord, StartRun};
use pinrail_proto::v1::{Payload, RunKind, RunState};
use pinrail_proto::{json, limits};
use pinrail_state_machine::query::{self, Attended};
use pinrail_state_machine::store::{Fault, Read};
use serde_json::Value;

use super::gate;
use super::pair::{Judged, Stands};

/// Label of such a run that names the mirrored run.
const JUDGE_OF: &str = "pinrail.judge_of";

/// The run that judges a mirrored run: the same one, whichever leader starts it.
pub(super) fn run_id(shadow_id: &str) -> String {
    shadow_id.replacen(".shadow.", ".judge.", 1)
}

/// How the pair stands by its judge.
pub(super) fn of(
    read: &dyn Read,
    agent: u32,
    shadow: &RunRecord,
    live_id: &str,
) -> Result<Stands, Fault> {
    if let Some(judge) = query::run_record(read, agent, &run_id(&shadow.run_id))? {
        let output = query::run_output(read, agent, &judge.run_id)?;
        return Ok(said(&judge, output.as_ref(), live_id));
    }
    let payload = |found: Option<Payload>| found.as_ref().map_or(Value::Null, json::payload);
    let asked = serde_json::json!({
        "input": payload(query::run_input(read, agent, live_id)?),
        "live": payload(query::run_output(read, agent, live_id)?),
        "shadow": payload(query::run_output(read, agent, &shadow.run_id)?),
    });
    let data = asked.to_string();
    if data.len() > limits::PAYLOAD_BYTES {
        let why = "both outputs are too large for one input of a judge".to_owned();
        return Ok(Stands::Compared(Judged::NotComparable { why }));
    }
    let content_type = "application/json".to_owned();
    Ok(Stands::AwaitsJudge(Payload { content_type, data: data.into() }))
}

fn said(judge: &RunRecord, output: Option<&Payload>, live_id: &str) -> Stands {
    let apart = |why: String| Stands::Compared(Judged::NotComparable { why });
    match judge.state() {
        RunState::Completed => {}
        RunState::Failed | RunState::Cancelled | RunState::Expired | RunState::Continued => {
            let failure = judge.failure.clone().unwrap_or_default();
            let why =
                format!("the judge came to no answer: {} {}", failure.reason, failure.message);
            return apart(why.trim_end().to_owned());
        }
        RunState::Unspecified
        | RunState::Scheduled
        | RunState::Queued
        | RunState::Running
        | RunState::Waiting
        | RunState::Paused
        | RunState::Cancelling => return Stands::Open,
    }
    let answer: Option<Value> = output.and_then(|output| serde_json::from_slice(&output.data).ok());
    let same = match &answer {
        Some(Value::Bool(same)) => Some(*same),
        Some(Value::Object(answer)) => answer.get("same").and_then(Value::as_bool),
        Some(Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => None,
    };
    match same {
        None => apart("the judge answered neither true nor false".to_owned()),
        Some(true) => Stands::Compared(Judged::Same),
        Some(false) => {
            let why = answer.as_ref().and_then(|answer| answer.get("why")).and_then(Value::as_str);
            let why = why.unwrap_or("the judge says that they differ").to_owned();
            Stands::Compared(Judged::Diverged { live: live_id.to_owned(), why })
        }
    }
}

/// Starts the judge of a pair.
pub(super) fn start(it: &Attended, shadow_id: &str, input: Payload) -> Kind {
    let left_ms = it.release.deadline_ms.saturating_sub(it.now_ms);
    Kind::StartRun(StartRun {
        agent: Some(AgentRef { namespace: it.namespace.clone(), agent_id: it.agent_id.clone() }),
        run_id: run_id(shadow_id),
        input: Some(input),
        labels: BTreeMap::from([(JUDGE_OF.to_owned(), shadow_id.to_owned())]),
        entry: gate(it).judge_step,
        max_age_ms: left_ms.max(1_000),
        bundle_id: it.release.bundle_id.clone(),
        kind: RunKind::Shadow.into(),
        priority: limits::LAST_PRIORITY,
        ..StartRun::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(state: RunState, output: &str) -> Stands {
        let judge = RunRecord { state: state.into(), ..RunRecord::default() };
        let output =
            Payload { content_type: "application/json".to_owned(), data: output.to_owned().into() };
        said(&judge, Some(&output), "l")
    }

    #[test]
    fn a_judge_says_same_or_different_or_nothing() {
        let diverged = |why: &str| {
            Stands::Compared(Judged::Diverged { live: "l".to_owned(), why: why.to_owned() })
        };
        assert_eq!(told(RunState::Running, ""), Stands::Open);
        assert_eq!(told(RunState::Completed, "true"), Stands::Compared(Judged::Same));
        assert_eq!(told(RunState::Completed, r#"{"same":true}"#), Stands::Compared(Judged::Same));
        let why = r#"{"same":false,"why":"the amount"}"#;
        assert_eq!(told(RunState::Completed, why), diverged("the amount"));
        assert_eq!(told(RunState::Completed, "false"), diverged("the judge says that they differ"));
        for (state, output) in [(RunState::Completed, "\"yes\""), (RunState::Failed, "")] {
            assert!(matches!(told(state, output), Stands::Compared(Judged::NotComparable { .. })));
        }
    }

    #[test]
    fn its_id_follows_from_the_mirrored_run() {
        assert_eq!(run_id("ab-r7.shadow.1.c0ffee"), "ab-r7.judge.1.c0ffee");
    }
}

//! A start at every member leads to the good bundle. It is asked for as a dry run, so that nothing is started.

use futures::future::join_all;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, DrillRecord, StartRun};
use pinrail_state_machine::query::Drilled;
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::super::Dispatch;
use super::{Finding, good, route};

/// How long a member may take.
const WITHIN: Duration = Duration::from_secs(5);

/// What a start at one member came to.
struct Start {
    member: String,
    /// Whether it was heard of lately: a leader that is new has heard of nobody yet.
    heard_of: bool,
    /// The bundle that it leads to, or why there was none.
    led: Result<String, String>,
    took: Duration,
}

pub(super) async fn look(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord) -> Finding {
    let members = dispatch.inner.replica.status().members;
    let asked = members.iter().map(|member| async {
        let began = Instant::now();
        let relayed = dispatch.inner.replica.relay(member, start(it, drill, &member.name), WITHIN);
        let led = relayed.await.and_then(|outcome| bundle_of(outcome.result));
        let took = began.elapsed();
        Start { member: member.name.clone(), heard_of: member.reachable, led, took }
    });
    judge(join_all(asked).await, good(drill))
}

fn judge(starts: Vec<Start>, good: &str) -> Finding {
    let (starts, away): (Vec<Start>, Vec<Start>) =
        starts.into_iter().partition(|start| start.led.is_ok() || start.heard_of);
    let away: Vec<String> = away.into_iter().map(|start| start.member).collect();
    let told: Vec<_> = starts
        .iter()
        .map(|start| {
            json!({
                "member": start.member, "took_micros": start.took.as_micros().to_string(),
                "bundle": start.led.as_ref().ok(), "error": start.led.as_ref().err(),
            })
        })
        .collect();
    let evidence = json!({ "starts": told, "unreachable": away });
    for start in &starts {
        match &start.led {
            Ok(bundle) if bundle == good => {}
            Ok(bundle) => {
                let why = format!("a start at {} leads to {bundle}, not {good}", start.member);
                return Finding::fail(why, evidence);
            }
            Err(why) => return Finding::Wait(format!("{}: {why}", start.member)),
        }
    }
    let mut reason = format!("at {} members", starts.len());
    if !away.is_empty() {
        reason.push_str(&format!("; {} not reachable", away.join(", ")));
    }
    Finding::pass(reason, evidence)
}

fn start(it: &Drilled, drill: &DrillRecord, member: &str) -> log::Command {
    let header = log::Header { dry_run: true, ..log::Header::default() };
    let start = StartRun {
        agent: Some(route(it)),
        run_id: format!("d{}.start.{member}", drill.number),
        ..StartRun::default()
    };
    log::Command { header: Some(header), kind: Some(Kind::StartRun(start)) }
}

fn bundle_of(answer: Option<Answer>) -> Result<String, String> {
    match answer {
        Some(Answer::StartRun(started)) => {
            started.pin.map(|pin| pin.bundle_id).ok_or_else(|| "it gave no pin".to_owned())
        }
        Some(Answer::Rejection(refused)) => Err(format!("{}: {}", refused.reason, refused.message)),
        Some(_) | None => Err("it gave another answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use pinrail_proto::v1::Verdict;

    use super::*;

    /// Of the first so many members something was heard lately.
    fn told(led: &[Result<&str, &str>], heard_of: usize) -> String {
        let start = |(number, led): (usize, &Result<&str, &str>)| Start {
            member: format!("n{number}"),
            heard_of: number < heard_of,
            led: led.map(str::to_owned).map_err(str::to_owned),
            took: Duration::from_millis(1),
        };
        let starts: Vec<Start> = led.iter().enumerate().map(start).collect();
        match judge(starts, "good") {
            Finding::Wait(why) => format!("wait: {why}"),
            Finding::Done { verdict: Verdict::Pass, reason, .. } => format!("pass: {reason}"),
            Finding::Done { reason, .. } => format!("fail: {reason}"),
        }
    }

    #[test]
    fn one_member_that_leads_elsewhere_fails_it_and_one_that_is_away_does_not() {
        assert_eq!(told(&[Ok("good"), Ok("good")], 2), "pass: at 2 members");
        assert_eq!(told(&[Ok("good"), Err("gone")], 1), "pass: at 1 members; n1 not reachable");
        assert_eq!(told(&[Ok("good"), Err("busy")], 2), "wait: n1: busy");
        let wrong = "fail: a start at n1 leads to bad, not good";
        assert_eq!(told(&[Ok("good"), Ok("bad")], 2), wrong);
    }

    #[test]
    fn a_member_counts_that_answers_a_new_leader_which_has_not_heard_of_it_yet() {
        assert_eq!(told(&[Ok("good"), Ok("good"), Ok("good")], 1), "pass: at 3 members");
        let wrong = "fail: a start at n2 leads to bad, not good";
        assert_eq!(told(&[Ok("good"), Ok("good"), Ok("bad")], 1), wrong);
    }
}

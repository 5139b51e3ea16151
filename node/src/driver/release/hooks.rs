//! Gate hooks: what would pass, passes once every hook that gates the stage has let it.
//!
//! Each hook is asked on a task of its own, so that a slow receiver holds up no other release, and its answer is kept
//! until the attempt is over. Another leader asks again, with the same id.
//!
//! ```text
//!   2xx        it passes                     4xx   it refuses: the stage fails, its reason is what the hook said
//!   otherwise  no answer: asked again, later and later, until the stage's time is over
//! ```
//! Behind the switch nothing fails any more: there a hook that refuses is asked again.

use std::collections::BTreeMap;

use pinrail_proto::v1::{Hook, Stage, Verdict};
use pinrail_state_machine::query::Attended;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::super::Dispatch;
use super::super::hooks::{GateAnswer, GateAsk};
use super::{Finding, stage_word};

/// First and longest wait before a hook is asked again that gave no answer.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// A hook that refuses to end a quarantine is asked again after this.
const REFUSED: Duration = Duration::from_secs(60);

/// What of an answer is in the evidence, and what of all refusals in the reason: both have their limits.
const TOLD_BYTES: usize = 256;
const REASON_BYTES: usize = 4 << 10;

/// Agent, release, stage, attempt, hook.
type AskId = (u32, u32, i32, u32, String);

/// What is known of a question.
#[derive(Debug, Clone, Default)]
struct Asked {
    is_under_way: bool,
    /// The newest answer, and when it came.
    answer: Option<(GateAnswer, Instant)>,
    /// How often there was no answer.
    failures: u32,
}

/// The questions of the attempts that are under way.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    asked: BTreeMap<AskId, Asked>,
    flights: JoinSet<(AskId, GateAnswer)>,
}

impl Hooks {
    /// Forgets what was asked for attempts of an agent that are not under way any more.
    pub(super) fn keep(&mut self, agent: u32, all: &[Attended]) {
        let present: Vec<_> = all
            .iter()
            .map(|it| (it.agent, it.release.number, it.release.stage, it.release.attempt))
            .collect();
        self.asked.retain(|id, _| id.0 != agent || present.contains(&(id.0, id.1, id.2, id.3)));
    }

    /// What a look has found, once the hooks were asked: a pass may wait for them, or fail by them.
    pub(super) fn judge(&mut self, dispatch: &Dispatch, it: &Attended, found: Finding) -> Finding {
        let Finding::Judged { verdict: Verdict::Pass, reason, evidence } = found else {
            return found;
        };
        self.land();
        let gate = stage_word(it.release.stage());
        let mut answers = Vec::new();
        for hook in it.policy.hooks.iter().filter(|hook| hook.gate == gate) {
            answers.push((hook.name.clone(), self.ask(dispatch, it, hook, &evidence)));
        }
        sum_up(it.release.stage(), reason, evidence, answers)
    }

    fn land(&mut self) {
        while let Some(landed) = self.flights.try_join_next() {
            // An ask that panicked ends the process, as every panic does.
            let Ok((id, answer)) = landed else { continue };
            let Some(asked) = self.asked.get_mut(&id) else { continue };
            if let GateAnswer::None { why } = &answer {
                asked.failures += 1;
                tracing::info!(release = id.1, hook = id.4, why, "a gate hook gave no answer");
            }
            asked.is_under_way = false;
            asked.answer = Some((answer, Instant::now()));
        }
    }

    /// The newest answer, if there is one; asks where it is time.
    fn ask(
        &mut self,
        dispatch: &Dispatch,
        it: &Attended,
        hook: &Hook,
        evidence: &Value,
    ) -> Option<GateAnswer> {
        let release = &it.release;
        let id = (it.agent, release.number, release.stage, release.attempt, hook.name.clone());
        let asked = self.asked.entry(id.clone()).or_default();
        let answer = asked.answer.as_ref().map(|(answer, _)| answer.clone());
        if !is_due(release.stage(), asked) {
            return answer;
        }
        asked.is_under_way = true;
        let question = GateAsk {
            namespace: it.namespace.clone(),
            agent_id: it.agent_id.clone(),
            agent: it.agent,
            bundle_id: release.bundle_id.clone(),
            baseline_bundle_id: release.baseline_bundle_id.clone(),
            hook: hook.clone(),
            stage: stage_word(release.stage()),
            release: release.number,
            attempt: release.attempt,
            evidence: evidence.clone(),
        };
        let dispatch = dispatch.clone();
        self.flights.spawn(async move {
            let answer = dispatch.gate(&question).await;
            (id, answer)
        });
        answer
    }
}

/// Whether it is time to ask again.
fn is_due(stage: Stage, asked: &Asked) -> bool {
    if asked.is_under_way {
        return false;
    }
    let Some((answer, at)) = &asked.answer else { return true };
    let wait = match answer {
        GateAnswer::Pass { .. } => return false,
        GateAnswer::Refused { .. } if stage == Stage::Quarantine => REFUSED,
        GateAnswer::Refused { .. } => return false,
        GateAnswer::None { .. } => {
            let doublings = asked.failures.saturating_sub(1).min(8);
            (FIRST * (1 << doublings)).min(LONGEST)
        }
    };
    at.elapsed() >= wait
}

/// What the answers make of a pass.
fn sum_up(
    stage: Stage,
    reason: String,
    evidence: Value,
    answers: Vec<(String, Option<GateAnswer>)>,
) -> Finding {
    if answers.is_empty() {
        return Finding::pass(reason, evidence);
    }
    let (mut waits, mut refused, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let mut passed = Vec::new();
    let mut tell = |hook: &str, status: u16, pass: bool, said: &str| {
        let said = cut(said, TOLD_BYTES);
        told.push(json!({ "hook": hook, "status": status, "pass": pass, "said": said }));
    };
    for (hook, answer) in answers {
        match answer {
            None => waits.push(format!("hook {hook} is asked")),
            Some(GateAnswer::None { why }) => {
                waits.push(format!("hook {hook} gave no answer: {why}"))
            }
            Some(GateAnswer::Pass { status, said }) => {
                tell(&hook, status, true, &said);
                passed.push(hook);
            }
            Some(GateAnswer::Refused { status, said }) => {
                tell(&hook, status, false, &said);
                refused.push(match said.as_str() {
                    "" => format!("hook {hook} refused with {status}"),
                    said => format!("hook {hook} refused: {said}"),
                });
            }
        }
    }
    if !refused.is_empty() && stage == Stage::Quarantine {
        return Finding::Wait(refused.join("; "));
    }
    if refused.is_empty() && !waits.is_empty() {
        return Finding::Wait(waits.join("; "));
    }
    let evidence = json!({ "own": evidence, "hooks": told });
    if !refused.is_empty() {
        return Finding::fail(cut(&refused.join("; "), REASON_BYTES), evidence);
    }
    Finding::pass(format!("{reason}; let pass by {}", passed.join(", ")), evidence)
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(said: &str) -> Option<GateAnswer> {
        Some(GateAnswer::Pass { status: 200, said: said.to_owned() })
    }

    fn refused(said: &str) -> Option<GateAnswer> {
        Some(GateAnswer::Refused { status: 403, said: said.to_owned() })
    }

    fn none() -> Option<GateAnswer> {
        Some(GateAnswer::None { why: "503".to_owned() })
    }

    fn said(stage: Stage, answers: &[(&str, Option<GateAnswer>)]) -> String {
        let answers = answers.iter().map(|(hook, answer)| ((*hook).to_owned(), answer.clone()));
        match sum_up(stage, "5 of 5 cases".to_owned(), json!({}), answers.collect()) {
            Finding::Wait(why) => format!("wait: {why}"),
            Finding::Judged { verdict, reason, .. } => format!("{verdict:?}: {reason}"),
            Finding::Advance { .. } => panic!("a canary"),
        }
    }

    #[test]
    fn a_stage_passes_when_all_its_hooks_let_it() {
        assert_eq!(said(Stage::Smoke, &[]), "Pass: 5 of 5 cases");
        let both = [("ci", pass("")), ("legal", pass("ok"))];
        assert_eq!(said(Stage::Smoke, &both), "Pass: 5 of 5 cases; let pass by ci, legal");
        let one = [("ci", pass("")), ("legal", None)];
        assert_eq!(said(Stage::Smoke, &one), "wait: hook legal is asked");
        let silent = [("ci", pass("")), ("legal", none())];
        assert_eq!(said(Stage::Smoke, &silent), "wait: hook legal gave no answer: 503");
    }

    #[test]
    fn one_that_refuses_fails_it_whatever_the_others_say() {
        let one = [("ci", refused("tests are red")), ("legal", None)];
        assert_eq!(said(Stage::Smoke, &one), "Fail: hook ci refused: tests are red");
        assert_eq!(said(Stage::Smoke, &[("ci", refused(""))]), "Fail: hook ci refused with 403");
        assert_eq!(said(Stage::Quarantine, &one), "wait: hook ci refused: tests are red");
    }

    #[tokio::test(start_paused = true)]
    async fn what_gave_no_answer_is_asked_again_later_and_later() {
        let asked = |answer: Option<GateAnswer>, failures| Asked {
            is_under_way: false,
            answer: answer.map(|answer| (answer, Instant::now())),
            failures,
        };
        let second = Duration::from_secs(1);
        let cases = [
            (Stage::Smoke, asked(none(), 1), 1, true),
            (Stage::Smoke, asked(none(), 3), 3, false),
            (Stage::Smoke, asked(none(), 3), 4, true),
            (Stage::Smoke, asked(none(), 40), 30, true),
            (Stage::Smoke, asked(refused(""), 0), 99, false),
            (Stage::Quarantine, asked(refused(""), 0), 59, false),
            (Stage::Quarantine, asked(refused(""), 0), 60, true),
            (Stage::Smoke, asked(pass(""), 0), 99, false),
            (Stage::Smoke, Asked { is_under_way: true, ..asked(none(), 1) }, 99, false),
        ];
        assert!(is_due(Stage::Smoke, &Asked::default()), "it was never asked");
        for (stage, mut asked, seconds, expected) in cases {
            let begin = Instant::now();
            asked.answer = asked.answer.map(|(answer, _)| (answer, begin));
            assert!(!is_due(stage, &asked), "{asked:?}");
            tokio::time::advance(second * seconds).await;
            assert_eq!(is_due(stage, &asked), expected, "{asked:?} after {seconds} s");
        }
    }
}

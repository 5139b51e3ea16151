//! Runs that the cluster itself starts on the examples of an eval set, on the candidate and, when it was never measured on
//! this version, on the live bundle; and the report that they come to.
//!
//! Ids follow from release, attempt, bundle and the example's place, so whichever leader looks finds the runs of the one
//! before it. What an output is held against is in the example: nothing here calls a model.

use pinrail_proto::id;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRef, RunRecord, StartRun, SubmitEvalReport};
use pinrail_proto::time::millis;
use pinrail_proto::v1::{
    self, EvalExample, EvalOutcome, EvalResult, Payload, RunKind, RunState, SmokeCase,
};
use pinrail_state_machine::query::{self, Attended};
use pinrail_state_machine::store::{Fault, Read};

use super::super::{Dispatch, expect};
use super::propose;

/// Runs that are open at once on one bundle.
const OPEN: usize = 20;
/// Examples that the cluster runs itself; larger sets come as reports.
const EXAMPLES: usize = 1_000;
/// The one metric of these reports.
const METRIC: &str = "expected";

/// How far the reports of this attempt are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Brought {
    Waiting {
        bundle_id: String,
        have: usize,
        need: usize,
    },
    /// What can be brought is there.
    Ready,
}

/// What is to be run on one bundle.
#[derive(Debug)]
struct Work<'a> {
    it: &'a Attended,
    set: &'a v1::EvalSet,
    examples: &'a [EvalExample],
    bundle_id: &'a str,
    /// `c`andidate or `b`aseline.
    side: char,
    max_age_ms: u64,
}

/// Starts what is still to be started, and hands the report in when the last run is over.
///
/// # Errors
/// Why it cannot be brought at all, or not now.
pub(super) async fn bring(
    dispatch: &Dispatch,
    it: &Attended,
    gate: &v1::EvalsGate,
) -> Result<Brought, Cannot> {
    let (candidate, baseline) = (&it.release.bundle_id, &it.release.baseline_bundle_id);
    let read = |read: &dyn Read| {
        let Some(set) = query::eval_gate::set(read, it.agent, &gate.set)? else { return Ok(None) };
        let attempt = attempt(it);
        let reports = |bundle: &str| query::eval_gate::reports(read, it.agent, bundle);
        let of_attempt =
            |report: &v1::EvalReport| report.set == set.set && report.source == attempt;
        let mut missing = Vec::new();
        if !reports(candidate)?.iter().any(of_attempt) {
            missing.push((candidate.as_str(), 'c'));
        }
        let other = !baseline.is_empty() && baseline != candidate;
        if other && !reports(baseline)?.iter().any(|report| report.set == set.set) {
            missing.push((baseline.as_str(), 'b'));
        }
        let mut examples = match missing.as_slice() {
            [] => Vec::new(),
            _ => query::eval_gate::examples(read, it.agent, &set)?,
        };
        examples.retain(|example| example.input.is_some());
        Ok(Some((set, examples, missing)))
    };
    let found =
        dispatch.inner.replica.read(read).map_err(|error| Cannot::Now(error.to_string()))?;
    let Some((set, examples, missing)) = found else { return Ok(Brought::Ready) };
    if examples.len() > EXAMPLES {
        let have = examples.len();
        return Err(Cannot::Ever(format!(
            "{} has {have} examples with an input; the cluster runs at most {EXAMPLES}: submit a report",
            set.set
        )));
    }
    let max_age_ms = gate.timeout.as_ref().and_then(millis).unwrap_or(0).max(1_000);
    for (bundle_id, side) in missing.into_iter().filter(|_| !examples.is_empty()) {
        let work = Work { it, set: &set, examples: &examples, bundle_id, side, max_age_ms };
        let have = work.go_on(dispatch).await?;
        if have < examples.len() {
            let (bundle_id, need) = (bundle_id.to_owned(), examples.len());
            return Ok(Brought::Waiting { bundle_id, have, need });
        }
    }
    Ok(Brought::Ready)
}

/// Why reports are not brought.
#[derive(Debug)]
pub(super) enum Cannot {
    Now(String),
    Ever(String),
}

/// Names the attempt in its reports.
fn attempt(it: &Attended) -> String {
    format!("release r{}, attempt {}", it.release.number, it.release.attempt)
}

impl Work<'_> {
    /// How many runs are over. With the last one the report is handed in.
    async fn go_on(&self, dispatch: &Dispatch) -> Result<usize, Cannot> {
        let stands = dispatch.inner.replica.read(|read| self.runs(read));
        let runs = stands.map_err(|error| Cannot::Now(error.to_string()))?;
        let over = runs.iter().flatten().filter(|run| run.ended_ms != 0).count();
        let mut room = OPEN.saturating_sub(runs.iter().flatten().count() - over);
        for (index, run) in runs.iter().enumerate() {
            if run.is_none() && room > 0 {
                room -= 1;
                propose(dispatch, self.it, self.start(index)).await;
            }
        }
        if over == self.examples.len() {
            let results = dispatch.inner.replica.read(|read| self.results(read, &runs));
            let results = results.map_err(|error| Cannot::Now(error.to_string()))?;
            let answer = propose(dispatch, self.it, self.submit(results)).await;
            if !matches!(answer, Some(Answer::EvalReport(_))) {
                return Err(Cannot::Now(
                    "the report of the runs could not be handed in".to_owned(),
                ));
            }
        }
        Ok(over)
    }

    fn runs(&self, read: &dyn Read) -> Result<Vec<Option<RunRecord>>, Fault> {
        let ids = (0..self.examples.len()).map(|index| self.run_id(index));
        ids.map(|run_id| query::run_record(read, self.it.agent, &run_id)).collect()
    }

    fn results(
        &self,
        read: &dyn Read,
        runs: &[Option<RunRecord>],
    ) -> Result<Vec<EvalResult>, Fault> {
        let mut results = Vec::with_capacity(runs.len());
        for (example, run) in self.examples.iter().zip(runs) {
            let Some(run) = run else { continue };
            let output = query::run_output(read, self.it.agent, &run.run_id)?;
            results.push(result(example, run, output.as_ref()));
        }
        Ok(results)
    }

    fn run_id(&self, index: usize) -> String {
        let hash = id::agent_hash(&self.it.namespace, &self.it.agent_id);
        let (release, attempt) = (self.it.release.number, self.it.release.attempt);
        format!("{hash}-r{release}.evals.{attempt}.{}{index}", self.side)
    }

    fn agent(&self) -> AgentRef {
        AgentRef { namespace: self.it.namespace.clone(), agent_id: self.it.agent_id.clone() }
    }

    fn start(&self, index: usize) -> Kind {
        let example = &self.examples[index];
        Kind::StartRun(StartRun {
            agent: Some(self.agent()),
            run_id: self.run_id(index),
            input: example.input.clone(),
            entry: example.entry.clone(),
            max_age_ms: self.max_age_ms,
            bundle_id: self.bundle_id.to_owned(),
            kind: RunKind::Eval.into(),
            memory_revision: self.set.memory_revision,
            ..StartRun::default()
        })
    }

    fn submit(&self, results: Vec<EvalResult>) -> Kind {
        let kind = v1::MetricKind::Structured.into();
        Kind::SubmitEvalReport(SubmitEvalReport {
            agent: Some(self.agent()),
            report: Some(v1::EvalReport {
                bundle_id: self.bundle_id.to_owned(),
                set: self.set.set.clone(),
                format: "runs".to_owned(),
                source: attempt(self.it),
                metrics: vec![v1::EvalMetric { name: METRIC.to_owned(), kind }],
                results,
                ..v1::EvalReport::default()
            }),
        })
    }
}

/// How a run that is over did. One that failed or did not answer in time failed; one that somebody cancelled says nothing.
fn result(example: &EvalExample, run: &RunRecord, output: Option<&Payload>) -> EvalResult {
    let judged = match run.state() {
        RunState::Completed => satisfies(example, output).map_err(|why| (EvalOutcome::Failed, why)),
        RunState::Cancelled => Err((EvalOutcome::Error, "the run was cancelled".to_owned())),
        RunState::Failed => {
            let failure = run.failure.clone().unwrap_or_default();
            let why = format!("the run failed: {} {}", failure.reason, failure.message);
            Err((EvalOutcome::Failed, why))
        }
        RunState::Expired => Err((EvalOutcome::Failed, "did not answer in time".to_owned())),
        RunState::Unspecified
        | RunState::Scheduled
        | RunState::Queued
        | RunState::Running
        | RunState::Waiting
        | RunState::Paused
        | RunState::Cancelling
        | RunState::Continued => {
            Err((EvalOutcome::Error, "the run continued as another one".to_owned()))
        }
    };
    let (outcome, message) = match judged {
        Ok(()) => (EvalOutcome::Passed, String::new()),
        Err(why) => why,
    };
    let passed = outcome == EvalOutcome::Passed;
    let score = v1::EvalScore {
        metric: METRIC.to_owned(),
        passed: Some(passed),
        score_permille: Some(if passed { 1_000 } else { 0 }),
    };
    let models = || run.usage.iter().flat_map(|usage| &usage.models);
    EvalResult {
        example_id: example.id.clone(),
        category: example.category.clone(),
        outcome: outcome.into(),
        scores: if outcome == EvalOutcome::Error { Vec::new() } else { vec![score] },
        message: cut(message),
        input_tokens: models().map(|it| it.input_tokens).sum(),
        output_tokens: models().map(|it| it.output_tokens).sum(),
        cost_micros: models().map(|it| it.cost_micros).sum(),
        latency_ms: run.ended_ms.saturating_sub(run.started_ms),
        trials: u32::from(outcome != EvalOutcome::Error),
        trials_passed: u32::from(passed),
    }
}

fn satisfies(example: &EvalExample, output: Option<&Payload>) -> Result<(), String> {
    let Some(expected) = &example.expect else { return Ok(()) };
    if let Some(exact) = &expected.exact {
        let is = output.cloned().unwrap_or_default();
        let json =
            |payload: &Payload| serde_json::from_slice::<serde_json::Value>(&payload.data).ok();
        let same = match (json(exact), json(&is)) {
            (Some(expected), Some(is)) => expected == is,
            _ => exact.data == is.data,
        };
        if !same {
            return Err("the output is not the expected one".to_owned());
        }
    }
    let case = SmokeCase {
        schema: expected.schema.clone(),
        contains: expected.contains.clone(),
        matches: expected.matches.clone(),
        ..SmokeCase::default()
    };
    expect::satisfies(&case, output)
}

fn cut(mut message: String) -> String {
    let mut end = message.len().min(pinrail_proto::limits::EVAL_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Payload {
        Payload { content_type: "application/json".to_owned(), data: text.to_owned().into() }
    }

    fn told(expect: v1::EvalExpectation, state: RunState, output: &str) -> (EvalOutcome, String) {
        let example = EvalExample { expect: Some(expect), ..EvalExample::default() };
        let run =
            RunRecord { state: state.into(), started_ms: 1, ended_ms: 9, ..Default::default() };
        let result = result(&example, &run, Some(&json(output)));
        (result.outcome(), result.message)
    }

    #[test]
    fn outputs_are_held_against_what_is_expected() {
        let exact = || v1::EvalExpectation {
            exact: Some(json("{\"a\": 1, \"b\": 2}")),
            ..v1::EvalExpectation::default()
        };
        let contains = || v1::EvalExpectation {
            contains: vec!["refund".to_owned()],
            ..v1::EvalExpectation::default()
        };
        let completed = RunState::Completed;
        assert_eq!(told(exact(), completed, "{\"b\":2,\"a\":1}").0, EvalOutcome::Passed);
        assert_eq!(told(exact(), completed, "{\"b\":2}").0, EvalOutcome::Failed);
        assert_eq!(told(contains(), completed, "\"a refund\"").0, EvalOutcome::Passed);
        let (outcome, why) = told(contains(), completed, "\"no\"");
        assert!(outcome == EvalOutcome::Failed && why.contains("refund"), "{why}");
    }

    #[test]
    fn runs_that_gave_no_output_are_told_apart() {
        let none = v1::EvalExpectation::default;
        assert_eq!(told(none(), RunState::Failed, "").0, EvalOutcome::Failed);
        assert_eq!(told(none(), RunState::Expired, "").0, EvalOutcome::Failed);
        assert_eq!(told(none(), RunState::Cancelled, "").0, EvalOutcome::Error);
        assert_eq!(told(none(), RunState::Completed, "").0, EvalOutcome::Passed);
    }
}

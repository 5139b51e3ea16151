//! Judges the gate `evals`: a pure function over one moment of the state. The leader calls it and records what it says with
//! its numbers; apply never judges, so floats are allowed here, and I/O is not.
//!
//! The question is: is the candidate as good on a set that is worth something as the policy asks, and no worse than what
//! is live?
//!
//! | check | asks | else |
//! |---|---|---|
//! | `set` | the policy's set is registered | error |
//! | `coverage` | the set's categories are near enough to production's | fail |
//! | `sensitivity` | a structured metric, and one that a model or a person decides | fail |
//! | `report` | the candidate has a result for each example | insufficient data |
//! | `errors` | few examples could not be judged | error |
//! | `pass_rate` | at least `min_pass_rate` | fail |
//! | `stability` | the live bundle was measured on a comparable version | insufficient data, or error |
//! | `regression` | no loss beyond `max_loss`, by McNemar's test on the examples that both have | fail, or insufficient data |
//!
//! One that fails decides; then an error, then insufficient data. What rests on a check that did not pass is not looked at.

mod compare;
mod statistics;
#[cfg(test)]
mod tests;
mod told;

use pinrail_proto::v1::{self, EvalCheck, EvalJudgement, Verdict};
use pinrail_proto::{limits, reason};
use pinrail_state_machine::query;
use pinrail_state_machine::store::{Fault, Read};

use compare::Comparison;
use told::{number, share};

/// Fewer labelled runs than this say nothing about the mix of production.
const COVERAGE_RUNS: u64 = 50;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The agent's number.
    pub(crate) agent: u32,
    pub(crate) candidate: &'a str,
    /// What is live; empty: nothing is.
    pub(crate) baseline: &'a str,
    /// Complete, as a release froze it.
    pub(crate) gate: &'a v1::EvalsGate,
}

/// A report with its results, and the set that it is of.
#[derive(Debug)]
struct Measured {
    report: v1::EvalReport,
    results: Vec<v1::EvalResult>,
    set: v1::EvalSet,
}

/// Judges from what is stored. `verdict` is pass, fail, insufficient data (`have` of `need`), error, or skipped when the
/// policy names no set.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub(crate) fn judge(read: &dyn Read, asked: &Question<'_>) -> Result<EvalJudgement, Fault> {
    let mut judgement = EvalJudgement {
        set: asked.gate.set.clone(),
        bundle_id: asked.candidate.to_owned(),
        baseline_bundle_id: asked.baseline.to_owned(),
        ..EvalJudgement::default()
    };
    if asked.gate.set.is_empty() {
        judgement.set_verdict(Verdict::Skipped);
        "the policy names no eval set (gates.evals.set)".clone_into(&mut judgement.message);
        return Ok(judgement);
    }
    let Some(set) = query::eval_gate::set(read, asked.agent, &asked.gate.set)? else {
        let message = format!("{} is not registered", asked.gate.set);
        note(&mut judgement, "set", Verdict::Error, message);
        conclude(&mut judgement);
        return Ok(judgement);
    };
    coverage(read, asked, &set, &mut judgement)?;
    let candidate = measured(read, asked.agent, asked.candidate, |it| it.set == set.set)?;
    sensitivity(asked, &set, candidate.as_ref(), &mut judgement);
    if let Some(candidate) = whole(&set, candidate, &mut judgement)
        && errors(asked, &candidate, &mut judgement)
    {
        pass_rate(asked, &candidate, &mut judgement);
        against_baseline(read, asked, &candidate, &mut judgement)?;
    }
    conclude(&mut judgement);
    Ok(judgement)
}

/// The newest report of a bundle that is wanted, with its results.
fn measured(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
    wanted: impl Fn(&v1::EvalReport) -> bool,
) -> Result<Option<Measured>, Fault> {
    let reports = query::eval_gate::reports(read, agent, bundle_id)?;
    let Some(report) = reports.into_iter().find(wanted) else { return Ok(None) };
    let results = query::eval_gate::results(read, agent, &report)?;
    let set = query::eval_gate::set(read, agent, &report.set)?;
    Ok(set.map(|set| Measured { report, results, set }))
}

fn note(judgement: &mut EvalJudgement, name: &str, verdict: Verdict, message: String) {
    judgement.checks.push(EvalCheck { name: name.to_owned(), verdict: verdict.into(), message });
}

/// The checks' verdicts become the gate's; its message is that of the check that decided.
fn conclude(judgement: &mut EvalJudgement) {
    let order = [Verdict::Fail, Verdict::Error, Verdict::InsufficientData];
    let first = |verdict| judgement.checks.iter().find(|check| check.verdict() == verdict).cloned();
    let Some(check) = order.into_iter().find_map(first) else {
        judgement.set_verdict(Verdict::Pass);
        let last = judgement.checks.iter().rev().find(|check| check.verdict() == Verdict::Pass);
        judgement.message = last.map_or_else(String::new, |check| check.message.clone());
        return;
    };
    judgement.verdict = check.verdict;
    judgement.message = check.message;
    if judgement.reason.is_empty() {
        reason::GATE_NOT_PASSED.name.clone_into(&mut judgement.reason);
    }
}

fn coverage(
    read: &dyn Read,
    asked: &Question<'_>,
    set: &v1::EvalSet,
    judgement: &mut EvalJudgement,
) -> Result<(), Fault> {
    let policy = asked.gate.coverage.clone().unwrap_or_default();
    if policy.label().is_empty() {
        note(judgement, "coverage", Verdict::Skipped, "the policy names no label".to_owned());
        return Ok(());
    }
    let coverage = query::coverage_of(read, asked.agent, set, &policy)?;
    let (verdict, message) = covered(&coverage);
    note(judgement, "coverage", verdict, message);
    judgement.coverage = Some(coverage);
    Ok(())
}

fn covered(coverage: &v1::EvalCoverage) -> (Verdict, String) {
    let (runs, label, set) = (coverage.runs, &coverage.label, &coverage.set);
    if runs < COVERAGE_RUNS {
        let message = format!(
            "{runs} live runs have the label {label}; {COVERAGE_RUNS} are needed to tell what production does"
        );
        return (Verdict::Skipped, message);
    }
    let short: Vec<String> =
        coverage.categories.iter().filter(|it| it.short).map(told::short_category).collect();
    if short.is_empty() && coverage.gap_permille <= coverage.max_gap_permille {
        let message = format!(
            "{set} is {} from the mix of {runs} runs, allowed {}",
            number(coverage.gap_permille),
            number(coverage.max_gap_permille)
        );
        return (Verdict::Pass, message);
    }
    let categories =
        if short.is_empty() { String::new() } else { format!("; {}", short.join("; ")) };
    let message = format!(
        "{set} does not cover production: its mix is {} from that of {runs} runs, allowed {}{categories}",
        number(coverage.gap_permille),
        number(coverage.max_gap_permille)
    );
    (Verdict::Fail, message)
}

/// A set that only compares texts does not notice an answer that got worse, one that only asks a judge not one that broke.
fn sensitivity(
    asked: &Question<'_>,
    set: &v1::EvalSet,
    candidate: Option<&Measured>,
    judgement: &mut EvalJudgement,
) {
    if !asked.gate.sensitivity() {
        let message = "the policy does not ask for it".to_owned();
        return note(judgement, "sensitivity", Verdict::Skipped, message);
    }
    let summary = candidate.and_then(|it| it.report.summary.clone());
    let (structured, quality) = match &summary {
        // What was really measured; the set's word on a metric's kind is in the summary already.
        Some(summary) => {
            kinds(summary.metrics.iter().filter(|it| it.scored > 0).map(|it| it.kind()))
        }
        None if set.metrics.is_empty() => return,
        None => kinds(set.metrics.iter().map(v1::EvalMetric::kind)),
    };
    let of = if summary.is_some() { "the report has" } else { "the set declares" };
    let missing = match (structured, quality) {
        (true, true) => {
            let message = format!("{of} a structured metric, and one of quality");
            return note(judgement, "sensitivity", Verdict::Pass, message);
        }
        (false, true) => "no structured metric",
        (true, false) => "no metric that a model or a person decides",
        (false, false) => "no metric of a known kind",
    };
    note(judgement, "sensitivity", Verdict::Fail, format!("{of} {missing} ({})", set.set));
}

fn kinds(kinds: impl Iterator<Item = v1::MetricKind>) -> (bool, bool) {
    kinds.fold((false, false), |(structured, quality), kind| match kind {
        v1::MetricKind::Structured => (true, quality),
        v1::MetricKind::Judge | v1::MetricKind::Human => (structured, true),
        v1::MetricKind::Unspecified => (structured, quality),
    })
}

/// The candidate's report, once it has a result for every example.
fn whole(
    set: &v1::EvalSet,
    candidate: Option<Measured>,
    judgement: &mut EvalJudgement,
) -> Option<Measured> {
    let have = candidate.as_ref().map_or(0, |it| it.results.len());
    let have = u32::try_from(have).unwrap_or(u32::MAX);
    if let Some(candidate) = &candidate {
        judgement.report_id.clone_from(&candidate.report.report_id);
    }
    if have >= set.example_count {
        return candidate;
    }
    (judgement.have, judgement.need) = (have, set.example_count);
    let message = match candidate {
        None => format!("{} has no report on {}", judgement.bundle_id, set.set),
        Some(_) => format!("results for {have} of {} examples of {}", set.example_count, set.set),
    };
    note(judgement, "report", Verdict::InsufficientData, message);
    judgement.next.push(told::submit(&judgement.bundle_id, &set.set));
    None
}

/// Whether few enough examples could not be judged.
fn errors(asked: &Question<'_>, candidate: &Measured, judgement: &mut EvalJudgement) -> bool {
    let rate = compare::rate(&candidate.results, asked.gate.confidence_permille());
    let all = rate.judged + rate.errors;
    let share_of = share(rate.errors, all);
    let allowed = asked.gate.max_errors_permille();
    let is_ok =
        rate.judged > 0 && u64::from(rate.errors) * 1_000 <= u64::from(allowed) * u64::from(all);
    let message = format!(
        "{} of {all} examples are errors ({share_of}), allowed {}",
        rate.errors,
        number(allowed)
    );
    judgement.candidate = Some(rate);
    note(judgement, "errors", if is_ok { Verdict::Pass } else { Verdict::Error }, message);
    is_ok
}

fn pass_rate(asked: &Question<'_>, candidate: &Measured, judgement: &mut EvalJudgement) {
    let rate = judgement.candidate.unwrap_or_default();
    let least = asked.gate.min_pass_rate_permille();
    let is_ok = u64::from(rate.passed) * 1_000 >= u64::from(least) * u64::from(rate.judged);
    let verb = if is_ok { "at least" } else { "needs" };
    let message = format!(
        "pass rate {} on {} ({} cases); {verb} {}",
        share(rate.passed, rate.judged),
        candidate.set.set,
        rate.judged,
        number(least)
    );
    note(judgement, "pass_rate", if is_ok { Verdict::Pass } else { Verdict::Fail }, message);
}

/// Stability and regression: both need what is live.
fn against_baseline(
    read: &dyn Read,
    asked: &Question<'_>,
    candidate: &Measured,
    judgement: &mut EvalJudgement,
) -> Result<(), Fault> {
    if asked.baseline.is_empty() || asked.baseline == asked.candidate {
        let message = "no other bundle is live to compare with".to_owned();
        note(judgement, "stability", Verdict::Skipped, message);
        return Ok(());
    }
    let same = measured(read, asked.agent, asked.baseline, |it| it.set == candidate.set.set)?;
    let of_name =
        |it: &v1::EvalReport| it.set.split('@').next() == Some(candidate.set.name.as_str());
    let baseline = match same {
        Some(same) => Some(same),
        None => measured(read, asked.agent, asked.baseline, of_name)?,
    };
    let Some(baseline) = baseline else {
        (judgement.have, judgement.need) = (0, candidate.set.example_count);
        let message =
            format!("{}, which is live, has no report on {}", asked.baseline, candidate.set.set);
        note(judgement, "stability", Verdict::InsufficientData, message);
        judgement.next.push(told::submit(asked.baseline, &candidate.set.set));
        return Ok(());
    };
    judgement.baseline_report_id.clone_from(&baseline.report.report_id);
    judgement.baseline_set.clone_from(&baseline.set.set);
    let common = compare::common(read, asked.agent, &candidate.set, &baseline.set)?;
    if let Err(message) = comparable(&candidate.set, &baseline.set, common.len()) {
        reason::EVALS_NOT_COMPARABLE.name.clone_into(&mut judgement.reason);
        note(judgement, "stability", Verdict::Error, message);
        judgement.next.push(told::submit(asked.baseline, &candidate.set.set));
        return Ok(());
    }
    let message = match candidate.set.set == baseline.set.set {
        true => format!("both were measured on {}", candidate.set.set),
        false => format!(
            "compared on the {} examples that {} and {} have in common",
            common.len(),
            candidate.set.set,
            baseline.set.set
        ),
    };
    note(judgement, "stability", Verdict::Pass, message);
    let of = compare::compare(&common, &candidate.results, &baseline.results, asked.gate);
    regression(asked, candidate, &of, judgement);
    Ok(())
}

/// Versions of a set are comparable when they share most of the smaller one, and enough to count.
fn comparable(
    candidate: &v1::EvalSet,
    baseline: &v1::EvalSet,
    common: usize,
) -> Result<(), String> {
    let common = u32::try_from(common).unwrap_or(u32::MAX);
    let smaller = candidate.example_count.min(baseline.example_count);
    let larger = candidate.example_count.max(baseline.example_count);
    let least = limits::EVAL_COMMON_MIN.min(larger);
    let enough =
        u64::from(common) * 1_000 >= u64::from(limits::EVAL_COMMON_PERMILLE) * u64::from(smaller);
    if enough && common >= least {
        return Ok(());
    }
    Err(format!(
        "{} and {} have {common} examples in common, of {} and {}; at least {} of the smaller one and {least} are needed",
        candidate.set,
        baseline.set,
        candidate.example_count,
        baseline.example_count,
        number(limits::EVAL_COMMON_PERMILLE),
    ))
}

fn regression(
    asked: &Question<'_>,
    candidate: &Measured,
    of: &Comparison,
    judgement: &mut EvalJudgement,
) {
    judgement.baseline = Some(of.baseline);
    judgement.comparison = Some(of.message.clone());
    let pairs = of.message.pairs;
    let max_loss = asked.gate.max_loss_permille();
    let needs = of.baseline_rate() - f64::from(max_loss) / 1_000.0;
    let numbers = format!(
        "pass rate {:.3} on {} ({pairs} cases); {{}} {needs:.3} = {}'s {:.3} − {}",
        of.candidate_rate(),
        candidate.set.set,
        asked.baseline,
        of.baseline_rate(),
        number(max_loss),
    );
    let p = format!("{} p = {:.4}", statistics::METHOD, of.p);
    if of.candidate_rate() >= needs {
        return note(judgement, "regression", Verdict::Pass, numbers.replace("{}", "at least"));
    }
    if of.is_significant(asked.gate.confidence_permille()) {
        let message = format!("{}; {p}", numbers.replace("{}", "needs"));
        return note(judgement, "regression", Verdict::Fail, message);
    }
    (judgement.have, judgement.need) = (pairs, of.needed(asked.gate.confidence_permille()));
    let message = format!(
        "{}; that may be chance ({p}): {pairs} of about {} cases",
        numbers.replace("{}", "needs"),
        judgement.need
    );
    note(judgement, "regression", Verdict::InsufficientData, message);
    judgement.next.push(format!(
        "a larger version of {}, or more tries of each example, measured on both bundles",
        candidate.set.name
    ));
}

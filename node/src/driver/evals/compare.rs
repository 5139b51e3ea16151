//! Two bundles on the examples that both were measured on.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::limits;
use pinrail_proto::v1::{self, EvalOutcome, EvalRate};
use pinrail_state_machine::query;
use pinrail_state_machine::store::{Fault, Read};

use super::statistics::{METHOD, mcnemar, wilson};

/// How two bundles did on the same examples. Examples that are an error of either are left out.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) message: v1::EvalComparison,
    /// Of the baseline, on the pairs.
    pub(super) baseline: EvalRate,
    pub(super) p: f64,
}

impl Comparison {
    pub(super) fn candidate_rate(&self) -> f64 {
        let it = &self.message;
        f64::from(it.both_passed + it.only_candidate_passed) / f64::from(it.pairs.max(1))
    }

    pub(super) fn baseline_rate(&self) -> f64 {
        let it = &self.message;
        f64::from(it.both_passed + it.only_baseline_passed) / f64::from(it.pairs.max(1))
    }

    pub(super) fn is_significant(&self, confidence_permille: u32) -> bool {
        self.p <= 1.0 - f64::from(confidence_permille) / 1_000.0
    }

    /// How many pairs it would take for losses in this proportion to be no chance.
    pub(super) fn needed(&self, confidence_permille: u32) -> u32 {
        let (lost, won) = (self.message.only_baseline_passed, self.message.only_candidate_passed);
        let alpha = 1.0 - f64::from(confidence_permille) / 1_000.0;
        let most = u32::try_from(limits::EVAL_EXAMPLES).unwrap_or(u32::MAX);
        let pairs = self.message.pairs.max(1);
        let scaled = |count: u32, to: u32| {
            let share = u64::from(count) * u64::from(to);
            u32::try_from(share.div_ceil(u64::from(pairs))).unwrap_or(u32::MAX)
        };
        // A twentieth more each time is near enough for "about".
        let mut to = pairs;
        while to < most {
            to = (to + to / 20 + 1).min(most);
            if mcnemar(scaled(lost, to), scaled(won, to)) <= alpha {
                return to;
            }
        }
        most
    }
}

/// The pass rate of judged examples with its interval.
pub(super) fn rate(results: &[v1::EvalResult], confidence_permille: u32) -> EvalRate {
    let count = |outcome| results.iter().filter(|result| result.outcome() == outcome).count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let passed = number(count(EvalOutcome::Passed));
    let judged = passed + number(count(EvalOutcome::Failed));
    of(passed, judged, number(count(EvalOutcome::Error)), confidence_permille)
}

fn of(passed: u32, judged: u32, errors: u32, confidence_permille: u32) -> EvalRate {
    let (low, high) = wilson(passed, judged, f64::from(confidence_permille) / 1_000.0);
    EvalRate {
        judged,
        passed,
        errors,
        rate_permille: thousandths(f64::from(passed) / f64::from(judged.max(1))),
        low_permille: thousandths(low),
        high_permille: thousandths(high),
    }
}

/// Ids of the examples that two versions of a set have with the same content.
pub(super) fn common(
    read: &dyn Read,
    agent: u32,
    candidate: &v1::EvalSet,
    baseline: &v1::EvalSet,
) -> Result<BTreeSet<String>, Fault> {
    let of_candidate = query::eval_gate::examples(read, agent, candidate)?;
    if candidate.digest == baseline.digest {
        return Ok(of_candidate.into_iter().map(|example| example.id).collect());
    }
    let of_baseline = query::eval_gate::examples(read, agent, baseline)?;
    let digests: BTreeSet<&str> = of_baseline.iter().map(|it| it.digest.as_str()).collect();
    let is_common = |it: &v1::EvalExample| digests.contains(it.digest.as_str());
    Ok(of_candidate.into_iter().filter(is_common).map(|example| example.id).collect())
}

/// Pairs of results of the common examples, and McNemar's test on them.
pub(super) fn compare(
    common: &BTreeSet<String>,
    candidate: &[v1::EvalResult],
    baseline: &[v1::EvalResult],
    gate: &v1::EvalsGate,
) -> Comparison {
    let of_baseline: BTreeMap<&str, bool> = judged(baseline).collect();
    let mut message = v1::EvalComparison {
        common: u32::try_from(common.len()).unwrap_or(u32::MAX),
        method: METHOD.to_owned(),
        confidence_permille: gate.confidence_permille(),
        ..v1::EvalComparison::default()
    };
    for (id, candidate) in judged(candidate).filter(|(id, _)| common.contains(*id)) {
        let Some(baseline) = of_baseline.get(id) else { continue };
        message.pairs += 1;
        match (candidate, *baseline) {
            (true, true) => message.both_passed += 1,
            (true, false) => message.only_candidate_passed += 1,
            (false, true) => message.only_baseline_passed += 1,
            (false, false) => message.neither_passed += 1,
        }
    }
    let p = mcnemar(message.only_baseline_passed, message.only_candidate_passed);
    message.p_millionths = thousandths(p * 1_000.0);
    let passed = message.both_passed + message.only_baseline_passed;
    let baseline = of(passed, message.pairs, 0, gate.confidence_permille());
    Comparison { message, baseline, p }
}

/// Whether each example that was judged passed.
fn judged(results: &[v1::EvalResult]) -> impl Iterator<Item = (&str, bool)> {
    results.iter().filter_map(|result| match result.outcome() {
        EvalOutcome::Passed => Some((result.example_id.as_str(), true)),
        EvalOutcome::Failed => Some((result.example_id.as_str(), false)),
        EvalOutcome::Error | EvalOutcome::Unspecified => None,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares and probabilities lie between 0 and 1"
)]
fn thousandths(number: f64) -> u32 {
    (number * 1_000.0).round() as u32
}

//! How each signal stands, by what was counted on both sides. Pure integer arithmetic over numbers that are in the state.

use pinrail_proto::log::SliceRecord;
use pinrail_proto::v1::{SignalFigure, SignalKind, SignalReading, SignalState};

use crate::drift::Open;

use super::histogram::{self, Histogram};
use super::overdue::Overdue;
use super::settings::Rules;
use super::words::{change, percent, rate, summary};

/// Latencies that differ by less are alike: so much is the cluster's own.
const NOISE_MS: u64 = 10;
const P95: u64 = 950;
/// Tools and models that a reading names.
const DRIFTS_TOLD: usize = 4;

/// What was counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) candidate: SliceRecord,
    /// Of the candidate, over the window of scores.
    pub(crate) scores: SliceRecord,
    pub(crate) overdue: Overdue,
    pub(crate) baseline: SliceRecord,
    /// Of the candidate. None: nothing was ever compared.
    pub(crate) drift: Option<Vec<Open>>,
}

/// Slower than this is slow. None: the baseline has too few runs to say.
pub(crate) fn slow_ms(baseline: &SliceRecord, rules: &Rules) -> Option<u64> {
    if baseline.completed < rules.min_samples {
        return None;
    }
    let p95 = histogram::quantile(&baseline.latency, P95)?;
    Some(times(p95, rules.max_latency_ratio).max(p95 + NOISE_MS))
}

fn times(value: u64, permille: u64) -> u64 {
    value.saturating_mul(permille) / 1_000
}

/// A limit as the policy says it, unless noise makes it wider.
fn ratio(limit: u64, before: u64, permille: u64) -> String {
    if limit == times(before, permille) { change(permille, 1_000) } else { change(limit, before) }
}

pub(crate) fn judge(signal: SignalKind, seen: &Seen, rules: &Rules) -> SignalReading {
    let reading = match signal {
        SignalKind::P95Latency => latency(seen, rules),
        SignalKind::FailureRate => failures(seen, rules),
        SignalKind::CostPerCompletedRun => cost(seen, rules),
        SignalKind::EvalPassRate => scores(seen, rules),
        SignalKind::Drift => drifted(seen, rules),
        SignalKind::Unspecified => not_measured(),
    };
    SignalReading {
        signal: signal.into(),
        min_samples: rules.min_samples,
        summary: summary(&reading.figures),
        ..reading
    }
}

fn not_measured() -> SignalReading {
    SignalReading { state: SignalState::NotMeasured.into(), ..SignalReading::default() }
}

/// The p95, and the share of runs that are slow. One that has not completed counts as soon as it is slower than the limit,
/// and before that not at all: nobody knows how long it would have taken.
fn latency(seen: &Seen, rules: &Rules) -> SignalReading {
    let Seen { candidate, overdue, baseline, .. } = seen;
    let limit = slow_ms(baseline, rules);
    let mut slow = overdue.ages.clone();
    if let Some(limit) = limit {
        histogram::merge(&mut slow, &histogram::rest_above(&candidate.cut, limit));
    }
    let mut cohort: Histogram = candidate.latency.clone();
    histogram::merge(&mut cohort, &slow);
    let samples = histogram::total(&cohort);
    let (Some(limit), Some(value), Some(before)) =
        (limit, histogram::quantile(&cohort, P95), histogram::quantile(&baseline.latency, P95))
    else {
        return too_few("p95", (samples, baseline.completed), rules);
    };
    if samples < rules.min_samples {
        return too_few("p95", (samples, baseline.completed), rules);
    }
    let slow = histogram::total(&slow) + histogram::above(&candidate.latency, limit);
    let slow_share = slow * 1_000 / samples;
    let figures = [
        SignalFigure {
            name: "p95".to_owned(),
            value: change(value, before),
            bounds: format!("limit {}, n {samples}", ratio(limit, before, rules.max_latency_ratio)),
            over: value > limit,
        },
        SignalFigure {
            name: "slow share".to_owned(),
            value: percent(slow_share),
            bounds: format!("limit {}", percent(rules.max_slow_share)),
            over: slow * 1_000 > rules.max_slow_share * samples,
        },
    ];
    SignalReading {
        value,
        baseline_value: before,
        limit,
        ..measured(figures.into(), (samples, baseline.completed))
    }
}

fn failures(seen: &Seen, rules: &Rules) -> SignalReading {
    let rate_of = |slice: &SliceRecord| {
        let ended = slice.completed + slice.failed;
        (ended, slice.failed * 1_000 / ended.max(1))
    };
    let (samples, value) = rate_of(&seen.candidate);
    let (baseline_samples, before) = rate_of(&seen.baseline);
    if samples.min(baseline_samples) < rules.min_samples {
        return too_few("failures", (samples, baseline_samples), rules);
    }
    let limit = before + rules.max_failure_increase;
    let figure = SignalFigure {
        name: "failures".to_owned(),
        value: percent(value),
        bounds: format!("limit {}, n {samples}", percent(limit)),
        over: value > limit,
    };
    SignalReading {
        value,
        baseline_value: before,
        limit,
        ..measured(vec![figure], (samples, baseline_samples))
    }
}

/// All that was spent by runs that ended, and by those that are overdue, for each completed run.
fn cost(seen: &Seen, rules: &Rules) -> SignalReading {
    let Seen { candidate, overdue, baseline, .. } = seen;
    let ended = |slice: &SliceRecord| slice.completed + slice.failed + slice.cancelled;
    let (samples, baseline_samples) = (ended(candidate) + overdue.runs(), ended(baseline));
    if samples.min(baseline_samples) < rules.min_samples {
        return match candidate.cost_micros.max(baseline.cost_micros) {
            0 => not_measured(),
            _ => too_few("cost", (samples, baseline_samples), rules),
        };
    }
    let spent = candidate.cost_micros.saturating_add(overdue.cost_micros);
    let value = spent / candidate.completed.max(1);
    let before = baseline.cost_micros / baseline.completed.max(1);
    if before == 0 {
        // Nothing is a multiple of nothing.
        return not_measured();
    }
    let limit = times(before, rules.max_cost_ratio);
    let figure = SignalFigure {
        name: "cost".to_owned(),
        value: change(value, before),
        bounds: format!("limit {}, n {samples}", ratio(limit, before, rules.max_cost_ratio)),
        over: value > limit,
    };
    SignalReading {
        value,
        baseline_value: before,
        limit,
        ..measured(vec![figure], (samples, baseline_samples))
    }
}

/// The mean score; where a judge knows only pass and fail that is the share that passed.
fn scores(seen: &Seen, rules: &Rules) -> SignalReading {
    let samples = seen.scores.scored;
    if samples == 0 {
        return not_measured();
    }
    if samples < rules.min_samples {
        return too_few("pass rate", (samples, rules.min_samples), rules);
    }
    let value = seen.scores.score_sum_permille / samples;
    let figure = SignalFigure {
        name: "pass rate".to_owned(),
        value: rate(value),
        bounds: format!("limit {}, n {samples}", rate(rules.min_score)),
        over: value < rules.min_score,
    };
    SignalReading { value, limit: rules.min_score, ..measured(vec![figure], (samples, 0)) }
}

/// What is open of the candidate's tools and models, as far as the policy minds.
fn drifted(seen: &Seen, rules: &Rules) -> SignalReading {
    let Some(open) = &seen.drift else { return not_measured() };
    let minded: Vec<&Open> = open.iter().filter(|it| rules.minds(it.class)).collect();
    let figure = |it: &&Open| SignalFigure {
        name: format!("drift of {}", it.name),
        value: it.told.clone(),
        bounds: format!("n {}", it.count),
        over: true,
    };
    let mut figures: Vec<_> = minded.iter().take(DRIFTS_TOLD).map(figure).collect();
    if figures.is_empty() {
        let value = "none".to_owned();
        figures.push(SignalFigure { name: "drift".to_owned(), value, ..SignalFigure::default() });
    }
    SignalReading { value: minded.len() as u64, ..measured(figures, (0, 0)) }
}

fn measured(figures: Vec<SignalFigure>, samples: (u64, u64)) -> SignalReading {
    let is_over = figures.iter().any(|figure| figure.over);
    let state = if is_over { SignalState::Firing } else { SignalState::Ok };
    SignalReading {
        state: state.into(),
        figures,
        samples: samples.0,
        baseline_samples: samples.1,
        ..SignalReading::default()
    }
}

/// The side that lacks runs is named: of the candidate, unless only the baseline does.
fn too_few(name: &str, samples: (u64, u64), rules: &Rules) -> SignalReading {
    let wanted = rules.min_samples;
    let value = if samples.0 < wanted {
        format!("{} of {wanted}", samples.0)
    } else {
        format!("{} of {wanted} of the baseline", samples.1)
    };
    let figure = SignalFigure { name: name.to_owned(), value, ..SignalFigure::default() };
    SignalReading { state: SignalState::InsufficientData.into(), ..measured(vec![figure], samples) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinrail_proto::v1;

    fn rules() -> Rules {
        Rules::of(&v1::Policy::default())
    }

    fn slice(latencies: &[(u64, u64)]) -> SliceRecord {
        let mut slice = SliceRecord::default();
        for (ms, count) in latencies {
            *slice.latency.entry(histogram::bucket(*ms)).or_default() += count;
            slice.completed += count;
        }
        slice
    }

    fn told(signal: SignalKind, seen: &Seen) -> String {
        let reading = judge(signal, seen, &rules());
        let figures = reading.figures.iter().map(|figure| {
            let over = if figure.over { "!" } else { "" };
            format!("{} {}{over} ({})", figure.name, figure.value, figure.bounds)
        });
        let figures: Vec<String> = figures.collect();
        format!("{:?}: {}", reading.state(), figures.join(", "))
    }

    #[test]
    fn a_slow_candidate_fires_and_an_equal_one_does_not() {
        let baseline = slice(&[(1_000, 950), (2_000, 50)]);
        let equal =
            Seen { candidate: slice(&[(1_000, 95), (2_000, 5)]), baseline, ..Seen::default() };
        assert_eq!(
            told(SignalKind::P95Latency, &equal),
            "Ok: p95 0 % (limit +25 %, n 100), slow share 5 % (limit 5 %)"
        );
        let slow = Seen { candidate: slice(&[(1_000, 90), (2_000, 10)]), ..equal };
        assert!(told(SignalKind::P95Latency, &slow).starts_with("Firing: p95 +9"));
    }

    #[test]
    fn one_that_completes_nothing_fires_by_the_age_of_its_runs() {
        let mut overdue = Overdue::default();
        for _ in 0..50 {
            histogram::count(&mut overdue.ages, 30_000);
        }
        let seen = Seen { overdue, baseline: slice(&[(1_000, 100)]), ..Seen::default() };
        assert!(told(SignalKind::P95Latency, &seen).starts_with("Firing: p95 +2"));
        assert!(told(SignalKind::P95Latency, &seen).contains("slow share 100 %! (limit 5 %)"));
    }

    #[test]
    fn too_few_runs_are_counted_in_words() {
        let seen = Seen {
            candidate: slice(&[(1_000, 12)]),
            baseline: slice(&[(1_000, 500)]),
            ..Seen::default()
        };
        assert_eq!(told(SignalKind::P95Latency, &seen), "InsufficientData: p95 12 of 50 ()");
        let seen = Seen { candidate: seen.baseline, baseline: seen.candidate, ..Seen::default() };
        assert_eq!(
            told(SignalKind::P95Latency, &seen),
            "InsufficientData: p95 12 of 50 of the baseline ()"
        );
        assert_eq!(told(SignalKind::CostPerCompletedRun, &seen), "NotMeasured: ");
        assert_eq!(told(SignalKind::EvalPassRate, &seen), "NotMeasured: ");
    }

    #[test]
    fn failures_cost_and_scores_have_their_limits() {
        let baseline = SliceRecord { failed: 10, cost_micros: 1_000_000, ..slice(&[(900, 990)]) };
        let candidate = SliceRecord { failed: 4, cost_micros: 151_000, ..slice(&[(900, 96)]) };
        let scores =
            SliceRecord { scored: 60, score_sum_permille: 53_000, ..SliceRecord::default() };
        let seen = Seen { candidate, scores, baseline, ..Seen::default() };
        assert_eq!(
            told(SignalKind::FailureRate, &seen),
            "Firing: failures 4 %! (limit 3 %, n 100)"
        );
        assert_eq!(
            told(SignalKind::CostPerCompletedRun, &seen),
            "Firing: cost +55.6 %! (limit +50 %, n 100)"
        );
        assert_eq!(
            told(SignalKind::EvalPassRate, &seen),
            "Firing: pass rate 0.883! (limit 0.9, n 60)"
        );
    }

    #[test]
    fn drift_fires_as_the_policy_minds_it() {
        let open = |name: &str, class: v1::DriftClass| Open {
            name: name.to_owned(),
            class,
            told: "input /region: it is new and required".to_owned(),
            count: 3,
        };
        assert_eq!(told(SignalKind::Drift, &Seen::default()), "NotMeasured: ");
        let clean = Seen { drift: Some(Vec::new()), ..Seen::default() };
        assert_eq!(told(SignalKind::Drift, &clean), "Ok: drift none ()");
        let harmless = vec![open("mail", v1::DriftClass::Compatible)];
        let harmless = Seen { drift: Some(harmless), ..Seen::default() };
        assert_eq!(told(SignalKind::Drift, &harmless), "Ok: drift none ()");
        let broken = vec![open("search", v1::DriftClass::Breaking)];
        let broken = Seen { drift: Some(broken), ..Seen::default() };
        assert_eq!(
            told(SignalKind::Drift, &broken),
            "Firing: drift of search input /region: it is new and required! (n 3)"
        );
    }

    #[test]
    fn latencies_of_a_few_milliseconds_are_alike() {
        let seen =
            Seen { candidate: slice(&[(9, 100)]), baseline: slice(&[(2, 100)]), ..Seen::default() };
        assert!(told(SignalKind::P95Latency, &seen).starts_with("Ok: p95 +350 %"));
    }
}

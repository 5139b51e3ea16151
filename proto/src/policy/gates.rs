//! `[gates.*]`: the stages of a release.

use super::range::{DAY, HOUR, MINUTE};
use super::word;
use crate::time::duration;
use crate::v1;

pub(super) fn fill(gates: &mut v1::GatesPolicy) {
    let prepare = gates.prepare.get_or_insert_default();
    word(&mut prepare.mode, v1::StageMode::Required);
    prepare.timeout.get_or_insert(duration(15 * MINUTE));
    smoke(gates.smoke.get_or_insert_default());
    evals(gates.evals.get_or_insert_default());
    shadow(gates.shadow.get_or_insert_default());
    canary(gates.canary.get_or_insert_default());
}

fn smoke(smoke: &mut v1::SmokeGate) {
    word(&mut smoke.mode, v1::StageMode::Optional);
    smoke.timeout.get_or_insert(duration(10 * MINUTE));
    for case in &mut smoke.cases {
        case.within.get_or_insert(duration(MINUTE));
    }
}

fn evals(evals: &mut v1::EvalsGate) {
    word(&mut evals.mode, v1::StageMode::Optional);
    evals.timeout.get_or_insert(duration(2 * HOUR));
    evals.min_pass_rate_permille.get_or_insert(900);
    evals.max_loss_permille.get_or_insert(20);
    evals.confidence_permille.get_or_insert(950);
    evals.max_errors_permille.get_or_insert(10);
    evals.sensitivity.get_or_insert(true);
    let coverage = evals.coverage.get_or_insert_default();
    coverage.label.get_or_insert_with(|| "task_kind".to_owned());
    coverage.window.get_or_insert(duration(7 * DAY));
    coverage.max_gap_permille.get_or_insert(100);
    coverage.floor_permille.get_or_insert(50);
    coverage.min_cases.get_or_insert(10);
}

fn shadow(shadow: &mut v1::ShadowGate) {
    word(&mut shadow.mode, v1::StageMode::Optional);
    shadow.timeout.get_or_insert(duration(2 * HOUR));
    match shadow.share_bp[..] {
        [] => shadow.share_bp = vec![1_000, 10_000],
        // A share alone is never raised.
        [share] => shadow.share_bp.push(share),
        [_, _, ..] => {}
    }
    word(&mut shadow.on_insufficient, v1::OnInsufficient::Hold);
    shadow.max_open.get_or_insert(20);
    shadow.max_cost_micros.get_or_insert(20_000_000);
    shadow.min_pairs.get_or_insert(200);
    shadow.max_divergence_permille.get_or_insert(100);
    word(&mut shadow.compare, v1::Compare::Json);
    shadow.tolerance_permille.get_or_insert(10);
}

fn canary(canary: &mut v1::CanaryGate) {
    word(&mut canary.mode, v1::StageMode::Auto);
    if canary.auto_parts.is_empty() {
        canary.auto_parts = ["model", "tools", "index"].map(str::to_owned).to_vec();
    }
    if canary.steps.is_empty() {
        canary.steps = vec![v1::CanaryStep { share_bp: 500, hold: Some(duration(HOUR)) }];
    }
    canary.timeout.get_or_insert(duration(6 * HOUR));
}

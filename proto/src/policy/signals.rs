//! `[signals]`: what is watched in canary and behind the switch.

use super::range::{DAY, HOUR, MINUTE};
use super::word;
use crate::time::duration;
use crate::v1;

/// The modes of a signal stay unspecified: then they are those of the phase.
pub(super) fn fill(signals: &mut v1::SignalsPolicy) {
    word(&mut signals.canary, v1::SignalMode::Rollback);
    word(&mut signals.quarantine, v1::SignalMode::Notify);
    signals.window.get_or_insert(duration(10 * MINUTE));
    signals.min_samples.get_or_insert(50);
    signals.baseline_window.get_or_insert(duration(DAY));

    let pass_rate = signals.eval_pass_rate.get_or_insert_default();
    pass_rate.modes.get_or_insert_default();
    pass_rate.min_permille.get_or_insert(900);
    pass_rate.window.get_or_insert(duration(HOUR));

    let latency = signals.p95_latency.get_or_insert_default();
    latency.modes.get_or_insert_default();
    latency.max_ratio_permille.get_or_insert(1_250);
    latency.max_slow_share_permille.get_or_insert(50);

    let cost = signals.cost_per_completed_run.get_or_insert_default();
    cost.modes.get_or_insert_default();
    cost.max_ratio_permille.get_or_insert(1_500);

    let failures = signals.failure_rate.get_or_insert_default();
    failures.modes.get_or_insert_default();
    failures.max_increase_permille.get_or_insert(20);

    let drift = signals.drift.get_or_insert_default();
    word(&mut drift.modes.get_or_insert_default().canary, v1::SignalMode::Notify);
    word(&mut drift.on, v1::DriftOn::Breaking);
}

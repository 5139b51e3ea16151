//! `[signals]`: modes, windows and thresholds.

use pinrail_proto::policy::range::{
    BASELINE_WINDOW, PERMILLE, RATIO_PERMILLE, SIGNAL_SAMPLES, SIGNAL_WINDOW,
};
use pinrail_proto::v1;

use super::range::{number, permille, span, word};
use crate::outcome::Stop;

pub(super) fn check(signals: &v1::SignalsPolicy) -> Result<(), Stop> {
    mode("signals.canary", signals.canary)?;
    mode("signals.quarantine", signals.quarantine)?;
    span("signals.window", signals.window.as_ref(), SIGNAL_WINDOW)?;
    number("signals.min_samples", signals.min_samples, SIGNAL_SAMPLES)?;
    span("signals.baseline_window", signals.baseline_window.as_ref(), BASELINE_WINDOW)?;
    if let Some(signal) = &signals.eval_pass_rate {
        modes("signals.eval_pass_rate", signal.modes.as_ref())?;
        permille("signals.eval_pass_rate.min", signal.min_permille, PERMILLE)?;
        span("signals.eval_pass_rate.window", signal.window.as_ref(), SIGNAL_WINDOW)?;
    }
    if let Some(signal) = &signals.p95_latency {
        modes("signals.p95_latency", signal.modes.as_ref())?;
        let (ratio, share) = (signal.max_ratio_permille, signal.max_slow_share_permille);
        permille("signals.p95_latency.max_ratio", ratio, RATIO_PERMILLE)?;
        permille("signals.p95_latency.max_slow_share", share, PERMILLE)?;
    }
    if let Some(signal) = &signals.cost_per_completed_run {
        modes("signals.cost_per_completed_run", signal.modes.as_ref())?;
        let ratio = signal.max_ratio_permille;
        permille("signals.cost_per_completed_run.max_ratio", ratio, RATIO_PERMILLE)?;
    }
    if let Some(signal) = &signals.failure_rate {
        modes("signals.failure_rate", signal.modes.as_ref())?;
        permille("signals.failure_rate.max_increase", signal.max_increase_permille, PERMILLE)?;
    }
    if let Some(signal) = &signals.drift {
        modes("signals.drift", signal.modes.as_ref())?;
        word::<v1::DriftOn>("signals.drift.on", signal.on, "breaking, any")?;
    }
    Ok(())
}

fn modes(key: &str, modes: Option<&v1::SignalModes>) -> Result<(), Stop> {
    let Some(modes) = modes else { return Ok(()) };
    mode(&format!("{key}.canary"), modes.canary)?;
    mode(&format!("{key}.quarantine"), modes.quarantine)
}

fn mode(key: &str, mode: i32) -> Result<(), Stop> {
    word::<v1::SignalMode>(key, mode, "rollback, notify, off")
}

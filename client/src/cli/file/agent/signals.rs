//! `[signals]`: each signal may say its own mode for a phase.

use pinrail_proto::policy::range::{
    BASELINE_WINDOW, PERMILLE, RATIO_PERMILLE, SIGNAL_SAMPLES, SIGNAL_WINDOW,
};
use pinrail_proto::v1;

use super::super::FileError;
use super::super::reader::Reader;

pub(super) fn read(table: &mut Reader<'_>) -> Result<v1::SignalsPolicy, FileError> {
    Ok(v1::SignalsPolicy {
        canary: mode(table, "canary")?,
        quarantine: mode(table, "quarantine")?,
        window: table.duration("window", SIGNAL_WINDOW)?,
        min_samples: table.small("min_samples", SIGNAL_SAMPLES)?,
        baseline_window: table.duration("baseline_window", BASELINE_WINDOW)?,
        eval_pass_rate: Some(table.section("eval_pass_rate", eval_pass_rate)?),
        p95_latency: Some(table.section("p95_latency", p95_latency)?),
        cost_per_completed_run: Some(table.section("cost_per_completed_run", cost)?),
        failure_rate: Some(table.section("failure_rate", failure_rate)?),
        drift: Some(table.section("drift", drift)?),
    })
}

fn mode(table: &mut Reader<'_>, phase: &'static str) -> Result<i32, FileError> {
    let words = [
        ("rollback", v1::SignalMode::Rollback),
        ("notify", v1::SignalMode::Notify),
        ("off", v1::SignalMode::Off),
    ];
    Ok(table.word(phase, &words)?.map_or(0, Into::into))
}

#[expect(clippy::unnecessary_wraps, reason = "the field is optional")]
fn modes(table: &mut Reader<'_>) -> Result<Option<v1::SignalModes>, FileError> {
    let (canary, quarantine) = (mode(table, "canary")?, mode(table, "quarantine")?);
    Ok(Some(v1::SignalModes { canary, quarantine }))
}

fn eval_pass_rate(table: &mut Reader<'_>) -> Result<v1::EvalPassRateSignal, FileError> {
    Ok(v1::EvalPassRateSignal {
        modes: modes(table)?,
        min_permille: table.permille("min", PERMILLE)?,
        window: table.duration("window", SIGNAL_WINDOW)?,
    })
}

fn p95_latency(table: &mut Reader<'_>) -> Result<v1::P95LatencySignal, FileError> {
    Ok(v1::P95LatencySignal {
        modes: modes(table)?,
        max_ratio_permille: table.permille("max_ratio", RATIO_PERMILLE)?,
        max_slow_share_permille: table.permille("max_slow_share", PERMILLE)?,
    })
}

fn cost(table: &mut Reader<'_>) -> Result<v1::CostSignal, FileError> {
    Ok(v1::CostSignal {
        modes: modes(table)?,
        max_ratio_permille: table.permille("max_ratio", RATIO_PERMILLE)?,
    })
}

fn failure_rate(table: &mut Reader<'_>) -> Result<v1::FailureRateSignal, FileError> {
    Ok(v1::FailureRateSignal {
        modes: modes(table)?,
        max_increase_permille: table.permille("max_increase", PERMILLE)?,
    })
}

fn drift(table: &mut Reader<'_>) -> Result<v1::DriftSignal, FileError> {
    let on = [("breaking", v1::DriftOn::Breaking), ("any", v1::DriftOn::Any)];
    Ok(v1::DriftSignal { modes: modes(table)?, on: table.word("on", &on)?.map_or(0, Into::into) })
}

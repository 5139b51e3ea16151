//! Ranges of the policy's values, ends included: durations in milliseconds, ratios in thousandths, shares in basis
//! points.

use std::ops::RangeInclusive;

use crate::limits;

pub const SECOND: u64 = 1_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// Timeout of a stage before canary.
pub const STAGE_TIMEOUT: RangeInclusive<u64> = SECOND..=7 * DAY;
/// Timeout of canary: no shorter than the holds of its steps together.
pub const CANARY_TIMEOUT: RangeInclusive<u64> = SECOND..=30 * DAY;
/// How long one canary step is held.
pub const CANARY_HOLD: RangeInclusive<u64> = SECOND..=7 * DAY;
/// A share of runs.
pub const SHARE_BP: RangeInclusive<u64> = 1..=10_000;
/// A share of something that may be nothing or all of it.
pub const PERMILLE: RangeInclusive<u64> = 0..=1_000;
/// How many times the baseline.
pub const RATIO_PERMILLE: RangeInclusive<u64> = 1_000..=100_000;

/// How long a smoke case may take.
pub const SMOKE_WITHIN: RangeInclusive<u64> = SECOND..=HOUR;
/// Confidence of the regression test.
pub const CONFIDENCE_PERMILLE: RangeInclusive<u64> = 500..=999;
/// How far back production's mix of categories is looked at.
pub const COVERAGE_WINDOW: RangeInclusive<u64> = HOUR..=30 * DAY;
/// Examples that a category of production needs.
pub const COVERAGE_CASES: RangeInclusive<u64> = 0..=100_000;
/// Open shadow runs at once.
pub const SHADOW_OPEN: RangeInclusive<u64> = 1..=10_000;
/// What mirrored runs may cost, in micro-units: up to 1,000,000,000 units.
pub const SHADOW_COST_MICROS: RangeInclusive<u64> = 0..=1_000_000_000_000_000;
/// Pairs that the shadow gate needs.
pub const SHADOW_PAIRS: RangeInclusive<u64> = 1..=100_000;

/// Either end of quarantine.
pub const QUARANTINE: RangeInclusive<u64> = 0..=30 * DAY;
/// Free slots of candidate and standby.
pub const MIN_SLOTS: RangeInclusive<u64> = 0..=1_000_000;

/// Window of a signal.
pub const SIGNAL_WINDOW: RangeInclusive<u64> = 10 * SECOND..=DAY;
/// Samples on either side.
pub const SIGNAL_SAMPLES: RangeInclusive<u64> = 1..=1_000_000;
/// Window of the frozen baseline.
pub const BASELINE_WINDOW: RangeInclusive<u64> = MINUTE..=30 * DAY;

/// Between two drills; 0 is by hand, and nothing lies between that and a minute.
pub const DRILL_EVERY: RangeInclusive<u64> = MINUTE..=365 * DAY;
/// How long a drill may take.
pub const DRILL_LIMIT: RangeInclusive<u64> = SECOND..=HOUR;

const _: () = assert!(30 * DAY == limits::MAX_AGE_MS, "a month is a pin's longest life");

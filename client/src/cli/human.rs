//! What people read: ages, times of day, words for enums. The one file of the command line that reads a clock, and only
//! for ages in tables.

use std::time::Duration;

use pinrail_proto::json::Worded;
use pinrail_proto::{time, v1};
use prost_types::Timestamp;

use super::json;

/// Milliseconds since 1970 by this machine's clock.
pub(super) fn now_ms() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "ages in tables are counted to now, by this clock"
    )]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The two largest units: `4m12s`, `46m`, `2d3h`, `120ms`.
pub(super) fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    let two = |large: u64, unit: char, small: u64, next: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{next}") }
    };
    match s {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{s}s"),
        60..3_600 => two(s / 60, 'm', s % 60, 's'),
        3_600..86_400 => two(s / 3_600, 'h', s / 60 % 60, 'm'),
        _ => two(s / 86_400, 'd', s / 3_600 % 24, 'h'),
    }
}

/// How long ago, or `in …`; `-` for a time that is not set.
pub(super) fn age(at: Option<&Timestamp>, now_ms: u64) -> String {
    let Some(at) = at else { return "-".to_owned() };
    let at = time::timestamp_millis(Some(at));
    if at > now_ms {
        return format!("in {}", span(Duration::from_millis(at - now_ms)));
    }
    span(Duration::from_millis(now_ms - at))
}

/// The whole time, or `-`.
pub(super) fn at(at: Option<&Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), json::rfc3339)
}

/// `02:14` when it is within the last day or the next, else with its date. UTC.
pub(super) fn clock(at: Option<&Timestamp>, now_ms: u64) -> String {
    let Some(time) = at else { return "-".to_owned() };
    let text = json::rfc3339(time);
    let (day, hour) = (text.get(..10).unwrap_or(""), text.get(11..16).unwrap_or(""));
    let far = time::timestamp_millis(at).abs_diff(now_ms) > 24 * 3_600_000;
    if far { format!("{day} {hour}Z") } else { format!("{hour}Z") }
}

/// A duration of the API.
pub(super) fn api_span(duration: Option<&prost_types::Duration>) -> String {
    let millis = duration.and_then(time::millis);
    millis.map_or_else(|| "-".to_owned(), |millis| span(Duration::from_millis(millis)))
}

/// A text, or `-` for an empty one.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// The word of an enum's value, or `-` for one that is not set.
fn word<E: Worded>(value: E) -> String {
    json::word(value).unwrap_or_else(|| "-".to_owned())
}

macro_rules! words {
    ($($function:ident $type:ident;)*) => {
        $(pub(super) fn $function(value: v1::$type) -> String {
            word(value)
        })*
    };
}

words! {
    run_state RunState;
    run_kind RunKind;
    step_state StepState;
    bundle_state BundleState;
    end_reason EndReason;
    pin_reason PinReason;
    want Want;
    role MemberRole;
    worker_state WorkerState;
    delivery_state DeliveryState;
    change ChangeKind;
    health HealthState;
    in_flight InFlight;
    side_effects SideEffects;
    release_state ReleaseState;
    stage Stage;
    drift_source DriftSource;
    drift_class DriftClass;
    drift_state DriftState;
    drift_action DriftAction;
    stage_mode StageMode;
    verdict Verdict;
    drill_state DrillState;
    drill_mode DrillMode;
    drill_part DrillPart;
    pair_state PairState;
    compare Compare;
    signal SignalKind;
    signal_state SignalState;
    signal_mode SignalMode;
    score_source ScoreSource;
}

/// A payload on one line, cut to so many characters.
pub(super) fn payload(payload: Option<&v1::Payload>, width: usize) -> String {
    let Some(payload) = payload else { return "-".to_owned() };
    let text = match json::payload(payload) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    cut(&text.replace(char::is_control, " "), width)
}

/// The beginning of a text.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Millionths as a number: `1.250000`.
pub(super) fn micros(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// Thousandths as a number: `0.930`.
pub(super) fn permille(permille: u64) -> String {
    format!("{}.{:03}", permille / 1_000, permille % 1_000)
}

/// `1 run`, `2 runs`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let cases =
            [(0, "0ms"), (59, "59s"), (60, "1m"), (252, "4m12s"), (7_200, "2h"), (183_600, "2d3h")];
        for (seconds, text) in cases {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn ages_look_both_ways() {
        let at = time::timestamp(10_000);
        assert_eq!(age(at.as_ref(), 70_000), "1m");
        assert_eq!(age(at.as_ref(), 8_000), "in 2s");
        assert_eq!(age(None, 1), "-");
    }

    #[test]
    fn far_times_have_their_date() {
        let at = time::timestamp(1_700_000_000_000);
        assert_eq!(clock(at.as_ref(), 1_700_000_000_000), "22:13Z");
        assert_eq!(clock(at.as_ref(), 1_800_000_000_000), "2023-11-14 22:13Z");
    }
}

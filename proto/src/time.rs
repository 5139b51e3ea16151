//! Durations and instants between the API (protobuf's types) and the state (milliseconds).

/// Nanoseconds that make another second: neither a duration nor an instant has so many.
const SECOND_NANOS: i32 = 1_000_000_000;
/// 9999-12-31T23:59:59Z, the last second that an instant of protobuf can be in.
const LAST_SECOND: i64 = 253_402_300_799;

/// Milliseconds of a duration; `None` when it is negative, too large or malformed.
#[must_use]
pub fn millis(duration: &prost_types::Duration) -> Option<u64> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    seconds.checked_mul(1_000)?.checked_add(whole_millis(duration.nanos)?)
}

fn whole_millis(nanos: i32) -> Option<u64> {
    u64::try_from(nanos).ok().filter(|_| nanos < SECOND_NANOS).map(|nanos| nanos / 1_000_000)
}

/// A duration of so many milliseconds.
#[must_use]
pub fn duration(ms: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000,
    }
}

/// Cluster time as an instant of the API; 0 is none.
#[must_use]
pub fn timestamp(ms: u64) -> Option<prost_types::Timestamp> {
    (ms != 0).then(|| prost_types::Timestamp {
        seconds: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000,
    })
}

/// Milliseconds since the epoch of an instant of the API; 0 when there is none, it lies before or is malformed.
#[must_use]
pub fn timestamp_millis(timestamp: Option<&prost_types::Timestamp>) -> u64 {
    timestamp.and_then(instant_millis).unwrap_or(0)
}

/// Milliseconds since the epoch of an instant, 0 when it lies before; `None` when it is malformed or behind the year 9999.
#[must_use]
pub fn instant_millis(timestamp: &prost_types::Timestamp) -> Option<u64> {
    let millis = whole_millis(timestamp.nanos)?;
    if timestamp.seconds > LAST_SECOND {
        return None;
    }
    Some(u64::try_from(timestamp.seconds).map_or(0, |seconds| seconds * 1_000 + millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_their_milliseconds() {
        for ms in [0, 1, 999, 1_000, 86_400_001] {
            assert_eq!(millis(&duration(ms)), Some(ms));
        }
        assert_eq!(millis(&prost_types::Duration { seconds: -1, nanos: 0 }), None);
        assert_eq!(millis(&prost_types::Duration { seconds: i64::MAX, nanos: 0 }), None);
        for nanos in [-1, SECOND_NANOS, i32::MAX] {
            assert_eq!(millis(&prost_types::Duration { seconds: 1, nanos }), None);
        }
    }

    #[test]
    fn instants_that_are_none_are_told_from_old_ones() {
        let instant = |seconds, nanos| instant_millis(&prost_types::Timestamp { seconds, nanos });
        assert_eq!(instant(2, 3_000_000), Some(2_003));
        assert_eq!(instant(-1, 0), Some(0));
        for (seconds, nanos) in [(i64::MAX, 0), (LAST_SECOND + 1, 0), (1, -1), (1, SECOND_NANOS)] {
            assert_eq!(instant(seconds, nanos), None, "{seconds} {nanos}");
            let timestamp = prost_types::Timestamp { seconds, nanos };
            assert_eq!(timestamp_millis(Some(&timestamp)), 0);
        }
    }
}

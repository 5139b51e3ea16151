//! Durations and instants between the API (protobuf's types) and the state (milliseconds).

/// Milliseconds of a duration; `None` when it is negative or too large.
#[must_use]
pub fn millis(duration: &prost_types::Duration) -> Option<u64> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u64::try_from(duration.nanos).ok()?;
    seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
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

/// Milliseconds since the epoch of an instant of the API; 0 when there is none or it lies before.
#[must_use]
pub fn timestamp_millis(timestamp: Option<&prost_types::Timestamp>) -> u64 {
    timestamp.map_or(0, |t| {
        let seconds = u64::try_from(t.seconds).unwrap_or(0);
        seconds * 1_000 + u64::try_from(t.nanos).unwrap_or(0) / 1_000_000
    })
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
    }
}

//! Latencies in buckets of one fixed scale, in integers: exact below 64 ms, then 32 buckets for each doubling, so that a
//! bucket is at most 3 % wide. Two histograms are added bucket by bucket.

use std::collections::BTreeMap;

/// Counts by bucket; those that count nothing are left out.
pub(crate) type Histogram = BTreeMap<u32, u64>;

/// Buckets of one doubling, as a power of two.
const BITS: u32 = 5;
const BUCKETS: u32 = 1 << BITS;
/// Below this every millisecond is a bucket of its own.
const EXACT_MS: u64 = 1 << (BITS + 1);

/// The bucket of a latency.
pub(crate) fn bucket(ms: u64) -> u32 {
    if ms < EXACT_MS {
        return u32::try_from(ms).unwrap_or(0);
    }
    let shift = ms.ilog2() - BITS;
    let within = u32::try_from(ms >> shift).unwrap_or(0);
    shift * BUCKETS + within
}

/// The least latency of a bucket, and how many milliseconds it spans.
fn span(bucket: u32) -> (u64, u64) {
    if u64::from(bucket) < EXACT_MS {
        return (u64::from(bucket), 1);
    }
    let shift = bucket / BUCKETS - 1;
    let within = u64::from(bucket % BUCKETS + BUCKETS);
    (within << shift, 1 << shift)
}

pub(crate) fn count(histogram: &mut Histogram, ms: u64) {
    *histogram.entry(bucket(ms)).or_default() += 1;
}

pub(crate) fn merge(into: &mut Histogram, other: &Histogram) {
    for (bucket, count) in other {
        *into.entry(*bucket).or_default() += count;
    }
}

pub(crate) fn total(histogram: &Histogram) -> u64 {
    histogram.values().sum()
}

/// The latency that this share of all stays at or below; within its bucket the counts are taken as spread evenly. None:
/// nothing was counted.
pub(crate) fn quantile(histogram: &Histogram, permille: u64) -> Option<u64> {
    let total = total(histogram);
    let rank = (total * permille).div_ceil(1_000).max(1);
    let mut before = 0;
    for (bucket, count) in histogram {
        if before + count >= rank {
            let (least, wide) = span(*bucket);
            // The middle of what each of them has of the bucket.
            return Some(least + wide * (2 * (rank - before) - 1) / (2 * count));
        }
        before += count;
    }
    None
}

/// How many took longer: those of the buckets that lie above.
pub(crate) fn above(histogram: &Histogram, ms: u64) -> u64 {
    let all = histogram.range(bucket(ms) + 1..);
    all.map(|(_, count)| count).sum()
}

/// The part of a histogram that lies above.
pub(crate) fn rest_above(histogram: &Histogram, ms: u64) -> Histogram {
    histogram.range(bucket(ms) + 1..).map(|(bucket, count)| (*bucket, *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut last = 0;
        for ms in (0..5_000).chain((5_000..3_000_000_000).step_by(999_983)) {
            let at = bucket(ms);
            assert!(at >= last, "{ms}");
            last = at;
            let (least, wide) = span(at);
            assert!((least..least + wide).contains(&ms), "{ms} is not in {least}+{wide}");
            assert!(wide == 1 || wide * 32 <= least, "{ms}: {wide} of {least}");
        }
        assert_eq!(bucket(63) + 1, bucket(64));
        assert_eq!(bucket(127) + 1, bucket(128));
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::new();
        for ms in 1..=10_000 {
            count(&mut histogram, ms);
        }
        for (permille, truth) in [(500, 5_000_u64), (950, 9_500), (990, 9_900), (1_000, 10_000)] {
            let found = quantile(&histogram, permille).unwrap_or(0);
            assert!(found.abs_diff(truth) * 32 <= truth, "{permille}: {found}, not {truth}");
        }
        assert_eq!(quantile(&Histogram::new(), 950), None);
        let slower = above(&histogram, 9_500);
        // Less by at most the bucket that the limit is in.
        assert!((500 - 256..=500).contains(&slower), "{slower}");
        assert_eq!(total(&rest_above(&histogram, 9_500)), slower);
    }

    #[test]
    fn merged_histograms_count_both() {
        let (mut a, mut b) = (Histogram::new(), Histogram::new());
        count(&mut a, 10);
        count(&mut b, 10);
        count(&mut b, 700);
        merge(&mut a, &b);
        assert_eq!(a, Histogram::from([(10, 2), (bucket(700), 1)]));
        assert_eq!(quantile(&a, 1), Some(10));
    }
}

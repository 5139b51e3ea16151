//! The two statistics of the gate, on the distributions of `statrs`.
//!
//! *Wilson's interval* says how well a pass rate is known. *McNemar's test* compares two bundles on the same examples: only
//! examples on which they differ count, and when neither is better, each of those goes either way like a coin. Its mid-p
//! form is neither as timid as the exact one nor as bold as the one by chi-square when few examples differ (Fagerland,
//! Lydersen, Laake 2013).

use statrs::distribution::{Binomial, ContinuousCDF as _, Discrete as _, DiscreteCDF as _, Normal};

/// As evidence names it.
pub(super) const METHOD: &str = "McNemar mid-p, one-sided";

/// The interval of a rate at a confidence of 0 to 1; all of 0 to 1 for nothing.
pub(super) fn wilson(passed: u32, of: u32, confidence: f64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, rate) = (f64::from(of), f64::from(passed) / f64::from(of));
    let z = Normal::standard().inverse_cdf(f64::midpoint(1.0, confidence));
    let centre = rate + z * z / (2.0 * n);
    let margin = z * (rate * (1.0 - rate) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((centre - margin) / scale).max(0.0), ((centre + margin) / scale).min(1.0))
}

/// How likely at least so many losses are when neither bundle is better: `lost` examples that only the baseline passed,
/// `won` that only the candidate did. 1 when they differ nowhere.
pub(super) fn mcnemar(lost: u32, won: u32) -> f64 {
    let (lost, differ) = (u64::from(lost), u64::from(lost) + u64::from(won));
    match Binomial::new(0.5, differ) {
        Ok(coin) if differ > 0 => coin.sf(lost) + 0.5 * coin.pmf(lost),
        Ok(_) | Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 5e-4
    }

    #[test]
    fn wilson_gives_known_intervals() {
        let (low, high) = wilson(81, 263, 0.95);
        assert!(near(low, 0.2553) && near(high, 0.3662), "{low} {high}");
        assert_eq!(wilson(0, 0, 0.95), (0.0, 1.0));
        let (low, high) = wilson(10, 10, 0.95);
        assert!(near(low, 0.7225) && near(high, 1.0), "{low} {high}");
    }

    /// By hand: P(X > 8) + P(X = 8) / 2 for X of ten coins is 11/1024 + 45/2048.
    #[test]
    fn mcnemar_gives_known_values() {
        assert!(near(mcnemar(8, 2), 11.0 / 1024.0 + 45.0 / 2048.0));
        assert!(near(mcnemar(1, 0), 0.25));
        assert!(near(mcnemar(3, 3), 0.5));
        assert!(near(mcnemar(0, 0), 1.0));
        assert!(mcnemar(2, 14) > 0.99);
        assert!(mcnemar(14, 2) < 0.002);
    }
}

//! Both sides of a row, their ratios, and whether those are what is wanted.

use std::fmt;

use pinrail_client::bench::Figures;
use serde_json::{Value as Json, json};

use super::row::{Row, Wanted};

/// A side whose best round is so many times its worst one says nothing.
const UNEVEN: f64 = 1.5;

/// One row, measured.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) row: Row,
    /// Why it was not measured.
    pub(super) lacks: Option<String>,
    /// By round.
    pub(super) ours: Vec<Figures>,
    pub(super) peer: Vec<Figures>,
}

/// Ratios of medians, ours to the peer's.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ratios {
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

impl Compared {
    pub(super) fn new(row: Row, lacks: Option<String>) -> Self {
        Self { row, lacks, ours: Vec::new(), peer: Vec::new() }
    }

    fn ratios(&self) -> Ratios {
        let (ours, peer) = (Figures::median(&self.ours), Figures::median(&self.peer));
        let ratio = |of: fn(&Figures) -> f64| {
            let theirs = of(&peer);
            if theirs > 0.0 { of(&ours) / theirs } else { 0.0 }
        };
        Ratios {
            per_second: ratio(|it| it.per_second),
            p50: ratio(|it| it.p50_us as f64),
            p99: ratio(|it| it.p99_us as f64),
            cpu: ratio(|it| it.server_cpu_us.unwrap_or_default()),
        }
    }

    /// Whether it has what it is a failure to miss.
    pub(super) fn has_its_must(&self) -> bool {
        let Wanted { must, .. } = self.row.wanted;
        self.lacks.is_some() || must.is_none_or(|must| self.ratios().per_second >= must)
    }

    /// `met`, or what is not.
    pub(super) fn verdict(&self) -> String {
        if let Some(lacks) = &self.lacks {
            return format!("skipped: {lacks}");
        }
        let (ratios, Wanted { goal, p50, p99, cpu, .. }) = (self.ratios(), self.row.wanted);
        let above = |ratio: f64, bound: Option<f64>| bound.is_some_and(|bound| ratio > bound);
        let misses = [
            ("MUST", !self.has_its_must()),
            ("goal", goal.is_some_and(|goal| ratios.per_second < goal)),
            ("p50", above(ratios.p50, p50)),
            ("p99", above(ratios.p99, p99)),
            ("cpu", above(ratios.cpu, cpu)),
        ];
        let missed: Vec<&str> =
            misses.into_iter().filter(|(_, is)| *is).map(|(what, _)| what).collect();
        let mut verdict = match missed.as_slice() {
            [] => "met".to_owned(),
            missed => format!("missed {}", missed.join(", ")),
        };
        if uneven(&self.ours) || uneven(&self.peer) {
            verdict.push_str("; uneven");
        }
        let failed = |side: &[Figures]| side.iter().any(|it| !it.errors.is_empty());
        if failed(&self.ours) || failed(&self.peer) {
            verdict.push_str("; errors");
        }
        verdict
    }

    pub(super) fn json(&self) -> Json {
        let Wanted { goal, must, p50, p99, cpu } = self.row.wanted;
        let ratios = self.ratios();
        json!({
            "row": self.row.name,
            "clients": self.row.clients,
            "peer_clients": self.row.peer_clients(),
            "peer": self.row.peer.name(),
            "ratio": {
                "per_second": ratios.per_second,
                "p50": ratios.p50,
                "p99": ratios.p99,
                "server_cpu": ratios.cpu,
            },
            "wanted": {
                "goal": goal,
                "must": must,
                "p50_at_most": p50,
                "p99_at_most": p99,
                "server_cpu_at_most": cpu,
            },
            "verdict": self.verdict(),
            "ours": { "median": Figures::median(&self.ours), "rounds": self.ours },
            "theirs": { "median": Figures::median(&self.peer), "rounds": self.peer },
        })
    }

    /// The names of what [`Compared::line`] shows.
    pub(super) fn head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<8} {:>7}  {:<21} {:>20} {:>20} {:>6} {:>5} {:>5}  {:>15} {:>5}  {:>15} {:>5}  {:>11} {:>5}  verdict",
            "row",
            "clients",
            "peer",
            "ours/s (range)",
            "peer/s (range)",
            "ratio",
            "goal",
            "must",
            "p50 ms",
            "ratio",
            "p99 ms",
            "ratio",
            "cpu us/op",
            "ratio"
        )
    }

    pub(super) fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { name, peer, wanted, .. } = &self.row;
        write!(f, "{name:<8} {:>7}  {:<21} ", self.row.both_clients(), peer.name())?;
        if self.lacks.is_some() {
            return writeln!(f, "{}", self.verdict());
        }
        let (ours, peer) = (Figures::median(&self.ours), Figures::median(&self.peer));
        let ratios = self.ratios();
        let both = |of: fn(&Figures) -> u64| {
            let millis = |side: &Figures| of(side) as f64 / 1e3;
            format!("{:.2} / {:.2}", millis(&ours), millis(&peer))
        };
        let cpu = |side: &Figures| side.server_cpu_us.unwrap_or_default();
        writeln!(
            f,
            "{:>20} {:>20} {:>6.2} {:>5} {:>5}  {:>15} {:>5.2}  {:>15} {:>5.2}  {:>11} {:>5.2}  {}",
            rates(&self.ours),
            rates(&self.peer),
            ratios.per_second,
            bound(wanted.goal),
            bound(wanted.must),
            both(|it| it.p50_us),
            ratios.p50,
            both(|it| it.p99_us),
            ratios.p99,
            format!("{:.0} / {:.0}", cpu(&ours), cpu(&peer)),
            ratios.cpu,
            self.verdict()
        )
    }
}

fn bound(wanted: Option<f64>) -> String {
    wanted.map_or_else(|| "-".to_owned(), |bound| format!("{bound:.2}"))
}

/// Median and range of operations in a second.
fn rates(side: &[Figures]) -> String {
    let (least, most) = range(side);
    format!("{:.0} ({least:.0}..{most:.0})", Figures::median(side).per_second)
}

/// The least and the most operations in a second.
fn range(side: &[Figures]) -> (f64, f64) {
    let rates = || side.iter().map(|it| it.per_second);
    (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max))
}

fn uneven(side: &[Figures]) -> bool {
    let (least, most) = range(side);
    most > least * UNEVEN
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::row::ROWS;
    use super::*;

    pub(crate) fn side(rates: &[f64], p99_us: u64, cpu_us: f64) -> Vec<Figures> {
        let figures = |rate: &f64| Figures {
            per_second: *rate,
            p50_us: p99_us / 2,
            p99_us,
            server_cpu_us: Some(cpu_us),
            ..Figures::default()
        };
        rates.iter().map(figures).collect()
    }

    /// The row with a must, and bounds of latency and CPU time.
    pub(crate) fn strict() -> Compared {
        let row = ROWS.iter().find(|row| row.wanted.cpu.is_some()).expect("there is one");
        Compared::new(*row, None)
    }

    #[test]
    fn a_row_is_met_by_its_medians_and_says_what_it_misses() {
        let mut it = strict();
        it.ours = side(&[3_100.0, 3_300.0, 2_900.0], 300, 30.0);
        it.peer = side(&[1_000.0, 1_000.0, 1_100.0], 1_000, 100.0);
        assert_eq!(it.verdict(), "met");
        it.ours = side(&[2_100.0, 2_200.0, 2_000.0], 500, 40.0);
        assert_eq!(it.verdict(), "missed goal, p99, cpu");
        it.ours = side(&[1_100.0, 1_900.0, 1_200.0], 300, 30.0);
        assert_eq!(it.verdict(), "missed MUST, goal; uneven");
        it.peer[1].errors.insert("Unavailable".to_owned(), 1);
        assert!(it.verdict().ends_with("; errors"), "{}", it.verdict());
    }

    #[test]
    fn a_row_of_latency_asks_for_no_rate() {
        let mut it = strict();
        it.row.wanted =
            Wanted { goal: None, must: None, p50: Some(0.5), p99: Some(0.5), cpu: None };
        it.ours = side(&[1.0], 400, 1.0);
        it.peer = side(&[9.0], 1_000, 1.0);
        assert_eq!(it.verdict(), "met");
        it.ours[0].p50_us = 300;
        assert_eq!(it.verdict(), "missed p50");
        assert_eq!(it.json()["wanted"]["goal"], Json::Null);
    }
}

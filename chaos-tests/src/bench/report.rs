//! Both sides of each row, their ratios, and whether those are what is wanted: as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use pinrail_client::bench::Figures;
use serde_json::{Value as Json, json};

use super::machine::Machine;
use super::row::Row;

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
    p99: f64,
    cpu: f64,
}

impl Compared {
    pub(super) fn new(row: Row, lacks: Option<String>) -> Self {
        Self { row, lacks, ours: Vec::new(), peer: Vec::new() }
    }

    fn ratios(&self) -> Ratios {
        let (ours, peer) = (Figures::median(&self.ours), Figures::median(&self.peer));
        let ratio = |ours: f64, peer: f64| if peer > 0.0 { ours / peer } else { 0.0 };
        let cpu = |side: &Figures| side.server_cpu_us.unwrap_or_default();
        Ratios {
            per_second: ratio(ours.per_second, peer.per_second),
            p99: ratio(ours.p99_us as f64, peer.p99_us as f64),
            cpu: ratio(cpu(&ours), cpu(&peer)),
        }
    }

    /// `met`, or what is not.
    fn verdict(&self) -> String {
        if let Some(lacks) = &self.lacks {
            return format!("skipped: {lacks}");
        }
        let ratios = self.ratios();
        let mut missed = Vec::new();
        if self.row.must.is_some_and(|must| ratios.per_second < must) {
            missed.push("MUST");
        }
        if ratios.per_second < self.row.goal {
            missed.push("goal");
        }
        if self.row.p99.is_some_and(|bound| ratios.p99 > bound) {
            missed.push("p99");
        }
        if self.row.cpu.is_some_and(|bound| ratios.cpu > bound) {
            missed.push("cpu");
        }
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

    fn json(&self) -> Json {
        let Row { name, clients, goal, must, p99, cpu, peer, .. } = self.row;
        let ratios = self.ratios();
        json!({
            "row": name,
            "clients": clients,
            "peer_clients": self.row.peer_clients(),
            "peer": peer.name(),
            "ratio": { "per_second": ratios.per_second, "p99": ratios.p99, "server_cpu": ratios.cpu },
            "wanted": { "goal": goal, "must": must, "p99_at_most": p99, "server_cpu_at_most": cpu },
            "verdict": self.verdict(),
            "ours": { "median": Figures::median(&self.ours), "rounds": self.ours },
            "theirs": { "median": Figures::median(&self.peer), "rounds": self.peer },
        })
    }
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

/// All rows.
#[derive(Debug)]
pub struct Report {
    machine: Machine,
    /// Of the peers that were measured.
    pub(super) versions: BTreeMap<String, String>,
    /// Before and after all of it: an uneven disk makes every row doubtful.
    pub(super) syncs_before: f64,
    pub(super) syncs_after: f64,
    pub(super) rows: Vec<Compared>,
}

impl Report {
    pub(super) fn new(machine: Machine) -> Self {
        let versions = BTreeMap::new();
        Self { machine, versions, syncs_before: 0.0, syncs_after: 0.0, rows: Vec::new() }
    }

    pub(super) fn machine(&self) -> String {
        self.machine.line()
    }

    /// Whether every row that was measured has what it must have.
    #[must_use]
    pub fn passed(&self) -> bool {
        let measured = self.rows.iter().filter(|it| it.lacks.is_none());
        measured.into_iter().all(|it| it.row.must.is_none_or(|must| it.ratios().per_second >= must))
    }

    pub(super) fn json(&self) -> Json {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "machine": self.machine,
            "peers": self.versions,
            "syncs_per_second": { "before": self.syncs_before, "after": self.syncs_after },
            "rows": self.rows.iter().map(Compared::json).collect::<Vec<Json>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine.line())?;
        writeln!(
            f,
            "{:.0} appends of 4 KiB synced in a second before, {:.0} after",
            self.syncs_before, self.syncs_after
        )?;
        for (name, version) in &self.versions {
            writeln!(f, "{name} {version}")?;
        }
        writeln!(
            f,
            "{:<7} {:>7}  {:<21} {:>20} {:>20} {:>6} {:>5} {:>5}  {:>15} {:>5}  {:>11} {:>5}  verdict",
            "row",
            "clients",
            "peer",
            "ours/s (range)",
            "peer/s (range)",
            "ratio",
            "goal",
            "must",
            "p99 ms",
            "ratio",
            "cpu us/op",
            "ratio"
        )?;
        self.rows.iter().try_for_each(|it| line(f, it))
    }
}

fn line(f: &mut fmt::Formatter<'_>, it: &Compared) -> fmt::Result {
    let row = &it.row;
    write!(f, "{:<7} {:>7}  {:<21} ", row.name, row.both_clients(), row.peer.name())?;
    if it.lacks.is_some() {
        return writeln!(f, "{}", it.verdict());
    }
    let (ours, peer, ratios) = (Figures::median(&it.ours), Figures::median(&it.peer), it.ratios());
    let rates = |side: &[Figures], median: &Figures| {
        let (least, most) = range(side);
        format!("{:.0} ({least:.0}..{most:.0})", median.per_second)
    };
    let millis = |us: u64| us as f64 / 1e3;
    let cpu = |side: &Figures| side.server_cpu_us.unwrap_or_default();
    let must = row.must.map_or_else(|| "-".to_owned(), |must| format!("{must:.1}"));
    writeln!(
        f,
        "{:>20} {:>20} {:>6.2} {:>5.2} {must:>5}  {:>15} {:>5.2}  {:>11} {:>5.2}  {}",
        rates(&it.ours, &ours),
        rates(&it.peer, &peer),
        ratios.per_second,
        row.goal,
        format!("{:.1} / {:.1}", millis(ours.p99_us), millis(peer.p99_us)),
        ratios.p99,
        format!("{:.0} / {:.0}", cpu(&ours), cpu(&peer)),
        ratios.cpu,
        it.verdict()
    )
}

#[cfg(test)]
mod tests {
    use super::super::row::ROWS;
    use super::*;

    fn side(rates: &[f64], p99_us: u64, cpu_us: f64) -> Vec<Figures> {
        let figures = |rate: &f64| Figures {
            per_second: *rate,
            p99_us,
            server_cpu_us: Some(cpu_us),
            ..Figures::default()
        };
        rates.iter().map(figures).collect()
    }

    /// The row with a must, and bounds of latency and CPU time.
    fn strict() -> Compared {
        let row = ROWS.iter().find(|row| row.cpu.is_some()).expect("there is one");
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
    fn a_report_fails_by_a_must_and_not_by_a_peer_that_is_not_here() {
        let mut report = Report::new(Machine::here());
        let skipped = Compared { lacks: Some("no etcd".to_owned()), ..strict() };
        assert_eq!(skipped.verdict(), "skipped: no etcd");
        report.rows.push(skipped);
        assert!(report.passed());
        let slow = Compared { ours: side(&[1.0], 1, 1.0), peer: side(&[1.0], 1, 1.0), ..strict() };
        report.rows.push(slow);
        assert!(!report.passed());
        assert!(report.to_string().contains("skipped: no etcd"), "{report}");
    }
}

//! All rows, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::amount::Weighed;
use super::compared::Compared;
use super::machine::Machine;
use super::row::Row;

/// How all of it was measured.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Method {
    pub(super) rounds: usize,
    /// Of each load.
    pub(super) seconds: f64,
    /// Open runs or keys in rows about many of them.
    pub(super) keys: u64,
}

/// All rows.
#[derive(Debug)]
pub struct Report {
    machine: Machine,
    method: Method,
    /// Of the peers that were measured.
    pub(super) versions: BTreeMap<String, String>,
    /// Before and after all of it: an uneven disk makes every row doubtful.
    pub(super) syncs_before: f64,
    pub(super) syncs_after: f64,
    pub(super) rows: Vec<Compared>,
    pub(super) amounts: Vec<Weighed>,
}

impl Report {
    pub(super) fn new(machine: Machine, method: Method) -> Self {
        Self {
            machine,
            method,
            versions: BTreeMap::new(),
            syncs_before: 0.0,
            syncs_after: 0.0,
            rows: Vec::new(),
            amounts: Vec::new(),
        }
    }

    pub(super) fn machine(&self) -> String {
        self.machine.line()
    }

    /// Whether every row that was measured has what it must have.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.rows.iter().all(Compared::has_its_must)
            && self.amounts.iter().all(Weighed::has_its_must)
    }

    pub(super) fn json(&self) -> Json {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "machine": self.machine,
            "method": self.method,
            "peers": self.versions,
            "syncs_per_second": { "before": self.syncs_before, "after": self.syncs_after },
            "rows": self.rows.iter().map(Compared::json).collect::<Vec<Json>>(),
            "amounts": self.amounts.iter().map(Weighed::json).collect::<Vec<Json>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Method { rounds, seconds, keys } = self.method;
        writeln!(f, "{}", self.machine.line())?;
        write!(f, "rounds: {rounds}, loads of {seconds} s")?;
        let longer = |it: &&Compared| it.row.least.as_secs_f64() > seconds;
        for Row { name, least, .. } in self.rows.iter().filter(longer).map(|it| it.row) {
            write!(f, " ({name}: {} s)", least.as_secs())?;
        }
        writeln!(
            f,
            "; many open runs or keys are {keys}\n\
             {:.0} appends of 4 KiB synced in a second before, {:.0} after",
            self.syncs_before, self.syncs_after
        )?;
        for (name, version) in &self.versions {
            writeln!(f, "{name} {version}")?;
        }
        if !self.rows.is_empty() {
            Compared::head(f)?;
            self.rows.iter().try_for_each(|it| it.line(f))?;
        }
        if !self.amounts.is_empty() {
            Weighed::head(f)?;
            self.amounts.iter().try_for_each(|it| it.line(f))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::amount::Amount;
    use super::super::compared::tests::{side, strict};
    use super::*;

    #[test]
    fn a_report_fails_by_a_must_and_not_by_a_peer_that_is_not_here() {
        let mut report = Report::new(Machine::here(), Method::default());
        let skipped = Compared { lacks: Some("no etcd".to_owned()), ..strict() };
        assert_eq!(skipped.verdict(), "skipped: no etcd");
        report.rows.push(skipped);
        assert!(report.passed());
        let slow = Compared { ours: side(&[1.0], 1, 1.0), peer: side(&[1.0], 1, 1.0), ..strict() };
        report.rows.push(slow);
        assert!(!report.passed());
        assert!(report.to_string().contains("skipped: no etcd"), "{report}");
    }

    #[test]
    fn a_report_fails_by_an_amount_that_it_must_have_too() {
        let mut report = Report::new(Machine::here(), Method::default());
        report.amounts.push(Weighed { ours: vec![99.0], ..Weighed::new(Amount::Idle) });
        assert!(report.passed(), "a goal");
        let slow = Weighed { ours: vec![2.0], etcd: vec![1.0], ..Weighed::new(Amount::Failover) };
        report.amounts.push(slow);
        assert!(!report.passed());
        let json = report.json();
        let verdicts = json["amounts"].as_array().expect("a list").iter();
        let verdicts: Vec<&str> = verdicts.filter_map(|it| it["verdict"].as_str()).collect();
        assert_eq!(verdicts, ["missed", "missed MUST"]);
        assert_eq!(report.to_string().matches("missed").count(), 2, "{report}");
    }
}

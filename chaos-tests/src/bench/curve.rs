//! What grows along a curve, and what is measured at each of its points.

use pinrail_client::bench::{Figures, Workload};
use serde_json::{Value as Json, json};

/// Runs of one agent that may be open, less those that what is measured opens.
const MOST_OPEN: u64 = 1_900_000;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Along {
    Clients,
    Watchers,
    /// Of each input or value.
    Bytes,
    /// Runs of another agent, which stay open.
    OpenRuns,
    /// Keys of another agent's memory.
    Keys,
    /// Bundles of other agents.
    Bundles,
}

/// One curve.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) workload: Workload,
    pub(super) along: Along,
}

/// A place on it.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) x: u64,
    /// By round.
    pub(super) rounds: Vec<Figures>,
}

const fn curve(name: &'static str, title: &'static str, workload: Workload, along: Along) -> Curve {
    Curve { name, title, workload, along }
}

/// All of them.
pub(super) const CURVES: &[Curve] = &[
    curve("start-clients", "start a run", Workload::Start, Along::Clients),
    curve("read-clients", "read a pin, linearizably", Workload::Read, Along::Clients),
    curve("step-clients", "complete a step", Workload::Step, Along::Clients),
    curve("step-open-runs", "complete a step, 64 in flight", Workload::Step, Along::OpenRuns),
    curve("start-bundles", "start a run, 64 clients", Workload::Start, Along::Bundles),
    curve("put-keys", "put a value into memory, 64 clients", Workload::Put, Along::Keys),
    curve("get-keys", "get a value of memory, 64 clients", Workload::Get, Along::Keys),
    curve("watch-watchers", "see a write, 50 in a second", Workload::Watch, Along::Watchers),
    curve("put-bytes", "put a value into memory, 64 clients", Workload::Put, Along::Bytes),
];

impl Along {
    /// With its unit, as an axis has it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Along::Clients => "clients",
            Along::Watchers => "watchers",
            Along::Bytes => "bytes of a value",
            Along::OpenRuns => "open runs of another agent",
            Along::Keys => "keys of another agent",
            Along::Bundles => "bundles of other agents",
        }
    }

    /// Where it is measured; nothing above `most` for what takes long to fill.
    pub(super) fn points(self, most: u64) -> Vec<u64> {
        match self {
            Along::Clients => vec![1, 4, 16, 64, 256, 1_000],
            Along::Watchers => vec![1, 10, 100, 1_000],
            Along::Bundles => vec![100, 1_000, 10_000],
            Along::Bytes => vec![64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10],
            Along::OpenRuns if most > MOST_OPEN => self.points(MOST_OPEN),
            Along::OpenRuns | Along::Keys => {
                let steps = std::iter::successors(Some(1_000_u64), |count| count.checked_mul(10));
                let mut points: Vec<u64> = steps.take_while(|count| *count < most).collect();
                points.push(most);
                points
            }
        }
    }
}

impl Curve {
    pub(super) fn json(&self, points: &[Point]) -> Json {
        let point = |point: &Point| {
            json!({
                self.along.label(): point.x,
                "median": Figures::median(&point.rounds),
                "rounds": point.rounds,
            })
        };
        json!({
            "curve": self.name,
            "title": self.title,
            "workload": self.workload.name(),
            "along": self.along.label(),
            "points": points.iter().map(point).collect::<Vec<Json>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_grows_tenfold_up_to_the_most_that_is_wanted() {
        assert_eq!(Along::Keys.points(1_000_000), [1_000, 10_000, 100_000, 1_000_000]);
        assert_eq!(Along::OpenRuns.points(30_000), [1_000, 10_000, 30_000]);
        assert_eq!(Along::OpenRuns.points(10_000_000).last(), Some(&MOST_OPEN));
        assert_eq!(Along::Keys.points(10_000_000).len(), 5);
        assert_eq!(Along::Keys.points(10), [10]);
        assert_eq!(Along::Clients.points(10).last(), Some(&1_000));
    }

    #[test]
    fn a_curve_as_json_names_what_grows() {
        let points = [Point { x: 64, rounds: vec![Figures::default()] }];
        let json = CURVES[0].json(&points);
        assert_eq!(
            (&json["along"], &json["points"][0]["clients"]),
            (&json!("clients"), &json!(64))
        );
    }
}

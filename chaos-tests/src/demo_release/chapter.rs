//! What is released, how it is watched, and what it deserves.

use std::time::Duration;

use pinrail_proto::v1::{ReleaseState, SignalKind, Stage};

use super::Manner;

/// One agent with a live bundle and a candidate.
#[derive(Debug)]
pub(crate) struct Chapter {
    pub(crate) agent: &'static str,
    /// What the candidate is like.
    pub(crate) about: &'static str,
    /// Sections of agent.toml.
    pub(crate) policy: &'static [&'static str],
    pub(crate) candidate: Manner,
    /// Examples of 200 that the candidate gets right; the live bundle gets [`PASSED_BEFORE`].
    pub(crate) passes: Option<usize>,
    pub(crate) deserves: Fate,
}

/// How a release should end, and by what.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It came to its last stage.
    Recycled,
    /// A gate did not let it on.
    Stopped(Stage),
    /// A signal took its traffic away, in this stage.
    RolledBack(SignalKind, Stage),
}

impl Fate {
    pub(super) fn state(self) -> ReleaseState {
        match self {
            Self::Recycled => ReleaseState::Recycled,
            Self::Stopped(_) => ReleaseState::Failed,
            Self::RolledBack(..) => ReleaseState::RolledBack,
        }
    }
}

/// Examples of the eval set, and how many of them the live bundle gets right.
pub(super) const EXAMPLES: usize = 200;
pub(super) const PASSED_BEFORE: usize = 192;

/// What live bundles are like.
pub(crate) const LIVE: Manner =
    Manner { takes: Duration::from_millis(30), costs_micros: 100, hangs: false, drifted: false };

/// Short times, and runs that end with a rollback.
pub(crate) const SHORT: &str = r#"
[runs]
max_age = "2m"

[rollback]
in_flight = "cancel"

[quarantine]
min = "3s"
max = "20s"
"#;

/// The seed's signals, with a short window.
const SIGNALS: &str = r#"
[signals]
window      = "10s"
min_samples = 20
"#;

/// Every stage, with something to judge by.
pub(crate) const EVERY_STAGE: &str = r#"
[[gates.smoke.cases]]
name   = "greets"
input  = { question = "Where is my refund?" }
within = "20s"
expect = { contains = ["answer"] }

[gates.evals]
mode = "required"
set  = "core@1"

[gates.shadow]
mode      = "required"
share     = ["100%", "100%"]
min_pairs = 20

[gates.canary]
mode  = "required"
steps = [{ share = "25%", hold = "2s" }, { share = "50%", hold = "2s" }]
"#;

/// A canary that lasts until a signal has seen enough.
const CANARY_ALONE: &str = r#"
[gates.shadow]
mode = "off"

[gates.canary]
mode  = "required"
steps = [{ share = "50%", hold = "1m" }]
"#;

const EVALS_ALONE: &str = r#"
[gates.evals]
mode = "required"
set  = "core@1"
"#;

/// By default drift is told of, and nothing else.
const DRIFT_COUNTS: &str = r#"
[signals.drift]
canary = "rollback"
"#;

/// What the candidate costs is seen behind the switch.
const SWITCH_ALONE: &str = r#"
[gates.shadow]
mode = "off"

[gates.canary]
mode = "off"

[signals.cost_per_completed_run]
quarantine = "rollback"
"#;

pub(super) const CHAPTERS: &[Chapter] = &[
    Chapter {
        agent: "good",
        about: "as good as v1",
        policy: &[SHORT, SIGNALS, EVERY_STAGE],
        candidate: LIVE,
        passes: Some(194),
        deserves: Fate::Recycled,
    },
    Chapter {
        agent: "slow",
        about: "three times as slow",
        policy: &[SHORT, SIGNALS, CANARY_ALONE],
        candidate: Manner { takes: Duration::from_millis(150), ..LIVE },
        passes: None,
        deserves: Fate::RolledBack(SignalKind::P95Latency, Stage::Canary),
    },
    Chapter {
        agent: "wrong",
        about: "gets fewer examples right",
        policy: &[SHORT, SIGNALS, EVALS_ALONE],
        candidate: LIVE,
        passes: Some(170),
        deserves: Fate::Stopped(Stage::Evals),
    },
    Chapter {
        agent: "hanging",
        about: "never completes a run",
        policy: &[SHORT, SIGNALS, CANARY_ALONE],
        candidate: Manner { hangs: true, ..LIVE },
        passes: None,
        deserves: Fate::RolledBack(SignalKind::P95Latency, Stage::Canary),
    },
    Chapter {
        agent: "drifted",
        about: "its tool wants more than it knows",
        policy: &[SHORT, SIGNALS, CANARY_ALONE, DRIFT_COUNTS],
        candidate: Manner { drifted: true, ..LIVE },
        passes: None,
        deserves: Fate::RolledBack(SignalKind::Drift, Stage::Canary),
    },
    Chapter {
        agent: "costly",
        about: "costs three times as much",
        policy: &[SHORT, SIGNALS, SWITCH_ALONE],
        candidate: Manner { costs_micros: 300, ..LIVE },
        passes: None,
        deserves: Fate::RolledBack(SignalKind::CostPerCompletedRun, Stage::Quarantine),
    },
];

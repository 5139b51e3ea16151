//! Scenarios: a cluster, a load, faults, and a verdict.
//!
//! [`storm`] is the general one, drawn from a seed; the others each show one line of the acceptance list. What a
//! scenario found wrong is in its [`Report`](crate::report::Report); an `Err` is the harness failing.

mod conclude;
pub mod degraded;
pub mod flood;
pub mod kill_all;
pub mod late_workers;
mod load;
pub mod many_runs;
mod measured;
pub mod membership;
pub mod memory_cost;
pub mod moves;
mod nemesis;
mod opening;
pub mod outages;
pub mod overload;
pub mod plan;
pub mod power_loss;
pub mod release_kills;
pub mod rollback_cost;
pub mod shadow_cost;
pub mod snapshot;
pub mod storm;
pub mod switch_cost;
pub mod upgrade;
pub mod watchers;

pub use load::Load;
pub use nemesis::Nemesis;

use std::path::PathBuf;

/// What every scenario is given.
#[derive(Debug, Clone)]
pub struct Setting {
    pub binaries: crate::config::Binaries,
    pub seed: u64,
    /// Where evidence of failures goes; none: the system's temporary folder.
    pub out: Option<PathBuf>,
}

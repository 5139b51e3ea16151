//! Fault injection against real Pinrail processes: a workload whose every call is recorded, faults, and a judge
//! that replays what was acknowledged through a model of its own.
//!
//! ```text
//! cluster (real processes) <-- fault        worker processes --> their own logs --+
//!        ^                                                                        v
//! workload --calls--> api --> history ----------------------------> evidence --> check --> report
//!                                                                       ^           |
//!                                       final read of every node -------+         model
//! ```
//! `model` and `check` share no code with the node, its state machine or the client library.

pub mod api;
pub mod bench;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod console;
pub mod demo;
pub mod demo_release;
#[cfg(feature = "mutants")]
pub mod gate;
pub mod history;
pub mod model;
pub mod report;
pub mod scenario;
#[cfg(feature = "simulation")]
pub mod simulation;
mod svg;
pub mod worker;
pub mod workload;

//! Load on real server processes: three of ours, and beside them those of other systems, measured by the generator of
//! `pinrail bench`, by turns.
//!
//! ```text
//! own        a cluster, and `pinrail bench` on it
//! peers      for each round and row: ours, the peer; each on fresh data, with nothing else running
//! failover   likewise, with a leader that is killed
//! curves     ours alone, while something grows
//! ```
//! `row` says what is compared under load, `amount` which single numbers are; `peers` and `amounts` measure them, `compared` holds both
//! sides of a row, `report` shows all. The systems are in `pinrail`, `etcd`, `postgres` and `restate`; none of them knows the others.

mod amount;
mod amounts;
mod compared;
mod curve;
mod curve_plot;
mod curves;
mod etcd;
mod failover;
mod folder;
mod machine;
mod own;
mod peers;
mod pinrail;
mod postgres;
mod report;
mod restate;
mod row;
mod size;

pub use curves::{CurveOptions, curves};
pub use failover::failover;
pub use own::own;
pub use peers::{Options, peers};

//! Signals: whether a candidate is worse than the bundle that it replaces, by what their runs were like.
//!
//! ```text
//!   end of a run, score ──> slices (window) ──> how each signal stands (watch, judge): for whoever asks
//!                                                   │ the leader asks
//!                                                   └──> FireSignal ──> a record, an event, perhaps a rollback (firing)
//! ```
//! What decides is in the state: whoever reads it at one moment comes to the same numbers. It must not know how a run came
//! to its end, nor how a route is changed.

mod count;
mod firing;
mod freeze;
mod histogram;
mod judge;
mod overdue;
mod settings;
mod steer;
mod watch;
mod window;
mod words;

pub(crate) use count::{Scored, ended, scored};
pub(crate) use firing::{blocking, clear, end_phase, fire, firings, mutes};
pub(crate) use freeze::{freeze, frozen};
pub(crate) use settings::Windows;
pub(crate) use steer::{ack, mute};
pub(crate) use watch::{SERVING, cohort, present, watched};
pub(crate) use window::{forget, sum};
pub(crate) use words::word;

//! Drift: tools and models that are not what a bundle says.
//!
//! ```text
//!   worker's tools ──the leader compares──> ReportDrift ─┐
//!   usage of a run: replies, models ──compared here──────┼──> open ──AcceptDrift──> accepted, for good
//!   no worker sees it any more ──────────> ClearDrift ───┤     │ ^
//!   nothing of it for a day ─────────────> timer ────────┘     v │ seen again
//!                                                            cleared
//! ```
//! One row for each thing that was seen, so that what somebody accepted says nothing of the next one. It must not know
//! JSON: schemas are texts here, and the leader says how two of them differ. What is done about it the policy says, to
//! whoever asks: workers are held back by the leader, signals are read.

mod accept;
mod compare;
mod place;
mod policy;
mod quiet;
mod report;
mod row;
mod served;
mod show;

pub(crate) use accept::accept;
pub(crate) use compare::compare;
pub(crate) use policy::{action, alarming};
pub(crate) use quiet::fall_quiet;
pub(crate) use report::{clear, report};
pub(crate) use row::forget;
pub(crate) use show::{Filter, Open, open, schemas, shown};

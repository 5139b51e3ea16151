//! The one integration binary: the judge against hand-made histories, and a short share of the faults against
//! real processes.

mod bad_histories;
mod bad_logs;
mod bad_orders;
mod bad_watches;
mod processes;
mod readme;
#[cfg(feature = "simulation")]
mod simulation;
mod stopped;
mod story;

//! Load, and what it comes to: how many operations a cluster does in a second, how long each takes, what that costs.
//!
//! [`run`] carries out a [`Plan`]. Every measurement has an agent of its own in a namespace of its own ([`Ground`]), of which nothing
//! is left; [`load`] generates the operations, [`Figures`] say what they came to. [`measure`] takes any [`Operation`] and
//! [`measure_watch`] anything [`Watched`], so that another system is measured by the same generator. It must not know how the cluster works inside, nor how figures are shown.

mod alarm;
mod call;
mod dispatch;
mod figures;
mod ground;
mod load;
mod meter;
mod process;
mod session;
mod steps;
mod tally;
mod watch;
mod window;
mod workers;
mod workload;

pub use call::{READ_IN_TURN, VALUE_BYTES, value, value_of};
pub use figures::Figures;
pub use ground::{Ground, PREFIX, kept};
pub use load::{Load, NOT_BEGUN, Operation};
pub use process::Usage;
pub use session::{Measurement, Outcome, Plan, Progress, Subject, connections, measure, run};
pub use watch::{Board, Watched, measure_watch, number_of, numbered};
pub use workload::Workload;

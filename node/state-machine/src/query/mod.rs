//! Reads: pure functions over one moment of the state that give the API's messages, or say that there is nothing.
//!
//! They decide nothing and change nothing. A namespace of "" means `default`.

mod agent;
mod bundle;
mod cost;
pub mod dispatch;
mod drain;
mod event;
mod memory;
mod memory_diff;
mod memory_watch;
mod page;
mod pin;
mod position;
mod run;
mod run_list;
mod session;
mod step;

pub use agent::{agent, agent_number, agents, namespace, namespaces};
pub use bundle::{bundle, bundle_statuses, bundles, diff, environments};
pub use cost::{CostFilter, costs};
pub use drain::{drains, resolve_route};
pub use event::{EventFilter, events};
pub use memory::{memory_get, memory_history, memory_list};
pub use memory_diff::{MemoryDiff, memory_diff};
pub use memory_watch::{MemoryFilter, memory_changes};
pub use pin::{pin, pins};
pub use position::{Position, cluster, position};
pub use run::{explain_run, result, run};
pub use run_list::{RunFilter, runs};
pub use session::{session, sessions};
pub use step::{branches, step, steps};

//! Reads: pure functions over one moment of the state that give the API's messages, or say that there is nothing.
//!
//! They decide nothing and change nothing. A namespace of "" means `default`.

mod agent;
mod audit;
mod bundle;
mod cost;
pub mod dispatch;
mod drain;
mod drift;
mod drill;
mod eval;
mod event;
mod first_step;
mod hook;
mod memory;
mod memory_diff;
mod memory_watch;
mod page;
mod pair;
mod pin;
mod pin_watch;
mod position;
mod release;
mod report;
mod run;
mod run_list;
mod session;
mod signal;
mod step;

pub use agent::{agent, agent_number, agents, namespace, namespaces};
pub use audit::{AuditCheck, AuditFilter, audit, verify_audit};
pub use bundle::{bundle, bundle_statuses, bundles, diff, environments};
pub use cost::{CostFilter, costs};
pub use drain::{drains, resolve_route};
pub use drift::{KnownSchemas, drifts, known_schemas};
pub use drill::{DRILL_LIVE, DRILL_STANDBY, Drilled, agents_with_drills, drill, drilled, drills};
pub use eval::{
    coverage_of, eval_coverage, eval_report, eval_reports, eval_set, eval_sets, gate as eval_gate,
};
pub use event::{EventFilter, events};
pub use first_step::{FirstStep, first_step};
pub use hook::{
    EventHead, Hooked, Place, event_at, event_heads, hook, hook_deliveries, hooked, hooks,
    next_hooked_agent,
};
pub use memory::{memory_get, memory_history, memory_list};
pub use memory_diff::{MemoryDiff, memory_diff};
pub use memory_watch::{MemoryFilter, memory_changes};
pub use pair::{MIRROR_OF, run_input, run_output, run_record, runs_named, trajectory};
pub use pin::{pin, pins};
pub use pin_watch::{PinCursor, pin_changes};
pub use position::{Position, cluster, given_up, position, usage_comes_at_once};
pub use release::{
    Attended, agents_with_releases, attended, plan_release, release, release_under_way, releases,
};
pub use report::release_report;
pub use run::{explain_run, result, run};
pub use run_list::{RunFilter, runs};
pub use session::{session, sessions};
pub use signal::{open_firings, signal_watches, signals};
pub use step::{branches, step, steps};

//! The state machine as a whole, from outside: encoded log entries in, answers and rows out.
//!
//! `story` runs the golden scripts of `tests/scripts`; `golden_bytes` holds persisted formats to their bytes,
//! `audit_chain` looks for what was done behind its back, `event_list` holds the
//! documentation to what is emitted. `properties` tells random stories, `grid` asks every command
//! in every state, `leases` looks at the rows of leases, `pin_ends` at the timers of pins, `sweeps` holds the ends of pins to their bounds,
//! `releases` asks every command in every stage of a release,
//! `memory_cost` holds memory to its costs, `run_list` counts what lists of runs read,
//! `request_ids` asks again, `tombstones` counts what is deleted and stepped over, `agent_list` what a page of agents holds, `forged` reads with whatever text somebody sends.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agent_list;
mod audit_chain;
mod counting;
mod event_list;
mod forged;
mod golden_bytes;
mod grid;
mod leases;
mod memory_cost;
mod payloads;
mod pin_ends;
mod properties;
mod releases;
mod replica;
mod request_ids;
mod run_list;
mod story;
mod sweeps;
mod tombstones;
mod trunks;

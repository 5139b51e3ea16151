//! Tests of a node's layers together, over real storage and loopback.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails is the test's end")]

mod audit;
mod backup;
mod bad_input;
mod bench;
mod binary;
mod damage;
mod dead_letter;
mod doctor;
mod drift;
mod drills;
mod dump_log;
mod emit;
mod eval_gate;
mod evals;
mod exec;
mod families;
mod fan_out;
mod hooks;
mod hostile;
mod hosts;
mod http;
mod init;
mod kit;
mod memory;
mod metrics_page;
mod mirrored_effects;
mod nodes;
mod pin_cache;
mod pin_watch;
mod policy;
mod porting;
mod quiet_agent;
mod ranks;
mod receiver;
mod recover;
mod releases;
mod repin;
mod replicas;
mod sessions;
mod signals;
mod start_and_lease;
mod trace;
mod waits;

//! A Pinrail server as a library. The binary adds the command line; the simulation runs whole nodes of it.
//!
//! Layers, each importing only those before it: `storage`, `raft`, `service` and `driver`, `server`.

mod assertion;
pub mod config;
pub mod driver;
pub mod env;
mod http;
pub mod log_dump;
pub mod raft;
pub mod server;
pub mod service;
pub mod storage;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "mutants")]
pub use pinrail_state_machine::mutant;

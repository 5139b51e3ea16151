//! Replication: openraft's traits over our storage and our peer connections, and [`Replica`], the face that the
//! rest of the node sees.
//!
//! The only place that knows openraft. It does not know what a command means: commands, outcomes and effects pass
//! through as they are.
//!
//! ```text
//!   propose ──> proposer ──> Raft ──> log_store ──> log_writer (thread)      replica: propose, read, feed
//!                              │                                             lead: what begins and ends with leadership
//!                              └─ apply ──> state_machine ──> feed           bootstrap, membership: who belongs to it
//! ```

mod acknowledged;
mod addition;
mod bootstrap;
mod chunk;
mod cluster_time;
mod feature_level;
mod lead;
mod log_end;
mod log_store;
mod log_writer;
mod membership;
mod network;
mod peer_service;
mod proposer;
mod read;
mod recover;
mod replica;
mod restore;
mod runtime;
mod settings;
mod start;
mod state_machine;
mod status;
#[cfg(test)]
mod tests;
mod types;
mod unanswered;

pub use addition::{Added, Adder, Heard};
pub use lead::Leadership;
pub use membership::MemberError;
pub use recover::{RecoverError, Survivor};
pub use replica::{PeerInfo, ProposeError, ReadError, Replica};
pub use settings::{MemberConfig, ReplicaConfig};
pub use start::StartError;
pub use state_machine::{AppliedAt, AppliedBatch};
pub use status::{MemberStatus, ReplicaStatus};
#[cfg(feature = "testing")]
pub(crate) use types::read_twice;

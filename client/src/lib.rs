//! The Pinrail client and worker runtime.
//!
//! [`Client`] talks to a cluster of several members and repeats only what is safe to repeat; [`worker`] pulls and
//! executes steps. This crate must not know how the cluster works inside: no node, no state machine.
//!
//! ```no_run
//! # async fn example() -> pinrail_client::Result<()> {
//! let client = pinrail_client::Client::connect_from_env().await?;
//! let answer: String = client.run("support", serde_json::json!({"question": "Where is it?"})).await?;
//! # Ok(())
//! # }
//! ```

pub mod backup;
#[cfg(feature = "bench")]
pub mod bench;
pub mod client;
pub mod config;
pub mod connection;
pub mod error;
pub mod payload;
pub mod pin_cache;
mod pool;
pub mod retry;
pub mod service;
mod tcp;
mod trace;
pub mod worker;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod host;
#[cfg(feature = "testing")]
pub mod testing;

pub use client::{Client, ClientBuilder};
pub use config::Config;
pub use connection::Notice;
pub use error::{Error, Result};
pub use pin_cache::PinCache;
/// The messages of the API.
pub use pinrail_proto::v1;
pub use worker::Worker;

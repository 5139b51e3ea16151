//! The verbs that start a node or open its files. Every other verb is the client's.

pub(crate) mod dev;
pub(crate) mod dump_log;
mod hello;
pub(crate) mod recover;
pub(crate) mod server;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};

/// One thread for network and Raft: measured faster on small machines than two.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("no runtime can be made")
}

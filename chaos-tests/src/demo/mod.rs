//! `make demo`: the main job from end to end with real processes, told as a timeline and closed with a table that
//! is not the servers' word alone: what the worker processes logged is joined with the pins of the final read.
//!
//! ```text
//! 3 servers, 2 workers of each bundle ── runs on v1 ── switch to v2 while the leader is killed ── the cap ends the
//! stuck runs of v1 ── rollback to v1 ── memory is back ── the cap ends the stuck runs of v2 ── final read, table
//! ```

mod closing;
mod stage;
mod story;
mod timeline;
mod traffic;

use std::path::PathBuf;

use anyhow::Result;

use crate::report::Keeper;
use crate::scenario::Setting;

pub use timeline::Timeline;

/// What the demonstration can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoOptions {
    /// Folder of the research example: its bundles are what is released.
    #[arg(long, default_value = "client/examples/research")]
    pub research: PathBuf,
    /// Time after a switch at which runs of the old bundle must end, in seconds.
    #[arg(long, default_value_t = 6)]
    pub drain_cap: u64,
    #[arg(long, default_value_t = 2)]
    pub grace: u64,
}

/// Plays the demonstration; true when every promise held.
///
/// # Errors
/// When it could not be played.
pub async fn demo(setting: &Setting, options: &DemoOptions) -> Result<bool> {
    let mut keeper = Keeper::new(setting, "demo")?;
    let result = story::play(setting, options, &keeper).await;
    let mut held = false;
    let report = result.map(|closing| {
        print!("{closing}");
        held = closing.passed();
        closing.report(held)
    });
    keeper.settle(report)?;
    Ok(held)
}

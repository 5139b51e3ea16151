//! `make demo-release`: candidates of every kind are released at the same time, on one cluster of real processes and with
//! short times. A good one comes to the end; each bad one is stopped by the gate or the signal that is there for it, and
//! what was seen is shown.

mod chapter;
mod closing;
mod files;
mod play;
mod worker;

use std::time::Duration;

use anyhow::Result;
use pinrail_client::{Client, Config};
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Options};
use crate::console::Console;
use crate::demo::Timeline;
use crate::report::{Keeper, Report};
use crate::scenario::Setting;
use chapter::CHAPTERS;

pub(crate) use chapter::{Chapter, EVERY_STAGE, Fate, LIVE, SHORT};
pub(crate) use play::Play;
pub use worker::{Manner, serve};

/// Plays all chapters; true when each candidate came to what it deserves.
///
/// # Errors
/// When they could not be played.
pub async fn demo_release(setting: &Setting) -> Result<bool> {
    let mut keeper = Keeper::new(setting, "demo-release")?;
    let result = all(setting, &keeper).await;
    let mut held = false;
    let report = result.map(|endings| {
        print!("{}", closing::Closing { endings: &endings });
        held = endings.iter().all(|ending| ending.problem.is_none());
        let problems = endings.iter().filter_map(|ending| ending.problem.clone()).collect();
        Report { problems, ..Report::default() }
    });
    keeper.settle(report)?;
    Ok(held)
}

async fn all(setting: &Setting, keeper: &Keeper) -> Result<Vec<play::Ending>> {
    let timeline = Timeline::begin();
    let options =
        Options { folder: Some(keeper.folder()), ..Options::three(&setting.binaries.pinrail) };
    let mut cluster = Cluster::start(&options).await?;
    let leader = cluster.wait_leader(Duration::from_secs(5)).await?;
    timeline.say(format!("three servers run, {} leads", cluster.members[leader].name));
    let endpoints = cluster.members.iter().map(|member| member.grpc.clone()).collect();
    let client = Client::new(Config { endpoints, ..Config::default() })?;
    let pinrail = setting.binaries.pinrail.clone();
    let console = Console { pinrail, endpoints: cluster.endpoints() };
    let mut plays = JoinSet::new();
    for (number, chapter) in CHAPTERS.iter().enumerate() {
        let play = Play {
            chapter,
            client: client.clone(),
            console: console.clone(),
            agent_program: setting.binaries.agent.clone(),
            folder: keeper.folder().join(chapter.agent),
            timeline,
        };
        plays.spawn(async move { (number, play.perform().await) });
    }
    let mut endings = Vec::new();
    while let Some(played) = plays.join_next().await {
        let (number, ending) = played?;
        endings.push((number, ending?));
    }
    endings.sort_by_key(|(number, _)| *number);
    cluster.must_run()?;
    Ok(endings.into_iter().map(|(_, ending)| ending).collect())
}

//! A release through every stage, whose leader gets SIGKILL at each of its transitions: it comes to its end all the same, and
//! no stage is entered without its verdict or judged twice (P6).

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use pinrail_client::{Client, Config};
use pinrail_proto::v1::{self, Verdict};
use tokio::time::sleep;

use super::Setting;
use crate::cluster::{Cluster, Options};
use crate::console::Console;
use crate::demo::Timeline;
use crate::demo_release::{Chapter, EVERY_STAGE, Fate, LIVE, Play, SHORT};
use crate::report::{Keeper, Report};

/// Between two looks at the release.
const LOOK: Duration = Duration::from_millis(10);
const ELECTION: Duration = Duration::from_secs(10);
const AGREE: Duration = Duration::from_secs(30);

/// Pauses of leaders are seen in latencies: no signal is to judge by them here.
const NO_SIGNALS: &str = "\n[signals]\ncanary = \"off\"\nquarantine = \"off\"\n";

static CHAPTER: Chapter = Chapter {
    agent: "killed",
    about: "as good as v1",
    policy: &[SHORT, NO_SIGNALS, EVERY_STAGE],
    candidate: LIVE,
    passes: Some(194),
    deserves: Fate::Recycled,
};

/// What came of it.
#[derive(Debug)]
pub struct ReleaseKills {
    pub kills: usize,
    pub transitions: usize,
    took: Duration,
    report: Report,
}

impl ReleaseKills {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed() && self.kills >= 5
    }
}

impl fmt::Display for ReleaseKills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        writeln!(
            f,
            "  the leader was killed {} times in {} transitions; the release was over after {:.1?}: {}",
            self.kills,
            self.transitions,
            self.took,
            if self.passed() { "P6 held" } else { "MISSED" }
        )
    }
}

/// # Errors
/// When the harness failed.
pub async fn release_kills(setting: &Setting) -> Result<ReleaseKills> {
    let mut keeper = Keeper::new(setting, "release-kills")?;
    let mut found =
        ReleaseKills { kills: 0, transitions: 0, took: Duration::ZERO, report: Report::default() };
    let result = play(setting, &keeper, &mut found).await;
    found.report = keeper.settle(result)?;
    Ok(found)
}

async fn play(setting: &Setting, keeper: &Keeper, found: &mut ReleaseKills) -> Result<Report> {
    let options =
        Options { folder: Some(keeper.folder()), ..Options::three(&setting.binaries.pinrail) };
    let mut cluster = Cluster::start(&options).await?;
    let endpoints = cluster.members.iter().map(|member| member.grpc.clone()).collect();
    let client = Client::new(Config { endpoints, ..Config::default() })?;
    let pinrail = setting.binaries.pinrail.clone();
    let play = Play {
        chapter: &CHAPTER,
        client: client.clone(),
        console: Console { pinrail, endpoints: cluster.endpoints() },
        agent_program: setting.binaries.agent.clone(),
        folder: keeper.folder().join(CHAPTER.agent),
        timeline: Timeline::begin(),
    };
    let ending = tokio::select! {
        ending = play.perform() => ending?,
        failed = assassin(&mut cluster, &client, &mut found.kills) => bail!("no leader to kill: {failed:?}"),
    };
    cluster.heal()?;
    found.took = ending.took;
    found.transitions = ending.release.transitions.len();
    let mut problems: Vec<String> = ending.problem.into_iter().collect();
    problems.extend(judged_twice(&ending.release));
    if let Err(error) = cluster.agree(AGREE).await {
        problems.push(format!("the members' states differ: {error:#}"));
    }
    Ok(Report { problems, ..Report::default() })
}

/// Kills the leader whenever the release has gone on, and starts it again when another leads.
async fn assassin(cluster: &mut Cluster, client: &Client, kills: &mut usize) -> Result<()> {
    let mut seen = 0;
    loop {
        sleep(LOOK).await;
        let request = v1::GetReleaseRequest {
            agent_id: CHAPTER.agent.to_owned(),
            ..v1::GetReleaseRequest::default()
        };
        // There is none yet, or no leader for a moment.
        let Ok(answer) = client.releases().get(request).await else { continue };
        let transitions = answer.release.map_or(0, |release| release.transitions.len());
        if transitions == seen {
            continue;
        }
        seen = transitions;
        let leader = cluster.wait_leader(ELECTION).await?;
        cluster.members[leader].kill().await?;
        *kills += 1;
        cluster.wait_leader(ELECTION).await?;
        cluster.members[leader].start()?;
    }
}

/// Stages with more than one attempt, or without a verdict.
fn judged_twice(release: &v1::Release) -> Vec<String> {
    let wrong =
        release.gates.iter().filter(|gate| gate.attempt > 1 || gate.verdict() != Verdict::Pass);
    wrong.map(|gate| format!("a gate of a release that went through: {gate:?}")).collect()
}

//! Releases through every stage, whose leaders get SIGKILL until there was one at each of the transitions: they come to their
//! end all the same, and no stage is entered without its verdict or judged twice (P6).

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use pinrail_client::{Client, Config};
use pinrail_proto::v1::{self, Verdict};
use tokio::time::{Instant, sleep};

use super::Setting;
use crate::cluster::{Cluster, Options};
use crate::console::Console;
use crate::demo::Timeline;
use crate::demo_release::{Chapter, EVERY_STAGE, Fate, LIVE, Play, SHORT};
use crate::report::{Keeper, Report};

/// Between two looks at the release.
const LOOK: Duration = Duration::from_millis(3);
const ELECTION: Duration = Duration::from_secs(10);
const AGREE: Duration = Duration::from_secs(30);

/// Pauses of leaders are seen in latencies: no signal is to judge by them here.
const NO_SIGNALS: &str = "\n[signals]\ncanary = \"off\"\nquarantine = \"off\"\n";

/// A kill covers what follows while the next leader is elected: what one release missed, another one meets.
static CHAPTERS: [Chapter; 6] = [
    chapter("killed-1"),
    chapter("killed-2"),
    chapter("killed-3"),
    chapter("killed-4"),
    chapter("killed-5"),
    chapter("killed-6"),
];

const fn chapter(agent: &'static str) -> Chapter {
    Chapter {
        agent,
        about: "as good as v1",
        policy: &[SHORT, NO_SIGNALS, EVERY_STAGE],
        candidate: LIVE,
        passes: Some(194),
        deserves: Fate::Recycled,
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct ReleaseKills {
    pub kills: usize,
    pub releases: usize,
    /// Each transition of a release, and whether a leader was killed when it was the last that had been made.
    pub transitions: Vec<(String, bool)>,
    took: Duration,
    report: Report,
}

impl ReleaseKills {
    #[must_use]
    pub fn passed(&self) -> bool {
        let each = self.transitions.iter().all(|(_, killed)| *killed);
        self.report.passed() && each && !self.transitions.is_empty()
    }
}

impl fmt::Display for ReleaseKills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        for (transition, killed) in &self.transitions {
            let word = if *killed { "the leader was killed" } else { "NO LEADER WAS KILLED" };
            writeln!(f, "  {transition}: {word}")?;
        }
        writeln!(
            f,
            "  {} releases of {} transitions, {} kills, {:.1?}: {}",
            self.releases,
            self.transitions.len(),
            self.kills,
            self.took,
            if self.passed() { "P6 held" } else { "MISSED" }
        )
    }
}

/// # Errors
/// When the harness failed.
pub async fn release_kills(setting: &Setting) -> Result<ReleaseKills> {
    let mut keeper = Keeper::new(setting, "release-kills")?;
    let began = Instant::now();
    let mut found = ReleaseKills::default();
    let result = play(setting, &keeper, &mut found).await;
    found.report = keeper.settle(result)?;
    found.took = began.elapsed();
    Ok(found)
}

async fn play(setting: &Setting, keeper: &Keeper, found: &mut ReleaseKills) -> Result<Report> {
    let options =
        Options { folder: Some(keeper.folder()), ..Options::three(&setting.binaries.pinrail) };
    let mut cluster = Cluster::start(&options).await?;
    let endpoints = cluster.members.iter().map(|member| member.grpc.clone()).collect();
    let client = Client::new(Config { endpoints, ..Config::default() })?;
    let mut problems = Vec::new();
    let mut killed_at = BTreeSet::new();
    for chapter in &CHAPTERS {
        let play = Play {
            chapter,
            client: client.clone(),
            console: Console {
                pinrail: setting.binaries.pinrail.clone(),
                endpoints: cluster.endpoints(),
            },
            agent_program: setting.binaries.agent.clone(),
            folder: keeper.folder().join(chapter.agent),
            timeline: Timeline::begin(),
        };
        let mut assassin = Assassin { cluster: &mut cluster, client: &client, killed_at };
        let ending = tokio::select! {
            ending = play.perform() => ending?,
            failed = assassin.attend(chapter.agent, &mut found.kills) => bail!("no leader to kill: {failed:?}"),
        };
        killed_at = assassin.killed_at;
        cluster.heal().await?;
        found.releases += 1;
        problems.extend(ending.problem);
        problems.extend(judged_twice(&ending.release));
        problems.extend(outlives_its_leader(&mut cluster, &client, &ending.release).await?);
        found.kills += 1;
        killed_at.insert(ending.release.transitions.len());
        found.transitions = met(&ending.release.transitions, &killed_at);
        if found.passed() || !problems.is_empty() {
            break;
        }
    }
    if let Err(error) = cluster.nodes.agree(AGREE).await {
        problems.push(format!("the members' states differ: {error:#}"));
    }
    Ok(Report { problems, ..Report::default() })
}

/// Kills leaders at what it has not killed one at before.
struct Assassin<'a> {
    cluster: &'a mut Cluster,
    client: &'a Client,
    /// How many transitions a release had made when its leader was killed.
    killed_at: BTreeSet<usize>,
}

impl Assassin<'_> {
    async fn attend(&mut self, agent: &str, kills: &mut usize) -> Result<()> {
        loop {
            sleep(LOOK).await;
            // There is none yet, or no leader for a moment.
            let Ok(release) = release_of(self.client, agent).await else { continue };
            if release.ended_at.is_some() || !self.killed_at.insert(release.transitions.len()) {
                continue;
            }
            kill_leader(self.cluster).await?;
            *kills += 1;
        }
    }
}

/// Kills the leader, and starts it again when another one leads.
async fn kill_leader(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.wait_leader(ELECTION).await?;
    cluster.members[leader].kill().await?;
    cluster.wait_leader(ELECTION).await?;
    cluster.members[leader].start()
}

async fn release_of(client: &Client, agent: &str) -> Result<v1::Release> {
    let agent_id = agent.to_owned();
    let request = v1::GetReleaseRequest { agent_id, ..v1::GetReleaseRequest::default() };
    client.releases().get(request).await?.release.context("an answer without a release")
}

/// The last transition has nothing behind it: the release is to be as it was.
async fn outlives_its_leader(
    cluster: &mut Cluster,
    client: &Client,
    ended: &v1::Release,
) -> Result<Option<String>> {
    kill_leader(cluster).await?;
    let now = release_of(client, &ended.agent_id).await?;
    Ok((now != *ended).then(|| format!("with another leader {ended:?} became {now:?}")))
}

/// The transitions between which a leader can be killed, and whether one was: what is made by one command is one.
fn met(transitions: &[v1::Transition], killed_at: &BTreeSet<usize>) -> Vec<(String, bool)> {
    let mut met = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for (number, it) in transitions.iter().enumerate() {
        words.push(it.what.clone());
        if transitions.get(number + 1).is_none_or(|next| next.revision != it.revision) {
            let to = it.to().as_str_name().trim_start_matches("RELEASE_STATE_").to_lowercase();
            let transition = format!("{} ({to})", words.join(", "));
            met.push((transition, killed_at.contains(&(number + 1))));
            words.clear();
        }
    }
    met
}

/// Stages with more than one attempt, or without a verdict.
fn judged_twice(release: &v1::Release) -> Vec<String> {
    let wrong =
        release.gates.iter().filter(|gate| gate.attempt > 1 || gate.verdict() != Verdict::Pass);
    wrong.map(|gate| format!("a gate of a release that went through: {gate:?}")).collect()
}

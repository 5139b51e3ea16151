//! What happens, in order.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::DemoOptions;
use super::closing::Closing;
use super::stage::{AGENT, Crew, FLEET, NEW, OLD, Stage};
use super::timeline::Timeline;
use super::traffic::{self, FIRST_WAVE, KEYS, SECOND_WAVE, Sort};
use crate::api::final_read::read_agent;
use crate::clock;
use crate::cluster::{Cluster, Options};
use crate::console::Console;
use crate::history::{Answer, Call, Evidence, Fault, FaultKind, InFlight, Outcome, Recorder};
use crate::report::{Keeper, ms};
use crate::scenario::Setting;
use crate::workload::client::rng;
use crate::workload::{Operator, Patience};

/// Users that keep starting runs through everything.
const USERS: u32 = 3;
/// From the switch being sent to the leader being killed.
const INTO_THE_SWITCH: Duration = Duration::from_millis(2);

struct Play<'a> {
    stage: Stage<'a>,
    cluster: Cluster,
    crew: Crew,
    recorder: Recorder,
    timeline: Timeline,
    hands: Operator,
    seed: u64,
}

/// Plays it.
pub(super) async fn play(
    setting: &Setting,
    options: &DemoOptions,
    keeper: &Keeper,
) -> Result<Closing> {
    let timeline = Timeline::begin();
    let mut play = Play::open(setting, options, keeper, timeline).await?;
    play.first_runs().await?;
    let (stop, users) = play.users();
    play.switch_and_kill().await?;
    play.wait_drained(OLD).await?;
    play.roll_back().await?;
    play.wait_drained(NEW).await?;
    stop.send_replace(true);
    let trickled: usize = users.join_all().await.into_iter().sum();
    play.timeline.say(format!("users stop; they had started {trickled} more runs meanwhile"));
    play.close(keeper).await
}

impl<'a> Play<'a> {
    async fn open(
        setting: &'a Setting,
        options: &'a DemoOptions,
        keeper: &Keeper,
        timeline: Timeline,
    ) -> Result<Self> {
        let cluster_options =
            Options { folder: Some(keeper.folder()), ..Options::three(&setting.binaries.pinrail) };
        let mut cluster = Cluster::start(&cluster_options).await?;
        let leader = cluster.wait_leader(Duration::from_secs(5)).await?;
        timeline.say(format!("three servers run, {} leads", cluster.members[leader].name));
        let stage = Stage {
            binaries: &setting.binaries,
            options,
            folder: keeper.folder(),
            console: Console {
                pinrail: setting.binaries.pinrail.clone(),
                endpoints: cluster.endpoints(),
            },
        };
        stage.release().await?;
        timeline.say(format!(
            "agents {AGENT} (workers) and {FLEET} (external), bundles {OLD} and {NEW} of each"
        ));
        let crew = stage.start_workers()?;
        let recorder = Recorder::to_file(&keeper.folder().join("history.jsonl"))?;
        let nodes = cluster.nodes.clone();
        let hands = operator(setting.seed, 0, &nodes, &recorder);
        let mut play = Self { stage, cluster, crew, recorder, timeline, hands, seed: setting.seed };
        play.hands.patience.pause = Duration::from_millis(5);
        for agent in [AGENT, FLEET] {
            play.move_route(agent, Call::Switch { bundle_id: OLD.to_owned() }).await?;
        }
        play.timeline
            .say(format!("{OLD} is live; {} worker processes serve both", play.crew.len()));
        Ok(play)
    }

    async fn first_runs(&mut self) -> Result<()> {
        let started = traffic::wave(&mut self.hands, "first", FIRST_WAVE).await;
        self.timeline.say(format!("{started} runs started: {}", sorts(FIRST_WAVE)));
        traffic::write_memory(&mut self.hands, "written on v1").await;
        self.timeline.say(format!("{KEYS} keys of memory written on {OLD}"));
        self.crew.must_run()
    }

    fn users(&self) -> (watch::Sender<bool>, JoinSet<usize>) {
        let (stop, _) = watch::channel(false);
        let mut users = JoinSet::new();
        for user in 1..=USERS {
            let hands = operator(self.seed, user, &self.hands.nodes, &self.recorder);
            users.spawn(traffic::trickle(hands, stop.subscribe()));
        }
        (stop, users)
    }

    /// The switch is sent, and a moment later its leader is dead.
    async fn switch_and_kill(&mut self) -> Result<()> {
        sleep(Duration::from_secs(1)).await;
        let leader = self.cluster.wait_leader(Duration::from_secs(5)).await?;
        let name = self.cluster.members[leader].name.clone();
        self.timeline
            .say(format!("pinrail switch {AGENT} {NEW}  …and {name}, the leader, gets SIGKILL"));
        let mut hands = operator(self.seed, USERS + 1, &self.hands.nodes, &self.recorder);
        hands.patience = Patience { pause: Duration::from_millis(5), ..hands.patience };
        let switch = tokio::spawn(async move {
            hands.operate(AGENT, Call::Switch { bundle_id: NEW.to_owned() }).await
        });
        sleep(INTO_THE_SWITCH).await;
        let injected_us = clock::now_us();
        self.cluster.members[leader].kill().await?;
        let effective_us = Some(clock::now_us());
        let answer = switch.await?;
        let served = self.wait_write(injected_us).await?;
        self.timeline.say(format!(
            "next acknowledged write {} ms after the kill; {}",
            ms(served - injected_us),
            describe(&answer)?
        ));
        self.hands.operate(AGENT, Call::ReadRoute).await;
        self.move_route(FLEET, Call::Switch { bundle_id: NEW.to_owned() }).await?;
        self.cluster.members[leader].start()?;
        let healed_us = clock::now_us();
        let (kind, nodes) = (FaultKind::KillLeader, vec![leader]);
        self.recorder.record_fault(Fault { kind, nodes, injected_us, effective_us, healed_us });
        self.timeline.say(format!("{name} is started again"));
        let started = traffic::wave(&mut self.hands, "second", SECOND_WAVE).await;
        self.timeline
            .say(format!("{started} runs started after the switch: {}", sorts(SECOND_WAVE)));
        traffic::write_memory(&mut self.hands, "written on v2").await;
        let count =
            FIRST_WAVE.iter().find(|(sort, _)| *sort == Sort::External).map_or(0, |it| it.1);
        let finished = traffic::finish_external(&mut self.hands, "first", count).await;
        self.timeline.say(format!(
            "the same keys written on {NEW}; {finished} external runs finished on {OLD}, the rest is left to the cap"
        ));
        Ok(())
    }

    async fn wait_write(&self, since_us: u64) -> Result<u64> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = self.recorder.first_acked_write_since(since_us) {
                return Ok(at);
            }
            if Instant::now() > deadline {
                bail!("no write was acknowledged within 20 s of the kill");
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Watches the drains of a bundle of both agents until they are over; the judge knows the bound.
    async fn wait_drained(&mut self, bundle: &str) -> Result<()> {
        let limit =
            Duration::from_secs(self.stage.options.drain_cap + self.stage.options.grace + 12);
        let deadline = Instant::now() + limit;
        let mut last = u64::MAX;
        loop {
            let mut open = 0;
            let mut left_ms = 0;
            for agent in [AGENT, FLEET] {
                let call = Call::GetDrain { bundle_id: bundle.to_owned(), local: false };
                if let Outcome::Ok {
                    answer: Answer::Drain { open: pins, drained_by_ms, cluster_time_ms, .. },
                    ..
                } = self.hands.operate(agent, call).await
                {
                    open += pins;
                    left_ms = left_ms.max(drained_by_ms.saturating_sub(cluster_time_ms));
                }
            }
            if open != last && (open == 0 || last == u64::MAX || last - open.min(last) > 20) {
                self.timeline.say(format!(
                    "drain of {bundle}: {open} open pins, {} s to the bound",
                    left_ms / 1_000
                ));
                last = open;
            }
            if open == 0 || Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.crew.must_run()
    }

    async fn roll_back(&mut self) -> Result<()> {
        let back = |from: &str| Call::Rollback {
            from_bundle_id: from.to_owned(),
            in_flight: InFlight::Keep,
        };
        let before = traffic::memory_says(&mut self.hands, "written on v2").await;
        let begin = clock::now_us();
        let answer = self.hands.operate(AGENT, back(NEW)).await;
        let took = clock::now_us() - begin;
        self.timeline.say(format!(
            "pinrail rollback {AGENT} --from {NEW}: {} ms; {}",
            ms(took),
            describe(&answer)?
        ));
        self.hands.operate(AGENT, Call::ReadRoute).await;
        self.move_route(FLEET, back(NEW)).await?;
        let after = traffic::memory_says(&mut self.hands, "written on v1").await;
        self.timeline.say(format!(
            "memory: {before} of {KEYS} keys said `written on v2` before, {after} of {KEYS} say `written on v1` again"
        ));
        let again = self.hands.operate(AGENT, back(NEW)).await;
        self.timeline.add(format!("the same rollback again: {}", describe(&again)?));
        traffic::start(&mut self.hands, "after-rollback", Sort::Short).await;
        let pin = self.hands.operate(AGENT, Call::LookupPin { run_id: "after-rollback".into() });
        if let Outcome::Ok { answer: Answer::Pinned { pin, .. }, .. } = pin.await {
            self.timeline.add(format!("a run started now is pinned to {}", pin.bundle_id));
        }
        Ok(())
    }

    /// A route change of an agent, and the revision that it got.
    async fn move_route(&mut self, agent: &str, call: Call) -> Result<()> {
        let answer = self.hands.operate(agent, call).await;
        describe(&answer)?;
        self.hands.operate(agent, Call::ReadRoute).await;
        Ok(())
    }

    /// Stops the workers, reads everything, and closes.
    async fn close(self, keeper: &Keeper) -> Result<Closing> {
        // What trickled in last may finish.
        sleep(Duration::from_millis(1_500)).await;
        let worker_log = self.crew.stop().await.context("stop the workers")?;
        self.timeline.say(format!("workers stopped; they logged {} steps", worker_log.len()));
        let agreed = self.cluster.nodes.agree(Duration::from_secs(20)).await;
        match &agreed {
            Ok(agreed) => self.timeline.say(format!(
                "all three states hash to {} at index {}",
                agreed.state_hash, agreed.applied_index
            )),
            Err(error) => self.timeline.say(format!("the states do not agree: {error:#}")),
        }
        let history = self.recorder.entries();
        let grace_ms = self.stage.options.grace * 1_000;
        let mut finals = Vec::new();
        for agent in [AGENT, FLEET] {
            let read = read_agent(&self.hands.nodes, agent, grace_ms, &history, &worker_log);
            finals.push(read.await?);
        }
        self.timeline.say("final read done");
        let (faults, logs) = (self.recorder.faults(), Vec::new());
        let evidence =
            Evidence { history, worker_log, faults, finals, logs, ..Evidence::default() };
        keeper.write("evidence.json", &evidence)?;
        let cap_ms = self.stage.options.drain_cap * 1_000;
        Ok(Closing::of(&evidence, cap_ms, agreed.err().map(|error| format!("{error:#}"))))
    }
}

fn operator(seed: u64, client: u32, nodes: &crate::api::Nodes, recorder: &Recorder) -> Operator {
    Operator {
        client,
        nodes: nodes.clone(),
        recorder: recorder.clone(),
        rng: rng(seed, client),
        patience: Patience::default(),
    }
}

fn sorts(wave: &[(Sort, usize)]) -> String {
    let words: Vec<String> = wave
        .iter()
        .map(|(sort, count)| {
            let word = match sort {
                Sort::Short => "short",
                Sort::Long => "long",
                Sort::NeverEnding => "never ending",
                Sort::Stubborn => "never ending and deaf",
                Sort::External => "external",
            };
            format!("{count} {word}")
        })
        .collect();
    words.join(", ")
}

/// A route change in words.
fn describe(outcome: &Outcome) -> Result<String> {
    match outcome {
        Outcome::Ok { answer: Answer::Moved { from, to, epoch, already, .. }, .. } => {
            let from = if from.is_empty() { "nothing" } else { from };
            let already = if *already { ", as before" } else { "" };
            Ok(format!("{from} → {to}, epoch {epoch}{already}"))
        }
        other => bail!("a route change came to {other:?}"),
    }
}

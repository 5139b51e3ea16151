//! The clients and administrators of a scenario, started and stopped together.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::setup::{self, Policy};
use crate::api::{Nodes, final_read};
use crate::history::{AgentFinal, Answer, Call, Outcome, Recorder, Watched, WorkerLine};
use crate::workload::client::rng;
use crate::workload::{AdminStep, Client, Known, Mix, Operator, Patience, Watcher, administrate};

/// Drains that end later are not waited for.
const FAR_MS: u64 = 60_000;
/// Who watches has heard everything so long after the end, slow readers too.
const HEARD: Duration = Duration::from_secs(90);

/// Clients at work on one cluster.
#[derive(Debug)]
pub struct Load {
    nodes: Nodes,
    pub recorder: Recorder,
    seed: u64,
    next_client: u32,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
    administrators: JoinSet<()>,
    agents: Vec<Agent>,
    watchers: Vec<Watcher>,
    /// Dropped with the load.
    watching: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Agent {
    name: String,
    policy: Policy,
    known: Known,
}

impl Load {
    #[must_use]
    pub fn new(nodes: Nodes, recorder: Recorder, seed: u64) -> Self {
        Self {
            nodes,
            recorder,
            seed,
            next_client: 0,
            stop: watch::channel(false).0,
            clients: JoinSet::new(),
            administrators: JoinSet::new(),
            agents: Vec::new(),
            watchers: Vec::new(),
            watching: JoinSet::new(),
        }
    }

    /// A client's hands, with a generator of its own.
    #[must_use]
    pub fn operator(&mut self) -> Operator {
        self.next_client += 1;
        Operator {
            client: self.next_client,
            nodes: self.nodes.clone(),
            recorder: self.recorder.clone(),
            rng: rng(self.seed, self.next_client),
            patience: Patience::default(),
        }
    }

    /// Makes an agent with its bundles and puts the first one live.
    ///
    /// # Errors
    /// When the cluster does not do it.
    pub async fn add_agent(
        &mut self,
        name: &str,
        policy: Policy,
        bundles: &[String],
    ) -> Result<()> {
        setup::agent(&self.nodes, name, policy, bundles).await?;
        let known = Known::default();
        if let Some(first) = bundles.first() {
            let mut operator = self.operator();
            let call = Call::Switch { bundle_id: first.clone() };
            match operator.operate(name, call).await {
                Outcome::Ok { answer: Answer::Moved { to, .. }, .. } => known.add_bundle(&to),
                other => anyhow::bail!("the first switch of {name} came to {other:?}"),
            }
            operator.operate(name, Call::ReadRoute).await;
        }
        self.agents.push(Agent { name: name.to_owned(), policy, known });
        Ok(())
    }

    /// Starts clients of an agent.
    pub fn start_clients(&mut self, agent: &str, count: u32, mix: Mix, patience: Patience) {
        let Some(agent) = self.agents.iter().find(|one| one.name == agent).cloned() else { return };
        for _ in 0..count {
            let operator = Operator { patience, ..self.operator() };
            let external = agent.policy.external;
            let client = Client::new(&agent.name, external, mix, operator, agent.known.clone());
            self.clients.spawn(client.run(self.stop.subscribe()));
        }
    }

    /// Starts the administrator of an agent; times are milliseconds after `begin`.
    pub fn start_admin(&mut self, agent: &str, begin: Instant, schedule: &[(u64, AdminStep)]) {
        let Some(agent) = self.agents.iter().find(|one| one.name == agent).cloned() else { return };
        let operator = self.operator();
        let schedule = schedule
            .iter()
            .map(|(at_ms, step)| (Duration::from_millis(*at_ms), step.clone()))
            .collect();
        self.administrators.spawn(administrate(agent.name, operator, agent.known, begin, schedule));
    }

    /// Starts watchers of an agent's events, each at another member; each takes so long over an answer.
    pub fn start_watchers(&mut self, agent: &str, count: usize, reads_for: Duration) {
        for _ in 0..count {
            let number = self.watchers.len();
            let (nodes, name) = (self.nodes.clone(), format!("watcher-{number}"));
            let watcher = Watcher::new(nodes, &name, agent, number, reads_for);
            self.watching.spawn(watcher.clone().run());
            self.watchers.push(watcher);
        }
    }

    /// What the watchers heard, once each has heard of the last event there was by now. Who has not in time is judged by what it
    /// heard, and named. The events that there are become part of what was read in the end.
    ///
    /// # Errors
    /// When the healed cluster does not answer.
    pub async fn heard(
        &mut self,
        finals: &mut [AgentFinal],
    ) -> Result<(Vec<Watched>, Vec<String>)> {
        let mut late = Vec::new();
        for end in finals.iter() {
            let events = final_read::events(&self.nodes, &end.agent).await?;
            let last = events.last().map_or(0, |event| event.revision);
            late.extend(self.wait_heard(&end.agent, last).await);
        }
        self.watching.shutdown().await;
        // Behind all that anybody heard: events go on while runs end.
        for end in finals {
            end.events = final_read::events(&self.nodes, &end.agent).await?;
        }
        Ok((self.watchers.iter().map(Watcher::heard).collect(), late))
    }

    async fn wait_heard(&self, agent: &str, last: u64) -> Vec<String> {
        let deadline = Instant::now() + HEARD;
        loop {
            let heard = self.watchers.iter().map(Watcher::heard);
            let late = heard.filter(|it| it.agent == agent && it.upto < last);
            let late: Vec<String> = late
                .map(|it| {
                    let (name, upto) = (&it.watcher, it.upto);
                    format!(
                        "{name} has heard of nothing behind revision {upto}, long after the end"
                    )
                })
                .collect();
            if late.is_empty() || Instant::now() > deadline {
                return late;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// After the policy of an agent was changed: what its next drains are judged by.
    pub fn set_policy(&mut self, agent: &str, policy: Policy) {
        for one in self.agents.iter_mut().filter(|one| one.name == agent) {
            one.policy = policy;
        }
    }

    /// Waits for the administrators, then lets every client finish what it is at.
    pub async fn finish(&mut self) {
        while self.administrators.join_next().await.is_some() {}
        // No receiver is left when every client has ended by itself.
        let _ = self.stop.send(true);
        while self.clients.join_next().await.is_some() {}
        self.stop.send_replace(false);
    }

    /// Waits until every drain of every agent is over, or its bound and `slack` are past: then the judge says so.
    pub async fn wait_drains(&mut self, slack: Duration) {
        for agent in self.agents.clone() {
            for bundle_id in self.drains_of(&agent.name) {
                self.wait_drains_of(&agent.name, &bundle_id, slack).await;
            }
        }
    }

    /// Waits until the drain of a bundle is over or nothing, or its bound and `slack` are past.
    pub async fn wait_drains_of(&mut self, agent: &str, bundle_id: &str, slack: Duration) {
        let mut operator = self.operator();
        let mut give_up = None;
        loop {
            let call = Call::GetDrain { bundle_id: bundle_id.to_owned(), local: false };
            let outcome = operator.operate(agent, call).await;
            let Outcome::Ok {
                answer: Answer::Drain { open, drained_by_ms, cluster_time_ms, .. },
                ..
            } = outcome
            else {
                return;
            };
            // The cluster's time stands still while nothing is written: it says how long, ours says when.
            let left_ms = drained_by_ms.saturating_sub(cluster_time_ms);
            let until = Instant::now() + Duration::from_millis(left_ms) + slack;
            let give_up = *give_up.get_or_insert(until);
            // A deadline that is hours away is not waited for: the scenario did not mean it.
            if open == 0 || drained_by_ms == 0 || left_ms > FAR_MS || Instant::now() > give_up {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Bundles that lost their traffic at some time.
    fn drains_of(&self, agent: &str) -> Vec<String> {
        let mut bundles: Vec<String> = self
            .recorder
            .entries()
            .iter()
            .filter(|entry| entry.agent == agent)
            .filter_map(|entry| match entry.ok()?.1 {
                Answer::Moved { from, .. } if !from.is_empty() => Some(from.clone()),
                _ => None,
            })
            .collect();
        bundles.sort();
        bundles.dedup();
        bundles
    }

    /// The final read of every agent.
    ///
    /// # Errors
    /// When the healed cluster does not answer.
    pub async fn final_read(&self, worker_log: &[WorkerLine]) -> Result<Vec<AgentFinal>> {
        let history = self.recorder.entries();
        let mut finals = Vec::new();
        for agent in &self.agents {
            let (name, grace) = (&agent.name, agent.policy.grace_ms);
            let read = final_read::read_agent(&self.nodes, name, grace, &history, worker_log);
            finals.push(read.await?);
        }
        Ok(finals)
    }
}

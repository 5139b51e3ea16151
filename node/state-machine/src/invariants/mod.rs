//! Whole-state checks, one file a promise of the specification. They scan everything: for tests, the simulation
//! and a node that is asked to look at itself. They trust no code of the verbs but the catalogue of keys, the
//! ends of a pin and what "over" means.

mod audit;
mod child;
mod count;
mod drift;
mod drill;
mod environment;
mod hook;
mod join;
mod layer;
mod lease;
mod pin;
mod quota;
mod release;
mod request_id;
mod result;
mod route;
mod scratch;
mod session;
mod signal;
mod wait;

use std::collections::BTreeMap;

use pinrail_proto::log::{
    AgentRecord, BundleRecord, ClusterRecord, LayerRecord, RunRecord, StepRecord,
};
use prost::Message;

use crate::key::{Key, Kind, Parts, Timer};
use crate::step::is_closed;
use crate::store::{Fault, Order, Read, Row};
use crate::txn::{decode, get};

/// A promise that the state breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `P1` to `P8`, or what it is about where the specification has no number for it.
    pub promise: &'static str,
    pub detail: String,
}

/// Checks every promise that a single moment of the state can show.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn check(read: &dyn Read) -> Result<Vec<Violation>, Fault> {
    let cluster: ClusterRecord = get(read, &crate::apply::cluster_key())?.unwrap_or_default();
    let mut found = Found::default();
    let mut open_runs = 0;
    for (key, value) in rows(read, Key::new(Kind::Agent))? {
        let agent: AgentRecord = decode(&key, &value)?;
        open_runs += agent.open_runs;
        let scene = Scene::load(read, agent, cluster.now_ms, &mut found)?;
        lease::leases_are_on_the_pinned_bundle(&scene, &mut found)?;
        result::results_are_recorded_once(&scene, &mut found);
        route::route_leads_to_one_bundle(&scene, &mut found);
        pin::pins_end(&scene, &mut found);
        pin::timers_are_of_what_is_open(&scene, &mut found);
        pin::deadlines_are_behind_the_front(&scene, &mut found)?;
        count::counts_are_exact(&scene, &mut found)?;
        count::costs_hold_what_runs_used(&scene, &mut found)?;
        route::rollbacks_hold(&scene, &mut found);
        release::releases_are_what_the_agent_says(&scene, &mut found)?;
        drift::drift_is_counted(&scene, &mut found)?;
        signal::windows_hold_what_runs_say(&scene, &mut found)?;
        signal::firings_are_written_down(&scene, &mut found)?;
        signal::pins_say_who_is_idle(&scene, &mut found)?;
        environment::wants_are_told(&scene, &mut found);
        hook::hooks_follow_the_policy(&scene, &mut found)?;
        drill::drills_are_what_the_agent_says(&scene, &mut found)?;
        wait::waits_end_once(&scene, &mut found)?;
        session::sessions_go_on(&scene, &mut found)?;
        child::children_have_their_parents_pin(&scene, &mut found);
        join::fan_outs_join_once(&scene, &mut found)?;
        join::runs_are_what_their_steps_are(&scene, &mut found);
        layer::layers_form_a_tree(&scene, &mut found);
        layer::versions_are_of_known_layers(&scene, &mut found)?;
        layer::changes_lead_to_versions(&scene, &mut found)?;
        scratch::who_serves_no_user_has_a_memory_of_its_own(&scene, &mut found)?;
    }
    audit::the_audit_is_one_chain(read, &cluster, &mut found)?;
    request_id::request_ids_are_counted(read, &cluster, &mut found)?;
    if open_runs != cluster.open_runs {
        found.say("P5", format!("{open_runs} open runs in all, counted {}", cluster.open_runs));
    }
    quota::quotas_count_what_is_there(read, &mut found)?;
    Ok(found.0)
}

#[derive(Debug, Default)]
struct Found(Vec<Violation>);

impl Found {
    fn say(&mut self, promise: &'static str, detail: String) {
        self.0.push(Violation { promise, detail });
    }
}

/// Everything of one agent at one moment.
struct Scene<'a> {
    read: &'a dyn Read,
    now_ms: u64,
    agent: AgentRecord,
    bundles: BTreeMap<String, BundleRecord>,
    runs: BTreeMap<String, RunRecord>,
    steps: BTreeMap<(String, u32), StepRecord>,
    layers: BTreeMap<u32, LayerRecord>,
    timers: Vec<Due>,
}

/// A row of the deadline index.
struct Due {
    at_ms: u64,
    timer: Timer,
    object: Vec<u8>,
}

impl<'a> Scene<'a> {
    fn load(
        read: &'a dyn Read,
        agent: AgentRecord,
        now_ms: u64,
        found: &mut Found,
    ) -> Result<Self, Fault> {
        let number = agent.number;
        let of = |kind| Key::of(kind, number);
        let bundles: Vec<BundleRecord> = records(read, of(Kind::Bundle))?;
        let mut runs: Vec<RunRecord> = records(read, of(Kind::Run))?;
        let layers: Vec<LayerRecord> = records(read, of(Kind::Layer))?;
        let mut steps = BTreeMap::new();
        for (key, value) in rows(read, of(Kind::Step))? {
            let mut parts = Parts::new(&key);
            let (_, Some(run_id), Some(step)) = (parts.u32(), parts.text(), parts.u32()) else {
                return Err(broken(&key));
            };
            steps.insert((run_id.to_owned(), step), decode(&key, &value)?);
        }
        for run in &mut runs {
            let mut in_row = Vec::new();
            let mut before = run.ended_to;
            for ended in &run.ended {
                let step: StepRecord = decode(run.run_id.as_bytes(), &ended.record)?;
                let follows = before < ended.number && ended.number <= run.trunk;
                let belongs = follows && step.number == ended.number && is_closed(step.state());
                in_row.push((step, belongs && run.holds_ended));
                before = ended.number;
            }
            if let Some(open) = run.open_step.take() {
                let belongs = open.number == run.trunk && !is_closed(open.state());
                in_row.push((*open, belongs));
            }
            for (step, belongs) in in_row {
                let number = step.number;
                if steps.insert((run.run_id.clone(), number), step).is_some() || !belongs {
                    let detail =
                        format!("step {}/{number} does not belong in its run's row", run.run_id);
                    found.say("P2", detail);
                }
            }
        }
        let mut timers = Vec::new();
        for (key, _) in rows(read, of(Kind::Deadline))? {
            let mut parts = Parts::new(&key);
            let (_, at, timer) = (parts.u32(), parts.u64(), parts.u8());
            let (Some(at_ms), Some(timer)) = (at, timer.and_then(Timer::from_number)) else {
                return Err(broken(&key));
            };
            timers.push(Due { at_ms, timer, object: parts.rest().to_vec() });
        }
        Ok(Self {
            read,
            now_ms,
            agent,
            bundles: bundles.into_iter().map(|b| (b.bundle_id.clone(), b)).collect(),
            runs: runs.into_iter().map(|r| (r.run_id.clone(), r)).collect(),
            steps,
            layers: layers.into_iter().map(|l| (l.number, l)).collect(),
            timers,
        })
    }

    fn rows(&self, kind: Kind) -> Result<Vec<Row>, Fault> {
        rows(self.read, Key::of(kind, self.agent.number))
    }

    fn open_runs(&self) -> impl Iterator<Item = &RunRecord> {
        self.runs.values().filter(|run| !crate::run::is_over(run.state()))
    }

    /// The step that is in no branch, open or last.
    fn trunk_of(&self, run: &RunRecord) -> Option<&StepRecord> {
        self.steps.get(&(run.run_id.clone(), run.trunk))
    }

    fn steps_of(&self, run: &RunRecord) -> impl Iterator<Item = &StepRecord> {
        let all = (run.run_id.clone(), 0)..=(run.run_id.clone(), u32::MAX);
        self.steps.range(all).map(|(_, step)| step)
    }

    /// The steps of a run that something may still happen to.
    fn open_steps(&self, run: &RunRecord) -> impl Iterator<Item = &StepRecord> {
        self.steps_of(run).filter(|step| !is_closed(step.state()))
    }

    fn has_timer(&self, timer: Timer, at_ms: u64, object: &[u8]) -> bool {
        let same = |d: &Due| d.timer == timer && d.at_ms == at_ms && d.object == object;
        self.timers.iter().any(same)
    }
}

fn rows(read: &dyn Read, prefix: Key) -> Result<Vec<Row>, Fault> {
    read.scan(&prefix.range(), Order::Ascending, usize::MAX)
}

fn records<M: Message + Default>(read: &dyn Read, prefix: Key) -> Result<Vec<M>, Fault> {
    rows(read, prefix)?.iter().map(|(key, value)| decode(key, value)).collect()
}

fn broken(key: &[u8]) -> Fault {
    Fault(format!("key {} does not come apart", hex::encode(key)))
}

//! Whole-state checks, one function a promise of the specification. They scan everything: for tests, the
//! simulation and a node that is asked to look at itself.

use std::collections::BTreeMap;

use pinrail_proto::log::{AgentRecord, BundleRecord, LayerRecord, RunRecord, StepRecord};
use pinrail_proto::v1::StepState;
use prost::Message;

use crate::key::{Key, Kind, Parts};
use crate::run::{ends, is_over, pin_key};
use crate::store::{Fault, Order, Read, Row};
use crate::txn::decode;
use crate::{agent, bundle, step};

/// A promise that the state breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `P1` to `P8`.
    pub promise: &'static str,
    pub detail: String,
}

/// Checks every promise that a single moment of the state can show.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn check(read: &dyn Read) -> Result<Vec<Violation>, Fault> {
    let mut violations = Vec::new();
    for (key, value) in all(read, Kind::Agent)? {
        let record: AgentRecord = decode(&key, &value)?;
        let runs = runs_of(read, record.number)?;
        leases_are_on_the_pinned_bundle(read, &record, &mut violations)?;
        results_are_recorded_once(&record, read, &runs, &mut violations)?;
        route_leads_to_one_bundle(read, &record, &mut violations)?;
        pins_end(read, &record, &runs, &mut violations)?;
        counts_are_exact(read, &record, &runs, &mut violations)?;
        rejected_bundles_have_no_traffic(read, &record, &mut violations)?;
        layers_form_a_tree(read, &record, &mut violations)?;
    }
    Ok(violations)
}

/// P1: what is leased is leased under the bundle that its run is pinned to.
fn leases_are_on_the_pinned_bundle(
    read: &dyn Read,
    agent: &AgentRecord,
    violations: &mut Vec<Violation>,
) -> Result<(), Fault> {
    let mut leased = 0;
    for (key, _) in of_agent(read, Kind::Leased, agent.number)? {
        leased += 1;
        let mut parts = Parts::new(&key);
        let (_, Some(run_id), Some(number)) = (parts.u32(), parts.text(), parts.u32()) else {
            return Err(Fault("a lease's row does not come apart".to_owned()));
        };
        let run = crate::run::find(read, agent.number, run_id)?;
        let step = step::find(read, agent.number, run_id, number)?;
        let good = match (&run, &step) {
            (Some(run), Some(step)) => {
                step.state() == StepState::Leased
                    && step.bundle_id == run.bundle_id
                    && run.step == number
                    && !is_over(run.state())
            }
            (Some(_) | None, Some(_) | None) => false,
        };
        if !good {
            violate(violations, "P1", format!("lease of {run_id} step {number} is not its pin's"));
        }
    }
    if leased != agent.running_steps {
        violate(violations, "P1", format!("{leased} leases, counted {}", agent.running_steps));
    }
    Ok(())
}

/// P2: every finished step of a run has one result, and only the last step is open.
fn results_are_recorded_once(
    agent: &AgentRecord,
    read: &dyn Read,
    runs: &[RunRecord],
    violations: &mut Vec<Violation>,
) -> Result<(), Fault> {
    for run in runs.iter().filter(|run| !run.external) {
        for number in 1..run.step {
            let Some(step) = step::find(read, agent.number, &run.run_id, number)? else { continue };
            if step.state() != StepState::Completed || step.completion_digest.is_empty() {
                let detail = format!("step {number} of {} is behind and not completed", run.run_id);
                violate(violations, "P2", detail);
            }
        }
        let open: Option<StepRecord> = step::find(read, agent.number, &run.run_id, run.step)?;
        let closed = open.as_ref().is_none_or(|step| match step.state() {
            StepState::Completed | StepState::Failed | StepState::Cancelled => true,
            StepState::Unspecified
            | StepState::Ready
            | StepState::Leased
            | StepState::Backoff
            | StepState::Waiting
            | StepState::Dead => false,
        });
        if is_over(run.state()) && !closed {
            violate(violations, "P2", format!("{} is over and its step is open", run.run_id));
        }
    }
    Ok(())
}

/// P3: the route names a bundle that exists, and not the same one twice.
fn route_leads_to_one_bundle(
    read: &dyn Read,
    agent: &AgentRecord,
    violations: &mut Vec<Violation>,
) -> Result<(), Fault> {
    for id in [&agent.live_bundle_id, &agent.standby_bundle_id] {
        if !id.is_empty() && bundle::find(read, agent.number, id)?.is_none() {
            violate(violations, "P3", format!("the route names {id}, which is not there"));
        }
    }
    if !agent.live_bundle_id.is_empty() && agent.live_bundle_id == agent.standby_bundle_id {
        violate(violations, "P3", "live and standby are the same bundle".to_owned());
    }
    Ok(())
}

/// P4: each open pin has a timer at its end, each drain one at its deadline and one at its hard end.
fn pins_end(
    read: &dyn Read,
    agent: &AgentRecord,
    runs: &[RunRecord],
    violations: &mut Vec<Violation>,
) -> Result<(), Fault> {
    let mut due: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (key, _) in of_agent(read, Kind::Deadline, agent.number)? {
        let mut parts = Parts::new(&key);
        let (_, Some(at), Some(timer)) = (parts.u32(), parts.u64(), parts.u8()) else {
            return Err(Fault("a deadline's row does not come apart".to_owned()));
        };
        let mut name = vec![timer];
        name.extend_from_slice(parts.rest());
        due.insert(name, at);
    }
    let timer = |timer: crate::key::Timer, object: &str| {
        let mut name = vec![timer as u8];
        name.extend_from_slice(object.as_bytes());
        due.get(&name).copied()
    };
    for run in runs.iter().filter(|run| !is_over(run.state())) {
        if timer(crate::key::Timer::RunHardEnd, &run.run_id) != Some(run.expires_ms + run.grace_ms)
        {
            violate(violations, "P4", format!("the pin of {} has no end", run.run_id));
        }
    }
    for record in bundle::all(read, agent.number)? {
        let hard_ms = record.drain_deadline_ms + record.drain_grace_ms;
        let ends = timer(crate::key::Timer::DrainHard, &record.bundle_id) == Some(hard_ms);
        if record.drain_deadline_ms != 0 && bundle::open_pins(&record) > 0 && !ends {
            violate(violations, "P4", format!("the drain of {} has no end", record.bundle_id));
        }
        if record.bundle_id == agent.live_bundle_id && record.drain_deadline_ms != 0 {
            violate(violations, "P4", format!("{} is live and drains", record.bundle_id));
        }
    }
    Ok(())
}

/// P5: counters equal a recount, and the index of open pins holds each open run once.
fn counts_are_exact(
    read: &dyn Read,
    agent: &AgentRecord,
    runs: &[RunRecord],
    violations: &mut Vec<Violation>,
) -> Result<(), Fault> {
    let mut open: BTreeMap<&str, u64> = BTreeMap::new();
    for run in runs.iter().filter(|run| !is_over(run.state())) {
        *open.entry(&run.bundle_id).or_default() += 1;
        if read.get(&pin_key(agent.number, run))?.is_none() {
            violate(violations, "P5", format!("{} is open and has no pin row", run.run_id));
        }
    }
    let total: u64 = open.values().sum();
    let rows = of_agent(read, Kind::OpenPin, agent.number)?.len() as u64;
    if total != agent.open_runs || total != rows {
        let detail = format!("{total} open runs, counted {}, {rows} pin rows", agent.open_runs);
        violate(violations, "P5", detail);
    }
    for record in bundle::all(read, agent.number)? {
        let counted = bundle::open_pins(&record);
        let recount = open.get(record.bundle_id.as_str()).copied().unwrap_or(0);
        if counted != recount {
            let detail = format!("{}: {recount} open pins, counted {counted}", record.bundle_id);
            violate(violations, "P5", detail);
        }
    }
    Ok(())
}

/// P7: a bundle that was rolled back takes no new runs by the route.
fn rejected_bundles_have_no_traffic(
    read: &dyn Read,
    agent: &AgentRecord,
    violations: &mut Vec<Violation>,
) -> Result<(), Fault> {
    for record in bundle::all(read, agent.number)? {
        let routed = [&agent.live_bundle_id, &agent.standby_bundle_id].contains(&&record.bundle_id);
        if record.rejected && routed {
            violate(
                violations,
                "P7",
                format!("{} was rolled back and is routed", record.bundle_id),
            );
        }
    }
    Ok(())
}

/// P8: bases come before what stands on them, and what is seen of a base ends at its freeze.
fn layers_form_a_tree(
    read: &dyn Read,
    agent: &AgentRecord,
    violations: &mut Vec<Violation>,
) -> Result<(), Fault> {
    for (key, value) in of_agent(read, Kind::Layer, agent.number)? {
        let layer: LayerRecord = decode(&key, &value)?;
        for base in &layer.ancestors {
            let known = crate::memory::layer(read, agent.number, base.layer)?;
            let frozen = known.as_ref().is_some_and(|k| k.frozen_revision >= base.up_to_revision);
            if !frozen || base.layer == layer.number {
                let detail =
                    format!("layer {} stands on {}, which may change", layer.number, base.layer);
                violate(violations, "P8", detail);
            }
        }
    }
    Ok(())
}

/// Whether a run is past its hard end at `now` and still open: only a sweep that lags may show it.
#[must_use]
pub fn overdue_ms(run: &RunRecord, bundle: &BundleRecord, now: u64) -> u64 {
    if is_over(run.state()) { 0 } else { now.saturating_sub(ends(run, bundle).hard_ms) }
}

/// How late the sweep is, over all agents: the largest time that an open pin is past its hard end.
///
/// # Errors
/// A [`Fault`] when the store cannot answer.
pub fn most_overdue_ms(read: &dyn Read, now: u64) -> Result<u64, Fault> {
    let mut most = 0;
    for (key, value) in all(read, Kind::Agent)? {
        let record: AgentRecord = decode(&key, &value)?;
        for run in runs_of(read, record.number)? {
            if let Some(bundle) = bundle::find(read, record.number, &run.bundle_id)? {
                most = most.max(overdue_ms(&run, &bundle, now));
            }
        }
    }
    Ok(most)
}

fn violate(violations: &mut Vec<Violation>, promise: &'static str, detail: String) {
    violations.push(Violation { promise, detail });
}

fn runs_of(read: &dyn Read, number: u32) -> Result<Vec<RunRecord>, Fault> {
    debug_assert!(agent::by_number(read, number)?.is_some(), "agents are found by their own rows");
    records(&of_agent(read, Kind::Run, number)?)
}

fn records<M: Message + Default>(rows: &[Row]) -> Result<Vec<M>, Fault> {
    rows.iter().map(|(key, value)| decode(key, value)).collect()
}

fn all(read: &dyn Read, kind: Kind) -> Result<Vec<Row>, Fault> {
    read.scan(&Key::new(kind).range(), Order::Ascending, usize::MAX)
}

fn of_agent(read: &dyn Read, kind: Kind, number: u32) -> Result<Vec<Row>, Fault> {
    read.scan(&Key::of(kind, number).range(), Order::Ascending, usize::MAX)
}

//! Runs: executions of an agent, each pinned to the bundle that it started on.
//!
//! ```text
//!  queued ──lease──> running ──done──> completed
//!    │                 │ └─attempts used up─> failed, or paused ──retry──> queued
//!    │                 └─soft end, cancel──> cancelling ──grace──> cancelled | expired
//!    └──soft end, cancel──> cancelled | expired
//!  running ──wait──> waiting ──signal, timer, child──> queued, or its end as from queued
//!  scheduled ──due──> queued           running ──continue as new──> continued
//!  queued ──pause──> paused ──resume──> queued
//! ```
//! Every command that touches a run settles it first (`settle.rs`): the rollback's mark and the ends of its pin
//! count at that moment, whether or not a sweep has come by.

mod begin;
mod busy;
mod cancel;
mod child;
pub(crate) mod clip;
mod close;
mod continued;
mod cost;
mod delay;
mod ended;
mod finish;
mod finished;
mod index;
mod pause;
mod payloads;
mod repin;
mod restart;
mod retention;
mod retry;
mod row;
mod score;
pub(crate) mod session;
mod settle;
mod signal;
mod start;
mod state;
mod usage;

use pinrail_proto::log::{AgentRecord, BundleRecord, RunRecord, StepRecord};
use pinrail_proto::{reason, v1};

use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Stop, reject};
use crate::shared::Shared;
use crate::step::lies_in_run;
use crate::store::Fault;
use crate::txn::Txn;
use crate::{agent, bundle};

pub(crate) use begin::follow_soft_end;
pub(crate) use busy::{busy_ms, busy_of_pin, cost_here, pin_record};
pub(crate) use cancel::{cancel, cancel_if_ending, stop_if_ending};
pub(crate) use child::{child_id, child_key, end_children, start_awaited};
pub(crate) use close::{End, close};
pub(crate) use continued::continue_as_new;
pub(crate) use ended::put_ended;
pub(crate) use finish::{finish, keep};
pub(crate) use index::{kind_prefix, label_prefix, lasting_keys, state_key, state_prefix};
pub(crate) use pause::{pause, resume};
pub(crate) use payloads::{input, output, put_output};
pub(crate) use repin::repin;
pub(crate) use retention::forget;
pub(crate) use retry::retry;
pub(crate) use row::{find, save, split, step_in_row};
use row::{open_of, take};
pub(crate) use score::score;
pub(crate) use settle::{ends, settle};
pub(crate) use signal::{signal, take_room};
pub(crate) use start::{check as check_start, choose, start};
use state::follow;
pub(crate) use state::{is_over, set_state, state_of_steps};
pub(crate) use usage::add as add_usage;

/// A run and what its commands read and change with it.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) agent: Shared<AgentRecord>,
    /// The bundle that the run is pinned to; none before a delayed run is due.
    pub(crate) bundle: Shared<BundleRecord>,
    pub(crate) run: Shared<RunRecord>,
    /// The step that the command is about; where it is about none, the one in no branch, open or last. None for
    /// external runs.
    pub(crate) step: Option<Shared<StepRecord>>,
}

impl Subject {
    /// Loads a run by its agent's number; `None` when there is no such run.
    pub(crate) fn find(txn: &Txn<'_>, agent: u32, run_id: &str) -> Result<Option<Self>, Stop> {
        let Some(run) = take(txn, agent, run_id)? else { return Ok(None) };
        let step = match run.trunk {
            0 => None,
            number => crate::step::take(txn, agent, run_id, number)?,
        };
        Self::with(txn, agent, run, step).map(Some)
    }

    /// A run that was read, with its agent and its bundle.
    fn with(
        txn: &Txn<'_>,
        agent: u32,
        run: Shared<RunRecord>,
        step: Option<Shared<StepRecord>>,
    ) -> Result<Self, Stop> {
        let agent = agent::lend(txn, agent)?;
        let bundle = match run.bundle_id.as_str() {
            "" => Shared::default(),
            pinned => bundle::lend(txn.read(), agent.number, pinned)?,
        };
        Ok(Self { agent, bundle, run, step })
    }

    /// Loads a run for a command about one of its steps; `None` when there is no such run or step.
    pub(crate) fn at(
        txn: &Txn<'_>,
        agent: u32,
        run_id: &str,
        step: u32,
    ) -> Result<Option<Self>, Stop> {
        let Some(step) = crate::step::take(txn, agent, run_id, step)? else { return Ok(None) };
        let Some(run) = take(txn, agent, run_id)? else { return Ok(None) };
        Self::with(txn, agent, run, Some(step)).map(Some)
    }

    /// Writes the present step back and goes on with another one of the run.
    pub(crate) fn go_on_with(&mut self, txn: &mut Txn<'_>, step: Shared<StepRecord>) {
        self.write_step(txn);
        self.step = Some(step);
    }

    /// Writes the present step back: where it lies in the run's row, that is written with the subject.
    pub(crate) fn write_step(&mut self, txn: &mut Txn<'_>) {
        if let Some(step) = &self.step {
            crate::step::save(txn, self.agent.number, &mut self.run, step);
        }
    }

    /// # Errors
    /// `RUN_NOT_FOUND`.
    pub(crate) fn load(txn: &Txn<'_>, agent: &AgentRecord, run_id: &str) -> Result<Self, Stop> {
        Self::find(txn, agent.number, run_id)?.ok_or_else(|| not_found(run_id))
    }

    /// Writes back everything that a command may have changed.
    ///
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    pub(crate) fn save(&mut self, txn: &mut Txn<'_>) -> Result<(), Fault> {
        let run: &mut RunRecord = &mut self.run;
        run.revision = txn.revision;
        run.changed_ms = txn.now;
        follow(txn, self);
        busy::follow(txn, self);
        agent::give_back(txn, &self.agent);
        if !self.run.bundle_id.is_empty() {
            bundle::give_back(txn, self.agent.number, &self.bundle);
        }
        // A step that lies in the run's row is written with it.
        if self.step.as_ref().is_some_and(|step| !lies_in_run(step)) {
            self.write_step(txn);
        }
        self.write_run(txn)
    }

    /// Writes the run back, with the step of its trunk where that lies in its row.
    ///
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    pub(crate) fn write_run(&self, txn: &mut Txn<'_>) -> Result<(), Fault> {
        let agent = self.agent.number;
        let open = match &self.step {
            Some(step) if step.number == self.run.trunk => {
                Some(step.clone()).filter(|step| lies_in_run(step))
            }
            Some(_) | None => open_of(txn.read(), agent, &self.run)?,
        };
        save(txn, agent, &self.run, open.as_ref());
        Ok(())
    }
}

pub(crate) fn not_found(run_id: &str) -> Stop {
    reject(reason::RUN_NOT_FOUND, format!("there is no run {run_id:?}"))
}

/// Place of an open pin among those of its bundle.
pub(crate) fn pin_key(agent: u32, run: &RunRecord) -> RowKey {
    Key::of(Kind::OpenPin, agent).text(&run.bundle_id).u64(run.pinned_ms).last(&run.run_id)
}

/// Whether a pin may still move: a rollback with `restart` takes open runs that workers
/// execute to the good bundle, if they serve a user.
pub(crate) fn is_movable(run: &RunRecord) -> bool {
    !run.external && run.kind().serves_users() && !is_over(run.state())
}

/// The API's view of a pin.
pub(crate) fn pin_message(run: &RunRecord, bundle: &BundleRecord) -> v1::Pin {
    use pinrail_proto::time::timestamp;
    let ends = ends(run, bundle);
    v1::Pin {
        run_id: run.run_id.clone(),
        bundle_id: run.bundle_id.clone(),
        layer: u64::from(run.scratch.map_or(run.layer, |scratch| scratch.base_layer)),
        memory_revision: run.scratch.map_or(0, |scratch| scratch.base_revision),
        reason: run.pin_reason,
        pinned_at: timestamp(run.pinned_ms),
        expires_at: timestamp(run.expires_ms),
        soft_end: timestamp(ends.soft_ms),
        hard_end: timestamp(ends.hard_ms),
        epoch: run.epoch,
        endpoint: bundle.endpoint.clone(),
        movable: is_movable(run),
        revision: run.pinned_revision,
    }
}

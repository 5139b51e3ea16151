//! The table of contents of the state machine: every command, and the one function that carries it out.
//!
//! Apply is synchronous and total. It reads no clock, no randomness and no environment; whatever decides
//! anything is in the command or in the state. A command that cannot succeed is answered with a rejection.

use std::cell::RefCell;

use bytes::Bytes;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, ClusterRecord};
use pinrail_proto::reason;
use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Applied, Stop, reject};
use crate::overlay::Overlay;
use crate::records::{Record, Records};
use crate::shared::Shared;
use crate::store::{Fault, KeyRange, Order, Read, Row, Writes};
use crate::txn::{Finished, Txn, get};
use crate::{
    agent, audit, bundle, cluster, dedupe, drift, drill, eval, hook, memory, namespace, release,
    route, run, signal, step, tick,
};

/// Applies batches on top of a store. What it wrote is taken with [`Machine::finish`] and must reach the store
/// together with the log position that it belongs to.
#[derive(Debug)]
pub struct Machine<'a> {
    base: Base<'a>,
    /// Lent to each command.
    cluster: Shared<ClusterRecord>,
}

/// What commands read and what they have written so far.
#[derive(Debug)]
struct Base<'a> {
    overlay: Overlay<'a>,
    records: RefCell<Records>,
}

impl Base<'_> {
    fn absorb(&mut self, finished: Finished) {
        let records = self.records.get_mut();
        let mut kept = finished.records;
        kept.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for key in finished.writes.keys() {
            if kept.binary_search_by(|(kept, _)| kept.cmp(key)).is_err() {
                records.remove(key);
            }
        }
        for (key, record) in kept {
            match record {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            }
        }
        self.overlay.absorb(finished.writes, finished.late);
    }

    /// Writes what the commands of an entry made of the records that many of them change. What was written.
    fn catch_up(&mut self) -> Writes {
        let mut written = Writes::new();
        for (key, late) in self.overlay.take_late() {
            let row = late.encode();
            self.records.get_mut().insert(key.clone(), late.record());
            self.overlay.put(key.clone(), row.clone());
            written.insert(key, Some(row));
        }
        written
    }
}

impl Read for Base<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.overlay.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, limit: usize) -> Result<Vec<Row>, Fault> {
        self.overlay.scan(range, order, limit)
    }

    fn kept(&self, key: &[u8]) -> Option<Record> {
        self.overlay.late_record(key).or_else(|| self.records.borrow_mut().get(key))
    }

    fn taken(&self, key: &[u8]) -> Option<Record> {
        self.overlay.late_record(key).or_else(|| self.records.borrow_mut().take(key))
    }

    fn keep(&self, key: &[u8], record: Record) {
        self.records.borrow_mut().insert(RowKey::from_slice(key), record);
    }
}

/// The writes of all batches since the machine was opened, in key order, and the cluster row after them; and what the next
/// machine that is opened on the same store may begin with.
#[derive(Debug)]
pub struct Written {
    pub writes: Writes,
    pub cluster: ClusterRecord,
    pub records: Records,
}

impl<'a> Machine<'a> {
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    pub fn open(store: &'a dyn Read) -> Result<Self, Fault> {
        Self::open_with(store, Records::default())
    }

    /// `records` are those of the machine before, if nothing else has written to the store since.
    ///
    /// # Errors
    /// A [`Fault`] when the store cannot answer.
    pub fn open_with(store: &'a dyn Read, records: Records) -> Result<Self, Fault> {
        let cluster = get::<ClusterRecord>(store, &cluster_key())?.unwrap_or_default().into();
        let base = Base { overlay: Overlay::new(store), records: RefCell::new(records) };
        Ok(Self { base, cluster })
    }

    /// Applies one log entry's encoded `Batch`.
    ///
    /// # Errors
    /// A [`Fault`] when the store cannot answer, or when the batch holds a command that this binary does not
    /// know: a replica that skipped it would differ from the others.
    pub fn apply_batch(&mut self, batch: &Bytes) -> Result<Vec<Applied>, Fault> {
        let batch = log::Batch::decode(batch.clone())
            .map_err(|error| Fault(format!("log entry does not decode: {error}")))?;
        self.cluster.now_ms = self.cluster.now_ms.max(batch.stamp_ms);
        // Collecting would reuse the room of the commands, which are smaller, and move all of it as it grows.
        let mut applied = Vec::with_capacity(batch.commands.len());
        for command in &batch.commands {
            applied.push(self.apply_command(command)?);
        }
        let written = self.base.catch_up();
        if !written.is_empty() {
            self.cluster.state_hash = chain(&self.cluster, &written);
        }
        Ok(applied)
    }

    #[must_use]
    pub fn cluster(&self) -> &ClusterRecord {
        &self.cluster
    }

    /// What was written, the cluster row included.
    #[must_use]
    pub fn finish(self) -> Written {
        let Base { mut overlay, records } = self.base;
        overlay.put(cluster_key(), Bytes::from(self.cluster.encode_to_vec()));
        let records = records.into_inner();
        Written { writes: overlay.into_writes(), cluster: self.cluster.into_inner(), records }
    }

    fn apply_command(&mut self, encoded: &Bytes) -> Result<Applied, Fault> {
        let command = log::Command::decode(encoded.clone())
            .map_err(|error| Fault(format!("command does not decode: {error}")))?;
        let mut kind = command.kind.ok_or_else(|| {
            Fault(
                "the log holds a command that this binary does not know: it is too old".to_owned(),
            )
        })?;
        let header = command.header.unwrap_or_default();
        self.cluster.revision += 1;
        let revision = self.cluster.revision;

        let mut txn = Txn::new(&self.base, self.cluster.clone(), header);
        let result = dedupe::once(&mut txn, &mut kind, |txn, kind| {
            judge_cluster(txn, kind)?;
            let watched = audit::watch(txn, kind)?;
            let answer = carry_out(txn, kind)?;
            agent::settle_leases(txn)?;
            bundle::announce_wanted(txn)?;
            audit::record(txn, watched)?;
            Ok(answer)
        });
        let dry_run = txn.header.dry_run;
        let (answer, finished) = match result {
            Ok(answer) if dry_run => (answer, None),
            Ok(answer) => (answer, Some(txn.finish())),
            Err(Stop::Rejected(rejection)) => (Answer::Rejection(rejection), None),
            Err(Stop::Fault(fault)) => return Err(fault),
        };
        let mut effects = Vec::new();
        if let Some(mut finished) = finished {
            self.cluster = finished.cluster.clone();
            effects = std::mem::take(&mut finished.effects);
            let hash = chain(&self.cluster, &finished.writes);
            self.base.absorb(finished);
            self.cluster.state_hash = hash;
        } else {
            self.cluster.state_hash = chain(&self.cluster, &Writes::new());
        }
        Ok(Applied { outcome: log::Outcome { revision, result: Some(answer) }, effects })
    }
}

pub(crate) fn cluster_key() -> RowKey {
    Key::new(Kind::Cluster).build()
}

/// The next link of the state hash: XXH3-128 over the last one, the revision, the time and the ordered writes.
/// It finds replicas that diverged; it is no protection against an attacker.
fn chain(cluster: &ClusterRecord, writes: &Writes) -> Bytes {
    let mut hash = Xxh3::new();
    hash.update(&cluster.state_hash);
    hash.update(&cluster.revision.to_be_bytes());
    hash.update(&cluster.now_ms.to_be_bytes());
    for (key, value) in writes {
        hash.update(&(key.len() as u64).to_be_bytes());
        hash.update(key);
        match value {
            Some(value) => {
                hash.update(&(value.len() as u64).to_be_bytes());
                hash.update(value);
            }
            None => hash.update(&u64::MAX.to_be_bytes()),
        }
    }
    Bytes::copy_from_slice(&hash.digest128().to_be_bytes())
}

/// Before the cluster was formed, only its formation is accepted.
fn judge_cluster(txn: &Txn<'_>, command: &Command) -> Result<(), Stop> {
    if txn.cluster.incarnation == 0 && !matches!(command, Command::InitCluster(_)) {
        return Err(reject(reason::NOT_BOOTSTRAPPED, "the cluster has not been formed yet"));
    }
    Ok(())
}

fn carry_out(txn: &mut Txn<'_>, command: &mut Command) -> Result<Answer, Stop> {
    match command {
        Command::InitCluster(it) => cluster::init(txn, it),
        Command::RecoverCluster(it) => cluster::recover(txn, it),
        Command::SetFeatureLevel(it) => cluster::set_feature_level(txn, it),
        Command::Probe(it) => cluster::probe(txn, it),
        Command::CreateNamespace(it) => namespace::create(txn, it),
        Command::UpdateNamespace(it) => namespace::update(txn, it),
        Command::DeleteNamespace(it) => namespace::delete(txn, it),
        Command::CreateAgent(it) => agent::create(txn, it),
        Command::UpdateAgent(it) => agent::update(txn, it),
        Command::DeleteAgent(it) => agent::delete(txn, it),
        Command::PauseAgent(it) => agent::pause(txn, it),
        Command::ResumeAgent(it) => agent::resume(txn, it),
        Command::SetEnvironment(it) => bundle::set_environment(txn, it),
        Command::CreateBundle(it) => bundle::create(txn, it),
        Command::StartRun(it) => run::start(txn, it),
        Command::CancelRun(it) => run::cancel(txn, it),
        Command::FinishRun(it) => run::finish(txn, it),
        Command::KeepRun(it) => run::keep(txn, it),
        Command::ScoreRun(it) => run::score(txn, it),
        Command::RetryRun(it) => run::retry(txn, it),
        Command::SignalRun(it) => run::signal(txn, it),
        Command::EndSession(it) => run::session::end(txn, it),
        Command::RepinRun(it) => run::repin(txn, it),
        Command::PauseRun(it) => run::pause(txn, it),
        Command::ResumeRun(it) => run::resume(txn, it),
        Command::LeaseStep(it) => step::lease(txn, it),
        Command::CompleteStep(it) => step::complete(txn, it),
        Command::FailStep(it) => step::fail(txn, it),
        Command::RecordCheckpoint(it) => step::checkpoint(txn, it),
        Command::HandBackStep(it) => step::hand_back(txn, it),
        Command::ExpireLease(it) => step::expire(txn, it),
        Command::PutMemory(it) => memory::put(txn, it),
        Command::DeleteMemory(it) => memory::delete(txn, it),
        Command::PromoteMemory(it) => memory::promote(txn, it),
        Command::DiscardMemory(it) => memory::discard(txn, it),
        Command::Switch(it) => route::switch(txn, it),
        Command::Rollback(it) => route::rollback(txn, it),
        Command::SetDrain(it) => route::set_drain(txn, it),
        Command::ReportDrift(it) => drift::report(txn, it),
        Command::ClearDrift(it) => drift::clear(txn, it),
        Command::AcceptDrift(it) => drift::accept(txn, it),
        Command::StartRelease(it) => release::start(txn, it),
        Command::RecordVerdict(it) => release::record_verdict(txn, it),
        Command::AdvanceCanary(it) => release::advance_canary(txn, it),
        Command::PromoteRelease(it) => release::promote(txn, it),
        Command::HoldRelease(it) => release::hold(txn, it),
        Command::ResumeRelease(it) => release::resume(txn, it),
        Command::AbortRelease(it) => release::abort(txn, it),
        Command::ExtendQuarantine(it) => release::extend_quarantine(txn, it),
        Command::RecycleBundle(it) => release::recycle(txn, it),
        Command::FireSignal(it) => signal::fire(txn, it),
        Command::ClearSignal(it) => signal::clear(txn, it),
        Command::AckSignal(it) => signal::ack(txn, it),
        Command::MuteSignal(it) => signal::mute(txn, it),
        Command::StartDrill(it) => drill::start(txn, it),
        Command::RecordDrill(it) => drill::record(txn, it),
        Command::TurnRoute(it) => drill::turn_route(txn, it),
        Command::ScheduleDrill(it) => drill::schedule(txn, it),
        Command::AbortDrill(it) => drill::abort(txn, it),
        Command::Tick(it) => tick::tick(txn, it),
        Command::CreateEvalSet(it) => eval::create_set(txn, it),
        Command::SubmitEvalReport(it) => eval::submit_report(txn, it),
        Command::RecordDeliveries(it) => hook::record(txn, it),
        Command::Redeliver(it) => hook::redeliver(txn, it),
    }
}

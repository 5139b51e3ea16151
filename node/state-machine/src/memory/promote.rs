//! Carrying what a layer has of its own over to a bundle: what a rollback hid, or what came late.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, LayerRecord, MemoryRecord, PromoteMemory};
use pinrail_proto::v1::{OnConflict, PromoteMemoryResponse};
use pinrail_proto::{limits, reason};

use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, bundle, event};

use super::layer::named;
use super::write::{end_in_time, must_fit};
use super::{Chain, Found, Keys, Place, View, candidate, cost, late_behind, layer, version};

/// What is to be done with a key.
enum Verdict {
    Promote,
    Same,
    Conflict,
}

/// Two layers of an agent while one is carried over to the other.
struct Transfer {
    agent: AgentRecord,
    /// What the source sees, to tell what the two had in common.
    from: View,
    to: View,
    target: LayerRecord,
    on_conflict: OnConflict,
    done: PromoteMemoryResponse,
    bytes: usize,
}

pub(crate) fn promote(txn: &mut Txn<'_>, it: &PromoteMemory) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let from = it.from.clone().unwrap_or_default();
    let source = named(txn, &agent, &from.bundle_id, from.layer)?;
    let to_bundle_id = if it.to_bundle_id.is_empty() {
        agent.live_bundle_id.clone()
    } else {
        it.to_bundle_id.clone()
    };
    if to_bundle_id.is_empty() {
        return Err(reject(reason::NO_LIVE_BUNDLE, "no bundle is live: name one"));
    }
    let mut to = bundle::load(txn, agent.number, &to_bundle_id)?;
    let target = candidate(txn, &mut agent, &mut to);
    if target == source.number {
        return Err(reject(reason::INVALID_REQUEST, "a layer is not carried over to itself"));
    }
    let behind = match it.late {
        true => late_behind(txn.read(), &agent, &source)?.unwrap_or(u64::MAX),
        false => 0,
    };
    let view = |agent: &AgentRecord, number| View::open(txn.read(), agent, number, 0, txn.now);
    let mut transfer = Transfer {
        from: view(&agent, source.number)?,
        to: view(&agent, target)?,
        target: layer(txn.read(), agent.number, target)?.unwrap_or_default(),
        on_conflict: it.on_conflict(),
        done: PromoteMemoryResponse {
            from_layer: u64::from(source.number),
            to_layer: u64::from(target),
            revision: txn.revision,
            ..PromoteMemoryResponse::default()
        },
        agent,
        bytes: 0,
    };
    transfer.run(txn, it, &source, behind)?;
    let Transfer { agent, target, done, .. } = transfer;
    if done.promoted > 0 {
        agent::save(txn, &agent);
        version::save_layer(txn, agent.number, &target);
    }
    // An earlier batch may have skipped keys, which are late still.
    let none_skipped =
        it.on_conflict() != OnConflict::Skip || (it.after_key.is_empty() && done.skipped == 0);
    let is_last = it.late && it.prefix.is_empty() && done.next_key.is_empty();
    if is_last && none_skipped && source.late_writes > 0 {
        let settled = LayerRecord { late_writes: 0, ..source };
        version::save_layer(txn, agent.number, &settled);
    }
    if done.promoted > 0 || done.skipped > 0 {
        txn.event(
            event::of_bundle("memory.promoted", &agent, &to_bundle_id)
                .with("from_layer", done.from_layer)
                .with("to_layer", done.to_layer)
                .with("promoted", done.promoted)
                .with("skipped", done.skipped),
        );
    }
    Ok(Answer::PromoteMemory(done))
}

impl Transfer {
    fn run(
        &mut self,
        txn: &mut Txn<'_>,
        it: &PromoteMemory,
        source: &LayerRecord,
        behind: u64,
    ) -> Result<(), Stop> {
        let number = self.agent.number;
        let mut keys = Keys::of(number, [Place::Layer(source.number)], &it.prefix, &it.after_key);
        let mut last = String::new();
        for _ in 0..limits::MEMORY_BATCH_KEYS {
            let Some(key) = keys.next(txn.read())? else { return self.refuse_conflicts() };
            let newest = Chain::of(number, &key).next_of(txn.read(), source.number)?;
            if let Some(newest) = newest.filter(|newest| newest.revision > behind) {
                let bytes = newest.record.value.as_ref().map_or(0, |value| value.data.len());
                if self.bytes > 0 && self.bytes + bytes > limits::MEMORY_BATCH_BYTES {
                    break;
                }
                self.bytes += bytes;
                self.carry(txn, &key, newest)?;
            }
            last = key;
        }
        if keys.next(txn.read())?.is_some() || self.bytes > 0 {
            self.done.next_key = last;
        }
        self.refuse_conflicts()
    }

    fn carry(&mut self, txn: &mut Txn<'_>, key: &str, newest: Found) -> Result<(), Stop> {
        match self.judge(txn, key, &newest)? {
            Verdict::Same => self.done.same += 1,
            Verdict::Conflict if self.on_conflict != OnConflict::Overwrite => {
                self.done.skipped += 1;
                if self.done.conflicts.len() < limits::MEMORY_CONFLICTS {
                    self.done.conflicts.push(key.to_owned());
                }
            }
            Verdict::Promote | Verdict::Conflict => {
                let record = MemoryRecord {
                    layer: self.target.number,
                    written_ms: txn.now,
                    run_id: String::new(),
                    ..newest.record
                };
                must_fit(txn, &self.agent, cost(key, &record))?;
                end_in_time(txn, self.agent.number, key, record.expires_ms);
                version::store(txn, &mut self.agent, &mut self.target, key, &record)?;
                self.done.promoted += 1;
            }
        }
        Ok(())
    }

    /// The target's version is in the way unless the source saw it too when it wrote its own.
    fn judge(&self, txn: &Txn<'_>, key: &str, newest: &Found) -> Result<Verdict, Stop> {
        if newest.record.ended || self.to.is_over(&newest.record) {
            // Its time was over: there is nothing to carry, whether or not a sweep has come by.
            return Ok(Verdict::Same);
        }
        let Some(current) = self.to.newest(txn.read(), key)? else {
            return Ok(if newest.record.value.is_none() {
                Verdict::Same
            } else {
                Verdict::Promote
            });
        };
        let over = self.to.is_over(&current.record);
        let value = current.record.value.as_ref().filter(|_| !over);
        if value == newest.record.value.as_ref() {
            return Ok(Verdict::Same);
        }
        // What is over counts as deleted now, as the sweep will say.
        let revision = if over { txn.revision } else { current.revision };
        let shared = self.from.sees(&Found { revision, record: current.record });
        Ok(if shared { Verdict::Promote } else { Verdict::Conflict })
    }

    fn refuse_conflicts(&self) -> Result<(), Stop> {
        let fails = matches!(self.on_conflict, OnConflict::Unspecified | OnConflict::Fail);
        if !fails || self.done.conflicts.is_empty() {
            return Ok(());
        }
        let keys = self.done.conflicts.join(", ");
        let message =
            format!("the target has its own versions of {} keys: {keys}", self.done.skipped);
        Err(reject(reason::MEMORY_CONFLICT, message).with("conflicts", self.done.skipped))
    }
}

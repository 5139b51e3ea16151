//! One command at work: typed reads and writes over the state, its revision, its time, its events and effects.
//! A rejected command's transaction is dropped, so it cannot have changed anything.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use bytes::Bytes;
use pinrail_proto::encode;
use pinrail_proto::log::{ClusterRecord, EventRecord, Header};
use prost::Message;

use crate::effect::Effect;
use crate::front;
use crate::key::{Key, Kind, RowKey, Timer};
use crate::level;
use crate::mutant::{Mutant, is_planted};
use crate::overlay::{LateRows, Overlay};
use crate::records::Record;
use crate::shared::Shared;
use crate::store::{Fault, KeyRange, Order, Read, Row, Writes};

/// Decodes a stored record; bytes that do not decode are a fault of this node.
pub(crate) fn decode<M: Message + Default>(what: &[u8], value: &Bytes) -> Result<M, Fault> {
    M::decode(value.clone()).map_err(|error| Fault(format!("row {}: {error}", hex::encode(what))))
}

/// What a row is decoded to.
pub trait Decoded: Message + Default + Clone + PartialEq + Debug + 'static {}

impl<M: Message + Default + Clone + PartialEq + Debug + 'static> Decoded for M {}

/// Reads a record.
///
/// # Errors
/// A [`Fault`] when the store cannot answer or the row does not decode.
pub fn get<M: Decoded>(read: &dyn Read, key: &[u8]) -> Result<Option<M>, Fault> {
    Ok(shared(read, key)?.map(Shared::into_inner))
}

/// Reads a record that nobody is going to change: where records are kept, it is not copied.
///
/// # Errors
/// As [`get`].
pub(crate) fn shared<M: Decoded>(read: &dyn Read, key: &[u8]) -> Result<Option<Shared<M>>, Fault> {
    if let Some(record) = checked(read.kept(key), || stored(read, key))? {
        return Ok(Some(record));
    }
    let Some(record) = stored::<M>(read, key)?.map(Arc::new) else { return Ok(None) };
    read.keep(key, Arc::clone(&record) as Record);
    Ok(Some(record.into()))
}

/// A record that was kept, which is what is in the store.
pub(crate) fn checked<M: Decoded>(
    kept: Option<Record>,
    stored: impl FnOnce() -> Result<Option<M>, Fault>,
) -> Result<Option<Shared<M>>, Fault> {
    let Some(record) = kept.and_then(|kept| kept.downcast::<M>().ok()) else { return Ok(None) };
    debug_assert_eq!(stored()?.as_ref(), Some(&*record), "it is what is in the store");
    Ok(Some(record.into()))
}

fn stored<M: Decoded>(read: &dyn Read, key: &[u8]) -> Result<Option<M>, Fault> {
    read.get(key)?.map(|value| decode(key, &value)).transpose()
}

pub(crate) struct Txn<'a> {
    overlay: Overlay<'a>,
    /// Rows of bundles of which something else may be wanted now.
    unsettled: BTreeSet<RowKey>,
    /// Marks that were there before this command, which deletes them unless it puts them again.
    unmarked: Vec<RowKey>,
    /// By agent: leases that this command gave, less those that it ended.
    leases: Vec<(u32, i64)>,
    pub(crate) cluster: Shared<ClusterRecord>,
    /// Of this command.
    pub(crate) revision: u64,
    /// Cluster time in milliseconds: the only clock.
    pub(crate) now: u64,
    pub(crate) header: Header,
    events: Vec<EventRecord>,
    effects: Vec<Effect>,
}

/// What a successful transaction leaves.
pub(crate) struct Finished {
    pub(crate) writes: Writes,
    /// What some of the writes were encoded from. None: what was kept is to be forgotten.
    pub(crate) records: Vec<(RowKey, Option<Record>)>,
    /// What later commands of the same log entry may change again.
    pub(crate) late: LateRows,
    pub(crate) cluster: Shared<ClusterRecord>,
    pub(crate) effects: Vec<Effect>,
}

impl<'a> Txn<'a> {
    pub(crate) fn new(base: &'a dyn Read, cluster: Shared<ClusterRecord>, header: Header) -> Self {
        let (revision, now) = (cluster.revision, cluster.now_ms);
        Self {
            overlay: Overlay::new(base),
            unsettled: BTreeSet::new(),
            unmarked: vec![],
            leases: vec![],
            cluster,
            revision,
            now,
            header,
            events: vec![],
            effects: vec![],
        }
    }

    pub(crate) fn get<M: Decoded>(&self, key: &[u8]) -> Result<Option<M>, Fault> {
        get(&self.overlay, key)
    }

    pub(crate) fn exists(&self, key: &[u8]) -> Result<bool, Fault> {
        Ok(self.overlay.get(key)?.is_some())
    }

    pub(crate) fn put<M: Message>(&mut self, key: RowKey, record: &M) {
        self.overlay.put(key, Bytes::from(encode(record)));
    }

    /// Puts a record that commands are likely to read again soon.
    pub(crate) fn put_kept<M: Decoded>(&mut self, key: RowKey, record: &Shared<M>) {
        let value = Bytes::from(encode(&**record));
        self.overlay.put_kept(key, value, record.arc());
    }

    /// Puts a record that many commands read and change: it is not written when it is what is there, and what commands of one
    /// log entry make of it is written once.
    pub(crate) fn put_changed<M: Decoded>(&mut self, key: RowKey, record: &M) {
        if self.before(&key).as_deref() != Some(record) {
            self.put_late(key, &record.clone().into());
        }
    }

    /// The same of one that is shared.
    pub(crate) fn put_back<M: Decoded>(&mut self, key: RowKey, record: &Shared<M>) {
        if self.before(&key).as_ref() != Some(record) {
            self.put_late(key, record);
        }
    }

    /// As [`Self::put_kept`], of a row that holds more than its record.
    pub(crate) fn put_joined<M: Decoded>(&mut self, key: RowKey, row: Bytes, record: &Shared<M>) {
        self.overlay.put_kept(key, row, record.arc());
    }

    /// Puts a record that is encoded already.
    pub(crate) fn put_encoded(&mut self, key: RowKey, record: Bytes) {
        self.overlay.put(key, record);
    }

    /// Forgets what is kept of a record that lies in another one's row: that row says what it is from here on.
    pub(crate) fn forget(&mut self, key: RowKey) {
        self.overlay.forget_within(key);
    }

    /// Keeps a record that lies in another one's row.
    pub(crate) fn keep<M: Decoded>(&mut self, key: RowKey, record: &Shared<M>) {
        self.overlay.keep_within(key, record.arc());
    }

    fn put_late<M: Decoded>(&mut self, key: RowKey, record: &Shared<M>) {
        if self.cluster.feature_level < level::ENTRIES_WRITE_ONCE {
            return self.put_kept(key, record);
        }
        self.overlay.put_late(key, record.arc());
    }

    /// A record as it is now, if it counts whether it changes.
    fn before<M: Decoded>(&self, key: &[u8]) -> Option<Shared<M>> {
        if self.cluster.feature_level < level::UNCHANGED_ROWS_STAY {
            return None;
        }
        // A fault is met again by whoever reads the row.
        shared(&self.overlay, key).ok().flatten()
    }

    /// A row whose key says it all, or whose value is a few raw bytes.
    pub(crate) fn mark(&mut self, key: RowKey, value: &[u8]) {
        self.overlay.put(key, Bytes::copy_from_slice(value));
    }

    /// Takes back a mark that this command made, where there was none before.
    pub(crate) fn withdraw(&mut self, key: RowKey) {
        if self.cluster.feature_level < level::ENTRIES_WRITE_ONCE {
            return self.delete(key);
        }
        self.overlay.withdraw(&key);
    }

    pub(crate) fn delete(&mut self, key: RowKey) {
        self.overlay.delete(key);
    }

    /// Deletes a mark without a value, which is there. Where it was before this command, the row goes when the command ends.
    pub(crate) fn unmark(&mut self, key: RowKey) {
        if self.overlay.has_written(&key) {
            self.overlay.delete(key);
        } else {
            self.unmarked.push(key);
        }
    }

    /// Puts a mark without a value. Where this command has only deleted it, nothing is written at all.
    pub(crate) fn mark_again(&mut self, key: RowKey) {
        match self.unmarked.iter().position(|unmarked| *unmarked == key) {
            Some(at) => drop(self.unmarked.swap_remove(at)),
            None => self.mark(key, &[]),
        }
    }

    /// Counts a lease that was given (1) or ended (-1). The agent's record says so when the command ends: most commands that
    /// end one give another, and leave the record alone.
    pub(crate) fn count_lease(&mut self, agent: u32, change: i64) {
        match self.leases.iter_mut().find(|(of, _)| *of == agent) {
            Some((_, leases)) => *leases += change,
            None => self.leases.push((agent, change)),
        }
    }

    /// Leases of an agent that this command gave, less those that it ended, while its record does not say so yet.
    pub(crate) fn leases(&self, agent: u32) -> i64 {
        self.leases.iter().find(|(of, _)| *of == agent).map_or(0, |(_, leases)| *leases)
    }

    pub(crate) fn take_leases(&mut self) -> Vec<(u32, i64)> {
        std::mem::take(&mut self.leases)
    }

    pub(crate) fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, Fault> {
        self.overlay.scan(range, Order::Ascending, limit)
    }

    /// The state as this command has left it so far.
    pub(crate) fn read(&self) -> &dyn Read {
        &self.overlay
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Notes a bundle's row of which it may have to be said what is wanted of it.
    pub(crate) fn note_unsettled(&mut self, bundle: RowKey) {
        self.unsettled.insert(bundle);
    }

    pub(crate) fn take_unsettled(&mut self) -> BTreeSet<RowKey> {
        std::mem::take(&mut self.unsettled)
    }

    /// Agents whose route, pause or policy this command has changed so far.
    pub(crate) fn changed_agents(&self) -> BTreeSet<u32> {
        let changed = |effect: &Effect| match effect {
            Effect::AgentChanged { agent } => Some(*agent),
            Effect::StepReady { .. }
            | Effect::StepWithdrawn { .. }
            | Effect::Leased { .. }
            | Effect::LeaseEnded { .. }
            | Effect::CancelRequested { .. }
            | Effect::RunClosed { .. }
            | Effect::DeadlineSet { .. } => None,
        };
        self.effects.iter().filter_map(changed).collect()
    }

    /// Sets a timer of an agent; `object` is the rest of the key.
    pub(crate) fn set_timer(&mut self, agent: u32, due_ms: u64, timer: Timer, object: &[u8]) {
        if due_ms < self.now {
            front::reset(self, agent);
        }
        self.mark(deadline_key(agent, due_ms, timer, object), &[]);
        self.effect(Effect::DeadlineSet { agent, due_ms });
    }

    pub(crate) fn clear_timer(&mut self, agent: u32, due_ms: u64, timer: Timer, object: &[u8]) {
        self.delete(deadline_key(agent, due_ms, timer, object));
    }

    /// Notes that something happened. Actor and reason are the command's.
    pub(crate) fn event(&mut self, mut event: EventRecord) {
        event.at_ms = self.now;
        event.actor.clone_from(&self.header.actor);
        event.reason.clone_from(&self.header.reason);
        self.events.push(event);
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(crate) fn finish(mut self) -> Finished {
        for key in std::mem::take(&mut self.unmarked) {
            self.overlay.delete(key);
        }
        let mut events = std::mem::take(&mut self.events);
        if is_planted(Mutant::UnorderedApply) {
            let order = std::collections::hash_map::RandomState::new();
            events.sort_by_cached_key(|event| order.hash_one(&event.r#type));
        }
        for (index, event) in (0_u32..).zip(events) {
            self.put(Key::new(Kind::Event).u64(self.revision).u32(index).build(), &event);
        }
        let (writes, records, late) = self.overlay.into_parts();
        Finished { writes, records, late, cluster: self.cluster, effects: self.effects }
    }
}

pub(crate) fn deadline_key(agent: u32, due_ms: u64, timer: Timer, object: &[u8]) -> RowKey {
    let mut key = Key::of(Kind::Deadline, agent).u64(due_ms).u8(timer as u8).build();
    key.extend_from_slice(object);
    key
}

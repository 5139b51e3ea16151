//! The state machine as openraft sees it: applies what is committed, builds and installs snapshots.
//!
//! Everything of one apply call reaches the store in one batch, together with its position; replies go out after
//! that. A fault stops the node.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use pinrail_proto::log::{self as pb, Outcome};
use pinrail_state_machine::Machine;
use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::key::{Key, Kind, RowKey};
use pinrail_state_machine::mutant::{Mutant, is_planted};
use pinrail_state_machine::records::{Records, WithRecords};
use pinrail_state_machine::store::{Fault, Order, Read, Writes};
use prost::Message as _;
use tokio::sync::{broadcast, watch};

use crate::env::Env;
use crate::storage::{Archive, Checkpoint, Files, Record, Snapshot, StateEngine, damaged};

use super::chunk::{Chunk, next_chunk};
use super::types::{
    Entry, LogId, Reply, SnapshotMeta, StoredMembership, TypeConfig, get_log_id, get_snapshot_meta,
    get_stored_membership, put_entry, put_log_id, put_snapshot_meta, put_stored_membership,
};

/// Applied batches that a subscriber may lag behind before it has to read the state anew.
const FEED: usize = 4_096;

type OpenraftSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Snapshot>;

/// What one log entry did.
#[derive(Debug, Clone)]
pub struct AppliedBatch {
    pub log_index: u64,
    /// Of its last command.
    pub revision: u64,
    pub now_ms: u64,
    /// None: the state came as a whole, and nobody knows what of it changed.
    pub effects: Option<Vec<Effect>>,
}

impl AppliedBatch {
    /// What its commands had as their effects, as far as it is known.
    pub(crate) fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.effects.iter().flatten()
    }
}

/// How far this node's state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedAt {
    pub log_index: u64,
    pub revision: u64,
    pub now_ms: u64,
}

/// The part of the state machine that readers share.
#[derive(Debug)]
pub(crate) struct StateShared {
    pub(crate) engine: Arc<dyn StateEngine>,
    pub(crate) applied: watch::Sender<AppliedAt>,
    pub(crate) feed: broadcast::Sender<Arc<AppliedBatch>>,
    env: Env,
    position: Mutex<Position>,
    /// Of the newest moment, for the next apply.
    records: Mutex<Records>,
    /// Of a node under test.
    archive: Option<Mutex<Archive>>,
    pub(super) snapshot: Mutex<Option<Snapshot>>,
}

#[derive(Debug, Clone, Default)]
struct Position {
    last: Option<LogId>,
    membership: StoredMembership,
}

#[derive(Debug, Clone)]
pub(crate) struct StateMachine {
    shared: Arc<StateShared>,
}

impl StateShared {
    /// As [`read`], with the records that commands read or wrote lately, which need not be decoded again.
    pub(super) fn read_with_records<T>(
        &self,
        reader: impl FnOnce(&dyn Read) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        // Who writes takes them first, so they stay those of the newest moment as long as they are held.
        let records = self.records.lock();
        read(&*self.engine, |store| reader(&WithRecords { store, records: &records }))
    }

    /// A state that lacks entries which the log has dropped cannot be brought up to date from here.
    ///
    /// # Errors
    /// Says how far it reaches.
    pub(crate) fn must_reach(&self, purged: Option<LogId>) -> io::Result<()> {
        let applied = self.position.lock().last.map_or(0, |last| last.index());
        let snapshot =
            self.snapshot.lock().as_ref().and_then(|it| it.manifest.meta.as_ref()?.last_log_id);
        let reaches = applied.max(snapshot.map_or(0, |last| last.index));
        match purged {
            Some(purged) if purged.index() > reaches => Err(damaged(format!(
                "it reaches entry {reaches}, and the log begins behind entry {}",
                purged.index()
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn keep_entry(&self, entry: &Entry, revision: u64) {
        if let Some(archive) = &self.archive {
            let entry = Bytes::from(put_entry(entry).encode_to_vec());
            archive.lock().add(&Record::Entry { revision, entry });
        }
    }

    fn keep_snapshot(&self, meta: &SnapshotMeta, revision: u64) -> io::Result<()> {
        if let (Some(archive), Some(last)) = (&self.archive, &meta.last_log_id) {
            let position = Bytes::from(put_log_id(last).encode_to_vec());
            archive.lock().add(&Record::Snapshot { revision, position });
        }
        self.write_archive()
    }

    /// A node under test that cannot keep what it applies proves nothing: it ends.
    fn write_archive(&self) -> io::Result<()> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let written = archive.lock().write();
        written.map_err(|error| io::Error::new(error.kind(), format!("the log archive: {error}")))
    }
}

/// Damage and a full disk there are none of the state's.
fn begin_archive(directory: &Path) -> io::Result<Archive> {
    Archive::begin(directory).map_err(|error| {
        io::Error::other(format!("the log archive {}: {error}", directory.display()))
    })
}

impl StateMachine {
    /// Opens the state and its newest snapshot.
    ///
    /// # Errors
    /// When what is stored cannot be read.
    pub(crate) fn open(
        engine: Arc<dyn StateEngine>,
        env: &Env,
    ) -> io::Result<(Self, Arc<StateShared>)> {
        let position = load_position(&*engine)?;
        let mut at = AppliedAt {
            log_index: position.last.map_or(0, |id| id.index()),
            ..AppliedAt::default()
        };
        read(&*engine, |read| {
            let cluster = pinrail_state_machine::query::cluster(read)?;
            (at.revision, at.now_ms) = (cluster.revision, cluster.now_ms);
            Ok(())
        })
        .map_err(fault)?;
        let snapshot = engine.newest_snapshot()?;
        let archive = env.log_archive.as_deref().map(begin_archive).transpose()?;
        let shared = Arc::new(StateShared {
            engine,
            applied: watch::Sender::new(at),
            feed: broadcast::Sender::new(FEED),
            env: env.clone(),
            position: Mutex::new(position),
            records: Mutex::default(),
            archive: archive.map(Mutex::new),
            snapshot: Mutex::new(snapshot),
        });
        Ok((Self { shared: Arc::clone(&shared) }, shared))
    }

    fn apply_chunk(&self, chunk: Vec<EntryResponder<TypeConfig>>) -> Result<(), Fault> {
        let mut position = self.shared.position.lock().clone();
        let mut batches = Vec::new();
        let mut replies = Vec::new();
        let mut written = None;
        read(&*self.shared.engine, |base| {
            // On a fault they are gone, and the node stops.
            let records = std::mem::take(&mut *self.shared.records.lock());
            let mut machine = Machine::open_with(base, records)?;
            for (entry, responder) in chunk {
                let log_id = entry.log_id;
                position.last = Some(log_id);
                let (outcomes, effects) = apply_entry(&mut machine, &mut position, &entry)?;
                let cluster = machine.cluster();
                self.shared.keep_entry(&entry, cluster.revision);
                // On followers nobody waits.
                if let Some(responder) = responder {
                    replies.push((responder, Reply(outcomes)));
                }
                batches.push(AppliedBatch {
                    log_index: log_id.index(),
                    revision: cluster.revision,
                    now_ms: cluster.now_ms,
                    effects: Some(effects),
                });
            }
            written = Some(machine.finish());
            Ok(())
        })?;
        let written = written.ok_or_else(|| Fault("the state was not read".to_owned()))?;
        let at = AppliedAt {
            log_index: position.last.map_or(0, |id| id.index()),
            revision: written.cluster.revision,
            now_ms: written.cluster.now_ms,
        };
        let row = encode_position(&position, self.shared.env.clock.wall_ms());
        self.shared.write_archive().map_err(|error| Fault(error.to_string()))?;
        self.shared.engine.write(written.writes, row)?;
        *self.shared.position.lock() = position;
        *self.shared.records.lock() = written.records;
        self.shared.applied.send_replace(at);
        for (responder, reply) in replies {
            responder.send(reply);
        }
        for batch in batches {
            // Nobody may be listening.
            let _ = self.shared.feed.send(Arc::new(batch));
        }
        Ok(())
    }
}

fn apply_entry(
    machine: &mut Machine<'_>,
    position: &mut Position,
    entry: &Entry,
) -> Result<(Vec<Outcome>, Vec<Effect>), Fault> {
    let mut effects = Vec::new();
    let outcomes = match &entry.payload {
        EntryPayload::Blank => Vec::new(),
        EntryPayload::Normal(batch) => {
            let applied = machine.apply_batch(&batch.0)?.into_iter();
            let outcomes = applied.map(|mut applied| {
                effects.append(&mut applied.effects);
                applied.outcome
            });
            outcomes.collect()
        }
        EntryPayload::Membership(membership) => {
            position.membership = StoredMembership::new(position.last, membership.clone());
            Vec::new()
        }
    };
    Ok((outcomes, effects))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let position = self.shared.position.lock().clone();
        Ok((position.last, position.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: futures::Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>>
            + Unpin
            + OptionalSend,
    {
        loop {
            let Chunk { entries: chunk, is_full } = next_chunk(&mut entries).await?;
            if chunk.is_empty() {
                return Ok(());
            }
            self.apply_chunk(chunk).map_err(fault)?;
            if is_full {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        // Between applies: position and checkpoint belong together.
        let position = self.shared.position.lock().clone();
        let name = position.last.map_or(0, |id| id.index()).to_string();
        let engine = &self.shared.engine;
        let checkpoint = engine.checkpoint(&name).and_then(|it| {
            Ok((it, read(&**engine, pinrail_state_machine::query::cluster).map_err(fault)?))
        });
        SnapshotBuilder { shared: Arc::clone(&self.shared), position, checkpoint: Some(checkpoint) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Snapshot,
    ) -> Result<(), io::Error> {
        let shared = Arc::clone(&self.shared);
        let installed = snapshot.clone();
        self.shared.keep_snapshot(meta, snapshot.manifest.revision)?;
        *self.shared.records.lock() = Records::default();
        self.shared.env.blocking(move || shared.engine.install(&installed)).await?;
        if is_planted(Mutant::SnapshotLosesRequestIds) {
            lose_request_ids(&*self.shared.engine)?;
        }
        let position = load_position(&*self.shared.engine)?;
        if position.last != meta.last_log_id {
            return Err(io::Error::other("the snapshot's state is not where its manifest says"));
        }
        // The snapshot has another member's wall clock beside it; how much time has passed is told by this one's.
        let row = encode_position(&position, self.shared.env.clock.wall_ms());
        self.shared.engine.write(Writes::new(), row).map_err(fault)?;
        let mut at = AppliedAt {
            log_index: position.last.map_or(0, |id| id.index()),
            ..AppliedAt::default()
        };
        read(&*self.shared.engine, |read| {
            let cluster = pinrail_state_machine::query::cluster(read)?;
            (at.revision, at.now_ms) = (cluster.revision, cluster.now_ms);
            Ok(())
        })
        .map_err(fault)?;
        *self.shared.position.lock() = position;
        *self.shared.snapshot.lock() = Some(snapshot);
        self.shared.applied.send_replace(at);
        // Subscribers missed what the snapshot brought.
        let jump = AppliedBatch {
            log_index: at.log_index,
            revision: at.revision,
            now_ms: at.now_ms,
            effects: None,
        };
        let _ = self.shared.feed.send(Arc::new(jump));
        tracing::info!(index = at.log_index, revision = at.revision, "installed a snapshot");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<OpenraftSnapshot>, io::Error> {
        let Some(snapshot) = self.shared.snapshot.lock().clone() else { return Ok(None) };
        let meta = get_snapshot_meta(snapshot.manifest.meta.clone())?;
        Ok(Some(OpenraftSnapshot { meta, snapshot }))
    }
}

/// Describes and seals a checkpoint that was taken between two applies.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    shared: Arc<StateShared>,
    position: Position,
    checkpoint: Option<io::Result<(Checkpoint, pb::ClusterRecord)>>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> Result<OpenraftSnapshot, io::Error> {
        let checkpoint = self.checkpoint.take();
        let (checkpoint, cluster) =
            checkpoint.ok_or_else(|| io::Error::other("built already"))??;
        let meta = SnapshotMeta {
            last_log_id: self.position.last,
            last_membership: self.position.membership.clone(),
        };
        let shared = Arc::clone(&self.shared);
        let sealed = seal(&meta, cluster);
        let snapshot =
            self.shared.env.blocking(move || sealed(&*shared.engine, checkpoint.wait()?)).await?;
        *self.shared.snapshot.lock() = Some(snapshot.clone());
        tracing::info!(index = meta.last_log_id.map_or(0, |id| id.index()), "took a snapshot");
        Ok(OpenraftSnapshot { meta, snapshot })
    }
}

/// Seals the files of a checkpoint as a snapshot.
pub(super) fn seal(
    meta: &SnapshotMeta,
    cluster: pb::ClusterRecord,
) -> impl FnOnce(&dyn StateEngine, Files) -> io::Result<Snapshot> + Send + 'static {
    let meta = put_snapshot_meta(meta);
    move |engine, files| {
        let manifest = pb::SnapshotManifest {
            format: 1,
            cluster_id: cluster.cluster_id,
            meta: Some(meta),
            revision: cluster.revision,
            state_hash: cluster.state_hash,
            files: files.describe()?,
            now_ms: cluster.now_ms,
            cluster: cluster.cluster,
        };
        engine.seal(files, manifest)
    }
}

/// Shows one moment of the state and hands out what was made of it.
pub(crate) fn read<T>(
    engine: &dyn StateEngine,
    reader: impl FnOnce(&dyn Read) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut reader = Some(reader);
    let mut out = None;
    engine.read(&mut |read| {
        if let Some(reader) = reader.take() {
            out = Some(reader(read)?);
        }
        Ok(())
    })?;
    out.ok_or_else(|| Fault("the store showed nothing".to_owned()))
}

/// Row beside the state: applied log id, membership, and the wall's time at that moment (for a cluster that was
/// down as a whole; it decides nothing while any member remembers).
fn encode_position(position: &Position, wall_ms: u64) -> Bytes {
    position_row(position.last.as_ref(), &position.membership, wall_ms)
}

pub(super) fn position_row(
    last: Option<&LogId>,
    membership: &StoredMembership,
    wall_ms: u64,
) -> Bytes {
    let row = pb::StatePosition {
        last_log_id: last.map(put_log_id),
        membership: Some(put_stored_membership(membership)),
        wall_ms,
    };
    Bytes::from(row.encode_to_vec())
}

/// What [`Mutant::SnapshotLosesRequestIds`] does.
fn lose_request_ids(engine: &dyn StateEngine) -> io::Result<()> {
    let mut lost = Writes::new();
    read(engine, |read| {
        let all = Key::new(Kind::Dedupe).range();
        for (key, _) in read.scan(&all, Order::Ascending, usize::MAX)? {
            lost.insert(RowKey::from_slice(&key), None);
        }
        Ok(())
    })
    .map_err(fault)?;
    let Some(position) = engine.position().map_err(fault)? else { return Ok(()) };
    engine.write(lost, position).map_err(fault)
}

fn load_position(engine: &dyn StateEngine) -> io::Result<Position> {
    let Some(row) = stored_position(engine)? else { return Ok(Position::default()) };
    Ok(Position {
        last: row.last_log_id.map(get_log_id),
        membership: get_stored_membership(row.membership)?,
    })
}

/// # Errors
/// When the row cannot be read.
pub(crate) fn stored_position(engine: &dyn StateEngine) -> io::Result<Option<pb::StatePosition>> {
    let Some(row) = engine.position().map_err(fault)? else { return Ok(None) };
    pb::StatePosition::decode(row)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(super) fn fault(fault: Fault) -> io::Error {
    io::Error::other(fault)
}

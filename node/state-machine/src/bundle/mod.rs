//! Bundles: immutable releases of an agent. What never changes (the manifest) and what does (pins, drain, marks)
//! are rows of their own, so that a start touches only the small one.

mod diff;
mod digest;
mod environment;
mod manifest;
mod state;
mod steps;
mod wanted;

use std::collections::BTreeMap;

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentRecord, BundleManifestRecord, BundleModelsRecord, BundleRecord, BundleResult,
    BundleStepsRecord, CreateBundle, PartSeenRecord,
};
use pinrail_proto::{id, limits, reason, time, v1};

use crate::key::{Key, Kind, RowKey};
use crate::mutant::{Mutant, is_planted};
use crate::namespace::quota::{self, Quota};
use crate::outcome::{Stop, reject};
use crate::shared::Shared;
use crate::store::{Fault, Order, Read};
use crate::txn::{Txn, decode, get, shared};
use crate::{agent, event, nearest};

pub(crate) use diff::diff;
pub(crate) use digest::{Fields, is_digest};
pub(crate) use environment::{message as environment, set as set_environment};
pub(crate) use state::state;
pub(crate) use steps::{StepPolicy, declared_steps, step_policy};
pub(crate) use wanted::announce as announce_wanted;

pub(crate) fn create(txn: &mut Txn<'_>, it: &CreateBundle) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    id::check_name("bundle", &it.bundle_id)
        .map_err(|e| reject(reason::INVALID_ID, e.to_string()))?;
    let manifest = manifest::complete(it.manifest.clone().unwrap_or_default())?;
    if let Some(existing) = find(txn.read(), agent.number, &it.bundle_id)? {
        let digest = digest::whole(&manifest, &digest::parts(&manifest));
        return create_again(txn, &agent, &existing, &digest);
    }
    must_fit(txn, &agent)?;
    let record = insert(txn, &mut agent, &it.bundle_id, manifest)?;
    agent::save(txn, &agent);
    txn.event(event::of_bundle("bundle.created", &agent, &it.bundle_id));
    answer(txn, &agent, &record, false)
}

/// A new bundle with this complete manifest. The caller saves the agent.
pub(crate) fn insert(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    bundle_id: &str,
    manifest: v1::BundleManifest,
) -> Result<BundleRecord, Stop> {
    let digests = digest::parts(&manifest);
    note_parts(txn, agent.number, bundle_id, &manifest)?;
    let record = BundleRecord {
        bundle_id: bundle_id.to_owned(),
        digest: digest::whole(&manifest, &digests),
        created_ms: txn.now,
        created_revision: txn.revision,
        revision: txn.revision,
        open_pins: Some(v1::OpenPins::default()),
        entry: manifest.entry.clone(),
        code: code(&manifest),
        ..BundleRecord::default()
    };
    let steps = BundleStepsRecord { steps: manifest.steps.clone() };
    txn.put(row(Kind::BundleSteps, agent.number, bundle_id), &steps);
    let models = BundleModelsRecord { models: without_parameters(&manifest.models) };
    txn.put(row(Kind::BundleModels, agent.number, bundle_id), &models);
    let row_of_manifest = BundleManifestRecord { manifest: Some(manifest), digests: Some(digests) };
    txn.put(row(Kind::BundleManifest, agent.number, bundle_id), &row_of_manifest);
    save(txn, agent.number, &record);
    count_in(txn, agent)?;
    Ok(record)
}

fn create_again(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    existing: &BundleRecord,
    digest: &str,
) -> Result<Answer, Stop> {
    if existing.digest != digest {
        let message = format!(
            "bundle {} exists with other content: its digest is {}, yours {digest}",
            existing.bundle_id, existing.digest
        );
        return Err(reject(reason::BUNDLE_CONFLICT, message)
            .with("existing_digest", &existing.digest)
            .with("digest", digest));
    }
    answer(txn, agent, existing, true)
}

/// The same index or tool version always has the same content within an agent.
fn note_parts(
    txn: &mut Txn<'_>,
    agent: u32,
    bundle_id: &str,
    manifest: &v1::BundleManifest,
) -> Result<(), Stop> {
    for (part, name, version, digest) in digest::versioned(manifest) {
        let key = Key::of(Kind::PartSeen, agent).text(part).text(&name).last(&version);
        match txn.get::<PartSeenRecord>(&key)? {
            Some(seen) if seen.digest != digest => {
                let message = format!(
                    "{part} {name} version {version} has other content in bundle {}; raise its version",
                    seen.bundle_id
                );
                return Err(reject(reason::PART_CONFLICT, message).with("bundle", seen.bundle_id));
            }
            Some(_) => {}
            None => txn.put(key, &PartSeenRecord { digest, bundle_id: bundle_id.to_owned() }),
        }
    }
    Ok(())
}

/// What a worker says that it was built from is compared with this.
fn code(manifest: &v1::BundleManifest) -> String {
    let code = manifest.code.clone().unwrap_or_default();
    if code.git_commit.is_empty() { code.image } else { code.git_commit }
}

fn answer(
    txn: &Txn<'_>,
    agent: &AgentRecord,
    record: &BundleRecord,
    already: bool,
) -> Result<Answer, Stop> {
    let mut bundle = message(txn.read(), agent, record)?;
    bundle.manifest = None;
    Ok(Answer::Bundle(Box::new(BundleResult { bundle: Some(bundle), already })))
}

pub(crate) fn find(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
) -> Result<Option<BundleRecord>, Fault> {
    get(read, &row(Kind::Bundle, agent, bundle_id))
}

/// # Errors
/// `BUNDLE_NOT_FOUND` suggests the nearest id.
pub(crate) fn load(txn: &Txn<'_>, agent: u32, bundle_id: &str) -> Result<BundleRecord, Stop> {
    existing(txn.read(), agent, bundle_id)
}

pub(crate) fn existing(read: &dyn Read, agent: u32, bundle_id: &str) -> Result<BundleRecord, Stop> {
    lend(read, agent, bundle_id).map(Shared::into_inner)
}

/// The same, copied only if it is changed.
pub(crate) fn lend(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
) -> Result<Shared<BundleRecord>, Stop> {
    if let Some(record) = shared(read, &row(Kind::Bundle, agent, bundle_id))? {
        return Ok(record);
    }
    let all = all(read, agent)?;
    let stop = reject(reason::BUNDLE_NOT_FOUND, format!("the agent has no bundle {bundle_id:?}"));
    Err(match nearest::nearest(bundle_id, all.iter().map(|b| b.bundle_id.as_str())) {
        Some(near) => stop.with("suggestion", near),
        None => stop,
    })
}

pub(crate) fn save(txn: &mut Txn<'_>, agent: u32, record: &BundleRecord) {
    let key = settled_row(txn, agent, record);
    txn.put_changed(key, record);
}

/// Saves a record that was lent.
pub(crate) fn give_back(txn: &mut Txn<'_>, agent: u32, record: &Shared<BundleRecord>) {
    let key = settled_row(txn, agent, record);
    txn.put_back(key, record);
}

/// The row of a bundle, noted where something else may be wanted of it.
fn settled_row(txn: &mut Txn<'_>, agent: u32, record: &BundleRecord) -> RowKey {
    let key = row(Kind::Bundle, agent, &record.bundle_id);
    if !wanted::is_by_route(record) {
        txn.note_unsettled(key.clone());
    }
    key
}

/// All bundles of an agent, by id; at most [`limits::BUNDLES_PER_AGENT`].
pub(crate) fn all(read: &dyn Read, agent: u32) -> Result<Vec<BundleRecord>, Fault> {
    let rows = read.scan(&Key::of(Kind::Bundle, agent).range(), Order::Ascending, usize::MAX)?;
    rows.iter().map(|(key, value)| decode(key, value)).collect()
}

fn without_parameters(models: &BTreeMap<String, v1::ModelPart>) -> BTreeMap<String, v1::ModelPart> {
    let part = |(name, part): (&String, &v1::ModelPart)| {
        (name.clone(), v1::ModelPart { parameters_json: String::new(), ..part.clone() })
    };
    models.iter().map(part).collect()
}

/// The models of a bundle, without their parameters. Empty for one that was made before they were kept.
pub(crate) fn models(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
) -> Result<BTreeMap<String, v1::ModelPart>, Fault> {
    let found: Option<BundleModelsRecord> = get(read, &row(Kind::BundleModels, agent, bundle_id))?;
    Ok(found.unwrap_or_default().models)
}

pub(crate) fn manifest(
    read: &dyn Read,
    agent: u32,
    bundle_id: &str,
) -> Result<BundleManifestRecord, Fault> {
    get(read, &row(Kind::BundleManifest, agent, bundle_id))?
        .ok_or_else(|| Fault(format!("bundle {bundle_id} has no manifest")))
}

/// The API's view of a bundle, its manifest included.
pub(crate) fn message(
    read: &dyn Read,
    agent: &AgentRecord,
    record: &BundleRecord,
) -> Result<v1::Bundle, Fault> {
    let parts = manifest(read, agent.number, &record.bundle_id)?;
    Ok(v1::Bundle {
        agent_id: agent.agent_id.clone(),
        bundle_id: record.bundle_id.clone(),
        state: state(agent, record).into(),
        digest: record.digest.clone(),
        part_digests: parts.digests,
        manifest: parts.manifest,
        created_at: time::timestamp(record.created_ms),
        created_revision: record.created_revision,
        open_pins: record.open_pins,
        drain_deadline: time::timestamp(record.drain_deadline_ms),
        revision: record.revision,
        tool_digests: BTreeMap::new(),
        open_drifts: record
            .drift
            .map(|it| v1::OpenDrifts { breaking: it.breaking, compatible: it.compatible }),
    })
}

/// A bundle that is released or switched to counts again, should it have been recycled. The caller saves both.
///
/// # Errors
/// `LIMIT_EXCEEDED`, `QUOTA_EXCEEDED` when there is no room for one more.
pub(crate) fn revive(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    record: &mut BundleRecord,
) -> Result<(), Stop> {
    if !record.recycled {
        return Ok(());
    }
    must_fit(txn, agent)?;
    record.recycled = false;
    count_in(txn, agent)
}

/// Counts a bundle out that is recycled. The caller saves the agent.
pub(crate) fn count_out(txn: &mut Txn<'_>, agent: &mut AgentRecord) -> Result<(), Stop> {
    agent.bundles = agent.bundles.saturating_sub(1);
    quota::take(txn, &agent.namespace, Quota::Bundles, 1)
}

fn count_in(txn: &mut Txn<'_>, agent: &mut AgentRecord) -> Result<(), Stop> {
    agent.bundles += 1;
    quota::add(txn, &agent.namespace, Quota::Bundles, 1)
}

/// Refuses one bundle too many, of the agent or of its namespace.
fn must_fit(txn: &Txn<'_>, agent: &AgentRecord) -> Result<(), Stop> {
    if agent.bundles >= limits::BUNDLES_PER_AGENT {
        let message = format!("agent {} has {} bundles", agent.agent_id, agent.bundles);
        return Err(
            reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::BUNDLES_PER_AGENT)
        );
    }
    quota::admit(txn, &agent.namespace, Quota::Bundles, 1)
}

/// A change to the counter of open pins: `+1` or `-1` for one kind of run.
pub(crate) fn count_pin(record: &mut BundleRecord, kind: v1::RunKind, more: bool) {
    let pins = record.open_pins.get_or_insert_default();
    let of_kind = match kind {
        v1::RunKind::Unspecified | v1::RunKind::Live => &mut pins.live,
        v1::RunKind::Canary => &mut pins.canary,
        v1::RunKind::Shadow => &mut pins.shadow,
        v1::RunKind::Eval => &mut pins.eval,
        v1::RunKind::Smoke => &mut pins.smoke,
        v1::RunKind::Drill => &mut pins.drill,
    };
    if more {
        *of_kind += 1;
        pins.total += 1;
    } else if pins.total != 3 || !is_planted(Mutant::MiscountsPins) {
        *of_kind = of_kind.saturating_sub(1);
        pins.total = pins.total.saturating_sub(1);
    }
}

/// Non-terminal pins of all kinds.
pub(crate) fn open_pins(record: &BundleRecord) -> u64 {
    record.open_pins.as_ref().map_or(0, |pins| pins.total)
}

fn row(kind: Kind, agent: u32, bundle_id: &str) -> RowKey {
    Key::of(kind, agent).last(bundle_id)
}

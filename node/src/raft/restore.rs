//! A backup that was unpacked into `restore/` of a new data directory becomes the state of a new cluster.
//!
//! Every member of the new cluster begins with the same backup and the same list of members, so that all of them stand at the
//! same place of the same log, and none has to catch up. Revisions and cluster time go on; leases of the old cluster are void,
//! for tokens carry the incarnation, which is another one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft::Membership;
use pinrail_proto::log as pb;
use pinrail_state_machine::key::{Key, Kind};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::storage::{Files, LogEngine, LogOp, MANIFEST, Snapshot, StateEngine};

use super::bootstrap::founders;
use super::settings::ReplicaConfig;
use super::state_machine::{fault, position_row, read, seal};
use super::types::{PeerNode, SnapshotMeta, StoredMembership, get_snapshot_meta, put_log_id};

/// Where `pinrail cluster snapshot restore` leaves it.
const FOLDER: &str = "restore";

/// Takes the backup over, if there is one. A crash in the middle begins it again at the next start.
///
/// # Errors
/// When the directory is not new, the backup is damaged or of a cluster of this name, or the disk fails.
pub(super) fn take_over(
    config: &ReplicaConfig,
    node_id: u64,
    wall_ms: u64,
    log: &mut dyn LogEngine,
    state: &dyn StateEngine,
) -> io::Result<()> {
    let folder = config.data.join(FOLDER);
    if !folder.is_dir() {
        return Ok(());
    }
    let loaded = log.load()?;
    if loaded.vote.is_some() || loaded.entries.is_some() {
        return Err(refused("this data directory has a log already: restore into a new one"));
    }
    let backup = open(&folder)?;
    let meta = get_snapshot_meta(backup.manifest.meta.clone())?;
    let Some(last) = meta.last_log_id else {
        return Err(refused("the backup is of a cluster that never was"));
    };
    if backup.manifest.cluster == config.cluster {
        return Err(refused(&format!(
            "the backup is of a cluster with the name {}, whose members may be alive: give the restored cluster another \
             name in server.toml",
            config.cluster
        )));
    }
    state.install(&backup)?;
    let mut cluster = read(state, pinrail_state_machine::query::cluster).map_err(fault)?;
    cluster.cluster_id = identity(&config.cluster, &backup.manifest);
    cluster.cluster.clone_from(&config.cluster);
    cluster.incarnation += 1;
    let membership = StoredMembership::new(Some(last), membership(config, node_id)?);
    let writes = [(Key::new(Kind::Cluster).build(), Some(cluster.encode_to_vec().into()))].into();
    state.write(writes, position_row(Some(&last), &membership, wall_ms)).map_err(fault)?;
    state.flush()?;
    // Others that join later begin with a snapshot, for the log behind it is nowhere.
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership: membership };
    let revision = cluster.revision;
    seal(&meta, cluster)(state, state.checkpoint("restored")?.wait()?)?;
    let position = put_log_id(&last).encode_to_vec().into();
    log.write(&[LogOp::PurgeTo { index: last.index(), position }], true)?;
    fs::remove_dir_all(&folder)?;
    tracing::info!(cluster = config.cluster, revision, "begins with a backup");
    Ok(())
}

/// The unpacked backup, whole.
fn open(folder: &Path) -> io::Result<Snapshot> {
    let manifest = fs::read(folder.join(MANIFEST))?;
    let manifest = pb::SnapshotManifest::decode(manifest.as_slice())
        .map_err(|error| refused(&format!("the backup's manifest: {error}")))?;
    let files = Files::Directory(Arc::new(folder.to_owned()));
    files.verify(&manifest)?;
    Ok(Snapshot { manifest, files })
}

/// The same at every member that begins with this backup.
fn identity(cluster: &str, manifest: &pb::SnapshotManifest) -> bytes::Bytes {
    let digest = Sha256::new()
        .chain_update(cluster)
        .chain_update([0])
        .chain_update(manifest.encode_to_vec())
        .finalize();
    bytes::Bytes::copy_from_slice(&digest[..16])
}

fn membership(config: &ReplicaConfig, node_id: u64) -> io::Result<Membership<u64, PeerNode>> {
    let mut nodes = founders(config);
    if nodes.is_empty() {
        nodes.insert(node_id, config.own(String::new()));
    }
    let voters: BTreeSet<u64> = nodes.keys().copied().collect();
    Membership::new(vec![voters], nodes).map_err(|error| refused(&error.to_string()))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.to_owned())
}

//! What a node decodes from its disk and from other members, for those who look for bytes that it does not survive.

use std::path::{Component, Path};

use bytes::Bytes;
use pinrail_proto::log::SnapshotManifest;
use prost::Message as _;

use crate::raft;
use crate::storage::file_of;

/// An entry of the log: refused, or the same when it is written again.
///
/// # Panics
/// When it is neither.
pub fn log_entry(data: &[u8]) {
    // That it is refused is an answer.
    let _ = raft::read_twice(Bytes::copy_from_slice(data));
}

/// A snapshot's manifest: refused, or each of its files is in the snapshot's own folder.
///
/// # Panics
/// When one is not.
pub fn snapshot_manifest(data: &[u8]) {
    let Ok(manifest) = SnapshotManifest::decode(data) else { return };
    for file in &manifest.files {
        let Ok(name) = file_of(&file.name) else { continue };
        let parts: Vec<Component<'_>> = Path::new(name).components().collect();
        assert!(matches!(parts[..], [Component::Normal(_)]), "{name:?} is no file of a folder");
    }
}

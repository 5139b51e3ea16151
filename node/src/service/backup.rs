//! Backups: a snapshot of this node on its way to a caller, file by file.

use std::pin::Pin;

use futures::Stream;
use pinrail_proto::time::timestamp;
use pinrail_proto::v1;
use pinrail_proto::v1::save_snapshot_response::Part;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::storage::Snapshot;

use super::{Node, error};

/// Bytes of one message.
const CHUNK: usize = 256 << 10;
/// Messages that wait for a slow caller.
const BUFFER: usize = 4;
/// How long the snapshot may take to be made.
const MADE: Duration = Duration::from_secs(60);

pub(super) type Parts =
    Pin<Box<dyn Stream<Item = Result<v1::SaveSnapshotResponse, Status>> + Send>>;

/// Makes a snapshot and sends it.
pub(super) async fn save(node: &Node) -> Result<Parts, Status> {
    let snapshot = node.replica.fresh_snapshot(MADE).await.map_err(error::read)?;
    let (parts, stream) = mpsc::channel(BUFFER);
    let node = node.clone();
    tokio::spawn(async move {
        let head = Part::Backup(describe(&snapshot));
        if parts.send(Ok(v1::SaveSnapshotResponse { part: Some(head) })).await.is_ok() {
            send(&node, &snapshot, &parts).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

fn describe(snapshot: &Snapshot) -> v1::Backup {
    let manifest = &snapshot.manifest;
    let file = |it: &pinrail_proto::log::SnapshotFile| v1::BackupFile {
        name: it.name.clone(),
        size: it.size,
    };
    v1::Backup {
        cluster: manifest.cluster.clone(),
        revision: manifest.revision,
        cluster_time: timestamp(manifest.now_ms),
        state_hash: hex::encode(&manifest.state_hash),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        files: manifest.files.iter().map(file).collect(),
        manifest: manifest.encode_to_vec().into(),
    }
}

/// Sends all files, until the caller is gone or one cannot be read.
async fn send(
    node: &Node,
    snapshot: &Snapshot,
    parts: &mpsc::Sender<Result<v1::SaveSnapshotResponse, Status>>,
) {
    for file in &snapshot.manifest.files {
        let mut offset = 0;
        while offset < file.size {
            let (files, name) = (snapshot.files.clone(), file.name.clone());
            let read = move || files.read(&name, offset, CHUNK);
            let part = match node.replica.env().blocking(read).await {
                Ok(data) if !data.is_empty() => {
                    offset += data.len() as u64;
                    Ok(v1::SaveSnapshotResponse { part: Some(Part::Data(data)) })
                }
                // Newer snapshots have taken its place meanwhile.
                Ok(_) | Err(_) => Err(Status::aborted(format!(
                    "file {} of the snapshot is gone; save it again",
                    file.name
                ))),
            };
            let failed = part.is_err();
            if parts.send(part).await.is_err() || failed {
                return;
            }
        }
    }
}

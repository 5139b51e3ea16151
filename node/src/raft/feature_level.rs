//! The leader raises the cluster's feature level once every member can apply what it stands for. It never falls: a member of
//! an older build stops at the command that raises it.

use bytes::Bytes;
use pinrail_proto::log as pb;
use pinrail_state_machine::{FEATURE_LEVEL, query};
use prost::Message as _;
use tokio::time::{Duration, sleep};

use super::replica::Replica;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);
const RAISING: Duration = Duration::from_secs(5);

pub(super) async fn raise(replica: Replica) {
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = replica.inner.stop.cancelled() => return,
        }
        if !replica.inner.leadership.borrow().here {
            continue;
        }
        if let Some(level) = due(&replica).await {
            tracing::info!(level, "every member can apply it: raises the feature level");
            let kind = pb::command::Kind::SetFeatureLevel(pb::SetFeatureLevel { level });
            let command = pb::Command { header: None, kind: Some(kind) };
            let command = Bytes::from(command.encode_to_vec());
            if let Err(error) = replica.propose_here(vec![command], RAISING).await {
                tracing::warn!(%error, "the feature level was not raised; it is tried again");
            }
        }
    }
}

/// The level that every member says it can apply now, if it is above the cluster's.
async fn due(replica: &Replica) -> Option<u32> {
    let known = replica.read(query::cluster).ok()?.feature_level;
    if known >= FEATURE_LEVEL {
        return None;
    }
    let others = replica.ask_others().await;
    // One that does not answer may come back as an older build.
    if others.len() < replica.others().len() {
        return None;
    }
    let level = others.values().map(|it| it.feature_level).fold(FEATURE_LEVEL, u32::min);
    (level > known).then_some(level)
}

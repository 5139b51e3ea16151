//! The start of a mirrored run.

use std::collections::BTreeMap;

use pinrail_proto::limits;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRef, RunRecord, StartRun};
use pinrail_proto::v1::RunKind;
use pinrail_state_machine::query::{self, Attended, MIRROR_OF};
use sha2::{Digest as _, Sha256};

use super::super::super::Dispatch;
use super::super::propose;
use super::{WHOLE_BP, is_mirrored};

/// Mirrors a live run, if it is drawn. Whether a run was started.
pub(super) async fn start(
    dispatch: &Dispatch,
    it: &Attended,
    run_id: &str,
    share_bp: u32,
    prefix: &str,
) -> bool {
    let digest: [u8; 32] = Sha256::digest(format!("{prefix}{run_id}").as_bytes()).into();
    if place(&digest) >= share_bp {
        return false;
    }
    let live = dispatch.inner.replica.read(|read| {
        let run = query::run_record(read, it.agent, run_id)?;
        Ok((run, query::run_input(read, it.agent, run_id)?))
    });
    let Ok((Some(run), input)) = live else { return false };
    if !is_mirrored(&run, it) {
        return false;
    }
    let command = Kind::StartRun(StartRun {
        agent: Some(AgentRef { namespace: it.namespace.clone(), agent_id: it.agent_id.clone() }),
        // The same live run is mirrored once, whichever leader does it.
        run_id: format!("{prefix}{}", hex::encode(&digest[..12])),
        input,
        labels: labels(&run),
        entry: run.entry.clone(),
        max_age_ms: run.expires_ms.saturating_sub(run.pinned_ms).max(1_000),
        bundle_id: it.release.bundle_id.clone(),
        kind: RunKind::Shadow.into(),
        priority: limits::LAST_PRIORITY,
        memory_revision: run.pinned_revision,
        memory_layer: run.layer,
        ..StartRun::default()
    });
    matches!(propose(dispatch, it, command).await, Some(Answer::StartRun(_)))
}

/// First 8 bytes modulo 10,000: the draw does not depend on the share, so a growing share only adds.
fn place(digest: &[u8; 32]) -> u32 {
    let (first, _) = digest.split_first_chunk::<8>().expect("a SHA-256 has 32 bytes");
    u32::try_from(u64::from_be_bytes(*first) % u64::from(WHOLE_BP)).unwrap_or(0)
}

/// The live run's labels, and the one that names it.
fn labels(run: &RunRecord) -> BTreeMap<String, String> {
    let mut labels = run.labels.clone();
    while labels.len() >= limits::LABELS {
        labels.pop_last();
    }
    labels.insert(MIRROR_OF.to_owned(), run.run_id.clone());
    labels
}

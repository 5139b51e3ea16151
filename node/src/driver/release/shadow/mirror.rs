//! The start of a mirrored run.

use std::collections::BTreeMap;

use pinrail_proto::id::place;
use pinrail_proto::limits;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRef, RunRecord, StartRun};
use pinrail_proto::v1::RunKind;
use pinrail_state_machine::query::{self, Attended, MIRROR_OF};
use sha2::{Digest as _, Sha256};

use super::super::super::Dispatch;
use super::super::propose;
use super::{is_mirrored, prefix};

/// Mirrors a live run, if it is drawn: the draw does not depend on the share, so a growing share only adds. The mirror's id,
/// if one was started.
pub(super) async fn start(
    dispatch: &Dispatch,
    it: &Attended,
    run_id: &str,
    share_bp: u32,
) -> Option<String> {
    let prefix = prefix(it);
    if place(&digest(&prefix, run_id)) >= share_bp {
        return None;
    }
    let live = dispatch.inner.replica.read(|read| {
        let run = query::run_record(read, it.agent, run_id)?;
        Ok((run, query::run_input(read, it.agent, run_id)?))
    });
    let Ok((Some(run), input)) = live else { return None };
    if !is_mirrored(&run, it) {
        return None;
    }
    let mirror = self::run_id(&prefix, run_id);
    let command = Kind::StartRun(StartRun {
        agent: Some(AgentRef { namespace: it.namespace.clone(), agent_id: it.agent_id.clone() }),
        run_id: mirror.clone(),
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
    let started = matches!(propose(dispatch, it, command).await, Some(Answer::StartRun(_)));
    started.then_some(mirror)
}

/// The id of the mirror of a live run: it is mirrored once, whichever leader does it.
pub(super) fn run_id(prefix: &str, live_id: &str) -> String {
    format!("{prefix}{}", hex::encode(&digest(prefix, live_id)[..12]))
}

fn digest(prefix: &str, live_id: &str) -> [u8; 32] {
    Sha256::digest(format!("{prefix}{live_id}").as_bytes()).into()
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

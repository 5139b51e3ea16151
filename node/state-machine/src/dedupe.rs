//! Request ids: an administrative write that is asked again within an hour gets its first answer and is not
//! done twice.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, DedupeRecord};
use pinrail_proto::{limits, reason};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::key::{Key, Kind, Timer};
use crate::outcome::{Stop, reject};
use crate::txn::Txn;

/// Carries `verb` out unless the request id says that it was done before.
///
/// Rejections are not kept: they changed nothing, and a repeat deserves to be judged anew.
pub(crate) fn once(
    txn: &mut Txn<'_>,
    command: &Command,
    verb: impl FnOnce(&mut Txn<'_>, &Command) -> Result<Answer, Stop>,
) -> Result<Answer, Stop> {
    if txn.header.request_id.is_empty() || txn.header.dry_run {
        return verb(txn, command);
    }
    let digest = digest(command);
    let key = Key::new(Kind::Dedupe).last(&txn.header.request_id);
    if let Some(row) = txn.get::<DedupeRecord>(&key)? {
        return answer_again(&row, &digest);
    }
    if txn.cluster.dedupe_rows >= limits::DEDUPE_ROWS {
        return Err(reject(
            reason::OVERLOADED,
            "too many request ids are remembered; try again later",
        ));
    }
    let answer = verb(txn, command)?;
    let outcome = log::Outcome { revision: txn.revision, result: Some(answer.clone()) };
    let expires_ms = txn.now + limits::DEDUPE_MS;
    let row = DedupeRecord {
        digest: digest.to_vec().into(),
        outcome: outcome.encode_to_vec().into(),
        expires_ms,
    };
    txn.put(key, &row);
    txn.cluster.dedupe_rows += 1;
    let request_id = txn.header.request_id.clone();
    txn.set_timer(0, expires_ms, Timer::Dedupe, request_id.as_bytes());
    Ok(answer)
}

/// Forgets a request id whose hour is over.
pub(crate) fn forget(txn: &mut Txn<'_>, request_id: &str) {
    txn.delete(Key::new(Kind::Dedupe).last(request_id));
    txn.cluster.dedupe_rows = txn.cluster.dedupe_rows.saturating_sub(1);
}

fn answer_again(row: &DedupeRecord, digest: &[u8; 32]) -> Result<Answer, Stop> {
    if row.digest != digest.as_slice() {
        return Err(reject(
            reason::REQUEST_ID_REUSED,
            "the request id was used for another request",
        ));
    }
    let outcome = log::Outcome::decode(row.outcome.clone())
        .map_err(|error| crate::store::Fault(format!("kept answer does not decode: {error}")))?;
    outcome.result.ok_or_else(|| crate::store::Fault("kept answer is empty".to_owned()).into())
}

fn digest(command: &Command) -> [u8; 32] {
    let mut asked = command.clone();
    // What the nodes add of workers that they know is another with each repeat.
    if let Command::StartRun(it) = &mut asked {
        it.lease_first = None;
    } else if let Command::Switch(it) = &mut asked {
        it.capacity = None;
    }
    let bare = log::Command { header: None, kind: Some(asked) };
    Sha256::digest(bare.encode_to_vec()).into()
}

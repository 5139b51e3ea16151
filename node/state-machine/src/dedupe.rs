//! Request ids: a write that is asked again within an hour gets its first answer and is not done twice.
//!
//! Those of administration are forgotten by a timer. Those of traffic lie in a row, the oldest first: each new one forgets what is
//! older than an hour, and the oldest where there are too many, so that traffic is not refused for what it asked before.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, DedupeRecord, TrafficIdRecord};
use pinrail_proto::{limits, reason};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::key::{Key, Kind, RowKey, Timer};
use crate::level;
use crate::outcome::{Stop, reject};
use crate::store::Fault;
use crate::txn::Txn;

/// Ids that a new one of traffic forgets at most: more than come, so that none stays for long.
const FORGOTTEN_AT_ONCE: usize = 2;

/// Carries `verb` out unless the request id says that it was done before.
///
/// Rejections are not kept: they changed nothing, and a repeat deserves to be judged anew.
pub(crate) fn once(
    txn: &mut Txn<'_>,
    command: &mut Command,
    verb: impl FnOnce(&mut Txn<'_>, &mut Command) -> Result<Answer, Stop>,
) -> Result<Answer, Stop> {
    if txn.header.request_id.is_empty() || txn.header.dry_run {
        return verb(txn, command);
    }
    let digest = digest(command, txn.cluster.feature_level);
    let key = Key::new(Kind::Dedupe).last(&txn.header.request_id);
    if let Some(row) = txn.get::<DedupeRecord>(&key)? {
        return answer_again(&row, &digest);
    }
    let is_traffic =
        is_traffic(command) && txn.cluster.feature_level >= level::TRAFFIC_IDS_MAKE_ROOM;
    if is_traffic {
        make_room(txn)?;
    } else if txn.cluster.dedupe_rows >= limits::DEDUPE_ROWS {
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
    let request_id = txn.header.request_id.clone();
    if is_traffic {
        line_up(txn, request_id);
    } else {
        txn.cluster.dedupe_rows += 1;
        txn.set_timer(0, expires_ms, Timer::Dedupe, request_id.as_bytes());
    }
    Ok(answer)
}

/// Whether a command comes with each run or each thing that one remembers: as often as users come.
fn is_traffic(command: &Command) -> bool {
    matches!(
        command,
        Command::StartRun(_)
            | Command::CancelRun(_)
            | Command::FinishRun(_)
            | Command::KeepRun(_)
            | Command::ScoreRun(_)
            | Command::SignalRun(_)
            | Command::EndSession(_)
            | Command::PutMemory(_)
            | Command::DeleteMemory(_)
    )
}

fn place(number: u64) -> RowKey {
    Key::new(Kind::TrafficId).u64(number).build()
}

/// Puts an id behind all others of traffic.
fn line_up(txn: &mut Txn<'_>, request_id: String) {
    if txn.cluster.traffic_ids_begin == txn.cluster.traffic_ids_end {
        txn.cluster.traffic_ids_since_ms = txn.now;
    }
    let row = TrafficIdRecord { request_id, used_ms: txn.now };
    txn.put(place(txn.cluster.traffic_ids_end), &row);
    txn.cluster.traffic_ids_end += 1;
}

/// Forgets the oldest ids of traffic: those of more than an hour ago, and one for the new one where there are as many as may be.
fn make_room(txn: &mut Txn<'_>) -> Result<(), Stop> {
    for _ in 0..FORGOTTEN_AT_ONCE {
        let cluster = &txn.cluster;
        let count = cluster.traffic_ids_end - cluster.traffic_ids_begin;
        let is_full = count >= limits::DEDUPE_ROWS;
        let may_be_over = txn.now >= cluster.traffic_ids_since_ms + limits::DEDUPE_MS;
        if count == 0 || !(is_full || may_be_over) {
            return Ok(());
        }
        let key = place(cluster.traffic_ids_begin);
        let oldest: TrafficIdRecord = txn.get(&key)?.ok_or_else(|| {
            Fault(format!("the request id of place {} is gone", hex::encode(&key)))
        })?;
        txn.cluster.traffic_ids_since_ms = oldest.used_ms;
        if !is_full && txn.now < oldest.used_ms + limits::DEDUPE_MS {
            return Ok(());
        }
        txn.delete(Key::new(Kind::Dedupe).last(&oldest.request_id));
        txn.delete(key);
        txn.cluster.traffic_ids_begin += 1;
    }
    Ok(())
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
        .map_err(|error| Fault(format!("kept answer does not decode: {error}")))?;
    outcome.result.ok_or_else(|| Fault("kept answer is empty".to_owned()).into())
}

fn digest(command: &Command, feature_level: u32) -> [u8; 32] {
    let mut asked = command.clone();
    // What the nodes add of workers that they know is another with each repeat, and so is the span that a repeat is made under.
    let knows_repeats = feature_level >= level::REPEATS_ARE_WHAT_WAS_ASKED;
    match &mut asked {
        Command::StartRun(it) => {
            it.lease_first = None;
            if knows_repeats {
                it.trace_parent.clear();
            }
        }
        Command::Switch(it) => it.capacity = None,
        Command::StartDrill(it) if knows_repeats => it.capacity = None,
        _ => {}
    }
    let bare = log::Command { header: None, kind: Some(asked) };
    Sha256::digest(bare.encode_to_vec()).into()
}

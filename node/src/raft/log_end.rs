//! Where the log ended when the node was stopped in order: a log that has lost its end since must not pass for one that never
//! had more, for this member has acknowledged and voted for what is gone.
//!
//! Only an orderly stop leaves it, and the next start takes it away before anything is written. After a crash a torn end is
//! legitimate, and RocksDB's own checksums are all there is.

use std::io;

use pinrail_proto::log as pb;
use prost::Message as _;

use crate::storage::{DataDir, damaged};

use super::log_store::LogStore;
use super::types::{LogId, Vote, get_log_id, get_vote, put_log_id, put_vote};

/// Notes where a closed log ends.
///
/// # Errors
/// When the disk fails.
pub(super) fn note(directory: &DataDir, log: &LogStore) -> io::Result<()> {
    let (vote, last) = log.end();
    let end = pb::LogEnd {
        vote: vote.as_ref().map(put_vote),
        last_log_id: last.as_ref().map(put_log_id),
    };
    directory.note_end(&end.encode_to_vec())
}

/// Compares a log that was opened with the note, if there is one.
///
/// # Errors
/// When the log has less than it had, the note is damaged, or the disk fails.
pub(super) fn verify(
    directory: &DataDir,
    vote: Option<Vote>,
    last: Option<LogId>,
) -> io::Result<()> {
    let Some(noted) = directory.noted_end()? else { return Ok(()) };
    let noted = pb::LogEnd::decode(noted.as_slice()).map_err(|error| damaged(error.to_string()))?;
    let (had, had_vote) =
        (noted.last_log_id.map(get_log_id), noted.vote.map(|vote| get_vote(Some(vote))));
    if last < had {
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index());
        let (is, was) = (index(last), index(had));
        return Err(damaged(format!(
            "it ended at entry {was} when the node was stopped, and ends at {is}"
        )));
    }
    if vote < had_vote {
        return Err(damaged("it has forgotten the vote that it had when the node was stopped"));
    }
    Ok(())
}

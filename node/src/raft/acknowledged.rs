//! What each member has acknowledged to this leader, so that one that has forgotten some of it is found.
//!
//! Raft counts an acknowledgement for good. A member that comes back without entries that it acknowledged (an old copy of
//! its disk, a log that lost its end) breaks that, and openraft has no answer to its conflict: it ends the leader, and
//! then the next one. So openraft never sees that conflict: the member counts as one that does not answer, and
//! `membership.rs` writes down that it forgot, so that it takes no part any more, whoever leads.

use std::collections::BTreeMap;

use openraft::raft::{StreamAppendError, StreamAppendResult};
use parking_lot::Mutex;

use super::types::{LogId, TypeConfig, Vote};

/// Of all members, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    members: Mutex<BTreeMap<u64, Memory>>,
}

/// Of one member.
#[derive(Debug, Clone, Default)]
struct Memory {
    /// Whose number it is: a member that begins anew with an empty directory may get the number again.
    directory: String,
    /// The last entry that it acknowledged, and to which leadership: another one may lawfully have it take back what was
    /// not committed.
    upto: Option<(Vote, LogId)>,
    forgot: bool,
}

impl Acknowledged {
    /// Takes down an answer to the leader of `vote`. False: the member has forgotten what it acknowledged.
    pub(super) fn hear(
        &self,
        member: u64,
        directory: &str,
        vote: &Vote,
        answer: &StreamAppendResult<TypeConfig>,
    ) -> bool {
        let mut members = self.members.lock();
        let memory = members.entry(member).or_default();
        if memory.is_of_another(directory) {
            *memory = Memory::default();
        }
        if memory.directory.is_empty() {
            directory.clone_into(&mut memory.directory);
        }
        let upto = memory.upto.filter(|(to, _)| to == vote).map(|(_, upto)| upto);
        match answer {
            Ok(now) => memory.upto = upto.max(*now).map(|upto| (*vote, upto)),
            Err(StreamAppendError::Conflict(at)) if upto >= Some(*at) => {
                if !memory.forgot {
                    tracing::error!(
                        member,
                        lacks = at.index(),
                        acknowledged = upto.map_or(0, |upto| upto.index()),
                        "a member has come back without entries that it had acknowledged: it takes no part any more. Was \
                         an old copy of its disk put back? docs/RECOVERY.md says how to rebuild it"
                    );
                }
                memory.forgot = true;
            }
            Err(StreamAppendError::Conflict(_) | StreamAppendError::HigherVote(_)) => {}
        }
        !memory.forgot
    }

    /// Whether the member with this directory has forgotten what it acknowledged here.
    pub(super) fn has_forgotten(&self, member: u64, directory: &str) -> bool {
        let members = self.members.lock();
        members.get(&member).is_some_and(|it| it.forgot && !it.is_of_another(directory))
    }
}

impl Memory {
    /// A directory that is not known yet is that of whoever has the number.
    fn is_of_another(&self, directory: &str) -> bool {
        !self.directory.is_empty() && !directory.is_empty() && self.directory != directory
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::LeaderId;
    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: 1 }, index)
    }

    fn vote(term: u64) -> Vote {
        let mut vote = Vote::new(term, 1);
        vote.committed = true;
        vote
    }

    fn conflict(index: u64) -> StreamAppendResult<TypeConfig> {
        Err(StreamAppendError::Conflict(id(index)))
    }

    #[test]
    fn a_conflict_where_something_was_acknowledged_is_forgetting() {
        let heard = Acknowledged::default();
        assert!(heard.hear(2, "d", &vote(1), &conflict(9)), "the search for where it is");
        assert!(heard.hear(2, "d", &vote(1), &Ok(Some(id(5)))));
        assert!(heard.hear(2, "d", &vote(1), &conflict(6)));
        assert!(!heard.hear(2, "d", &vote(1), &conflict(5)));
        assert!(heard.has_forgotten(2, "d"));
        assert!(!heard.hear(2, "d", &vote(2), &Ok(Some(id(5)))), "a later leadership knows it too");
        assert!(!heard.has_forgotten(3, "d"));
    }

    #[test]
    fn another_leadership_may_take_back_and_another_directory_begins_anew() {
        let heard = Acknowledged::default();
        assert!(heard.hear(2, "", &vote(1), &Ok(Some(id(9)))));
        assert!(heard.hear(2, "d", &vote(2), &conflict(9)));
        assert!(heard.hear(2, "d", &vote(2), &Ok(Some(id(9)))));
        assert!(!heard.hear(2, "d", &vote(2), &conflict(3)));
        assert!(!heard.has_forgotten(2, "e"));
        assert!(heard.hear(2, "e", &vote(2), &conflict(3)));
        assert!(!heard.has_forgotten(2, "e"));
    }
}

//! Appends to one member that are under way, and which of its answers Raft may hear of.
//!
//! openraft (0.10.0-alpha.37) takes the answer to one append as the answer to every later one that ends at the same entry, and
//! what it believes to have been confirmed then is a moment at which nothing was sent yet. An append that only says how far the
//! commit is ends where the one before it does. So a leader whose answers came late, and that led no more, took one to an old
//! append for the confirmation of a read that had come since, and answered it from the past (seed 253 of the simulation).

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::types::LogId;

/// The last entry of each append without an answer, oldest first. Answers come in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Unanswered(Arc<Mutex<VecDeque<Option<LogId>>>>);

impl Unanswered {
    /// An append is sent that ends at this entry.
    pub(super) fn sent(&self, last: Option<LogId>) {
        self.0.lock().push_back(last);
    }

    /// The oldest one is answered: the member has everything up to this entry. False: a later one ends there too, whose answer says
    /// as much; until it comes, nothing is confirmed.
    pub(super) fn is_heard(&self, matching: Option<LogId>) -> bool {
        let mut unanswered = self.0.lock();
        unanswered.pop_front();
        unanswered.front().is_none_or(|last| *last > matching)
    }
}

#[cfg(test)]
mod tests {
    use pinrail_proto::log as pb;

    use super::super::types::get_log_id;
    use super::*;

    fn entry(index: u64) -> Option<LogId> {
        Some(get_log_id(pb::LogId { leader_id: None, index }))
    }

    #[test]
    fn an_answer_is_heard_when_no_later_append_ends_where_it_does() {
        let unanswered = Unanswered::default();
        for last in [entry(4), entry(5), entry(5), entry(5), entry(6)] {
            unanswered.sent(last);
        }
        let heard = [entry(4), entry(5), entry(5), entry(5), entry(6)]
            .map(|matching| unanswered.is_heard(matching));
        assert_eq!(heard, [true, false, false, true, true]);
    }

    #[test]
    fn one_that_says_only_how_far_the_commit_is_holds_the_answer_before_it_back() {
        let unanswered = Unanswered::default();
        unanswered.sent(entry(5));
        unanswered.sent(entry(5));
        assert!(!unanswered.is_heard(entry(5)), "the read that came in between is not confirmed");
        assert!(unanswered.is_heard(entry(5)));
        // It begins with an empty log.
        unanswered.sent(None);
        assert!(unanswered.is_heard(None));
    }

    #[test]
    fn a_member_that_took_a_part_is_heard() {
        let unanswered = Unanswered::default();
        unanswered.sent(entry(9));
        unanswered.sent(entry(12));
        assert!(unanswered.is_heard(entry(7)));
    }
}

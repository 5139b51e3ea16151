//! What the cluster has not answered yet. It survives the stream: after a reconnect everything is sent again with its
//! token, which makes a repeat the same as the first.
//!
//! Pure bookkeeping: time comes in as an argument and nothing is sent from here. Bounded by the slots: a step waits for
//! its answers, and an attempt ends once.

use std::collections::{BTreeMap, BTreeSet};

use pinrail_proto::limits::API_MESSAGE_BYTES;
use pinrail_proto::{reason, v1};
use tokio::sync::oneshot;
use tokio::time::Instant;
use v1::work_request::Message;

use crate::retry::{backoff, is_transient};
use crate::worker::held::Token;
use crate::worker::outcome::{StepError, StepResult};

/// Who waits for an answer.
pub(crate) type Reply = oneshot::Sender<StepResult<u64>>;

/// What was asked, and how far it is.
#[derive(Debug)]
struct Entry {
    token: Token,
    message: Message,
    reply: Option<Reply>,
    not_before: Option<Instant>,
    attempts: u32,
    /// An earlier copy may have been done.
    uncertain: bool,
}

/// Everything that waits for an answer, in the order in which it was asked.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    last_sequence: u64,
    entries: BTreeMap<u64, Entry>,
    /// Those that are not on the present stream.
    unsent: BTreeSet<u64>,
}

/// What is to come, as was asked for with a completion.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    Nothing,
    /// The run's next step.
    Step,
    /// The first step of the run that continues this one.
    Run(String),
}

/// What an answer means for the worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The lease of this token is over.
    LeaseOver { token: Token, next: Follows },
    /// Somebody inside the step was answered, or the answer was about nothing that is known.
    Other,
    /// It will be sent again.
    Again,
}

impl Outbox {
    /// Takes a message in. Its sequence number stays the same however often it is sent.
    ///
    /// What is beyond the size of a message is refused here, as the cluster would refuse it: it would break the stream,
    /// and the next one, for ever.
    pub(crate) fn push(&mut self, token: Token, message: Message, reply: Option<Reply>) {
        self.last_sequence += 1;
        let bytes = message.encoded_len();
        let mut entry =
            Entry { token, message, reply, not_before: None, attempts: 0, uncertain: false };
        if bytes > MESSAGE_BYTES {
            let refused = too_large(bytes);
            if !entry.becomes_failure(&refused) {
                entry.settle(Err(StepError::refused(refused)), Follows::Nothing);
                return;
            }
        }
        self.entries.insert(self.last_sequence, entry);
        self.unsent.insert(self.last_sequence);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The next message that should be sent now.
    pub(crate) fn due(&self, now: Instant) -> Option<(u64, v1::WorkRequest)> {
        let unsent = self.unsent.iter().filter_map(|one| self.entries.get_key_value(one));
        let mut due = unsent.filter(|(_, entry)| entry.not_before.is_none_or(|at| at <= now));
        let (sequence, entry) = due.next()?;
        let message = Some(entry.message.clone());
        Some((*sequence, v1::WorkRequest { sequence: *sequence, message }))
    }

    /// When the next message that waits may be sent.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let unsent = self.unsent.iter().filter_map(|sequence| self.entries.get(sequence));
        unsent.filter_map(|entry| entry.not_before).min()
    }

    pub(crate) fn mark_sent(&mut self, sequence: u64) {
        self.unsent.remove(&sequence);
    }

    /// The stream is gone: whether what was sent had been done is not known.
    pub(crate) fn stream_lost(&mut self) {
        for (sequence, entry) in &mut self.entries {
            if self.unsent.insert(*sequence) {
                entry.not_before = None;
                entry.uncertain = true;
            }
        }
    }

    /// Takes in that a message was done.
    pub(crate) fn done(&mut self, sequence: u64, done: v1::Done) -> Settled {
        let Some(entry) = self.entries.remove(&sequence) else { return Settled::Other };
        let follows = match done.continued_as {
            next if !next.is_empty() => Follows::Run(next),
            _ if done.closed => Follows::Nothing,
            _ => Follows::Step,
        };
        entry.settle(Ok(done.revision), follows)
    }

    /// Takes in that nobody knows whether a message was done.
    pub(crate) fn unknown(&mut self, sequence: u64, now: Instant) -> Settled {
        self.again(sequence, now, true)
    }

    /// Takes in that a message was refused.
    pub(crate) fn refused(&mut self, sequence: u64, refused: v1::Refused, now: Instant) -> Settled {
        if is_transient(&refused.reason) {
            return self.again(sequence, now, false);
        }
        let Some(mut entry) = self.entries.remove(&sequence) else { return Settled::Other };
        if entry.becomes_failure(&refused) {
            self.entries.insert(sequence, entry);
            self.unsent.insert(sequence);
            return Settled::Again;
        }
        let mismatch = refused.reason == reason::REVISION_MISMATCH.name;
        if mismatch && entry.uncertain {
            // The first copy may be what changed the key: the step has to read it again.
            let message = "whether a conditional memory write was done is not known";
            let error = StepError::retry(message).with_reason(reason::OUTCOME_UNKNOWN.name);
            return entry.settle(Err(error), Follows::Nothing);
        }
        tracing::debug!(reason = refused.reason, message = refused.message, "the cluster refused");
        entry.settle(Err(StepError::refused(refused)), Follows::Nothing)
    }

    /// The lease is gone: whoever waits is told, and nothing of it is sent any more.
    pub(crate) fn drop_lease(&mut self, token: Token) {
        let gone: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.token == token)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in gone {
            self.unsent.remove(&sequence);
            if let Some(entry) = self.entries.remove(&sequence) {
                entry.settle(Err(StepError::stale()), Follows::Nothing);
            }
        }
    }

    fn again(&mut self, sequence: u64, now: Instant, uncertain: bool) -> Settled {
        let Some(entry) = self.entries.get_mut(&sequence) else { return Settled::Other };
        self.unsent.insert(sequence);
        entry.not_before = Some(now + backoff(entry.attempts));
        entry.attempts = entry.attempts.saturating_add(1);
        entry.uncertain |= uncertain;
        Settled::Again
    }
}

/// The largest message, with room for its sequence number.
const MESSAGE_BYTES: usize = API_MESSAGE_BYTES - 64;

fn too_large(bytes: usize) -> v1::Refused {
    v1::Refused {
        code: reason::LIMIT_EXCEEDED.code,
        reason: reason::LIMIT_EXCEEDED.name.to_owned(),
        message: format!("the message has {bytes} bytes; at most {MESSAGE_BYTES} are allowed"),
        ..v1::Refused::default()
    }
}

/// Reasons that say that nothing can be reported for the lease any more.
const OVER: [reason::Reason; 5] = [
    reason::LEASE_STALE,
    reason::RUN_CLOSED,
    reason::PIN_EXPIRED,
    reason::RUN_NOT_FOUND,
    reason::STEP_NOT_READY,
];

impl Entry {
    /// A result that the cluster does not take (too large, a bad name) is a failure of the step, so that somebody
    /// hears of it. The lease goes on until that is known.
    fn becomes_failure(&mut self, refused: &v1::Refused) -> bool {
        let Message::Complete(complete) = &self.message else { return false };
        if OVER.iter().any(|reason| reason.name == refused.reason) {
            return false;
        }
        // A memory write of the completion lost a race: another attempt reads anew.
        let error = if refused.reason == reason::REVISION_MISMATCH.name {
            StepError::retry(&refused.message).with_reason(refused.reason.clone())
        } else {
            StepError::fatal(refused.reason.clone(), &refused.message)
        };
        self.message = Message::Fail(v1::FailStep {
            run_id: complete.run_id.clone(),
            step: complete.step,
            token: complete.token,
            failure: Some(error.into_failure()),
            usage: complete.usage.clone(),
            progress: None,
        });
        true
    }

    fn settle(self, answer: StepResult<u64>, follows: Follows) -> Settled {
        let next = match &self.message {
            Message::Complete(complete) if complete.lease_next => Some(follows),
            Message::Complete(_) | Message::Fail(_) | Message::HandBack(_) => {
                Some(Follows::Nothing)
            }
            Message::Checkpoint(_)
            | Message::MemoryPut(_)
            | Message::Hello(_)
            | Message::Credit(_)
            | Message::Heartbeat(_)
            | Message::Emit(_) => None,
        };
        if let Some(reply) = self.reply {
            // Nobody waits any more when the step was dropped meanwhile.
            drop(reply.send(answer));
        }
        match next {
            Some(next) => Settled::LeaseOver { token: self.token, next },
            None => Settled::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token { revision: 5, incarnation: 1 };

    fn complete(lease_next: bool) -> Message {
        Message::Complete(v1::CompleteStep { lease_next, ..Default::default() })
    }

    fn send_all(outbox: &mut Outbox, now: Instant) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some((sequence, request)) = outbox.due(now) {
            assert_eq!(request.sequence, sequence);
            outbox.mark_sent(sequence);
            sent.push(sequence);
        }
        sent
    }

    #[test]
    fn unanswered_completions_are_sent_again_after_a_reconnect() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.push(TOKEN, complete(true), None);
        assert_eq!(send_all(&mut outbox, now), [1]);
        assert_eq!(send_all(&mut outbox, now), [0_u64; 0]);
        outbox.stream_lost();
        assert_eq!(send_all(&mut outbox, now), [1]);
        let settled = outbox.done(1, v1::Done { closed: true, ..Default::default() });
        let over = Settled::LeaseOver { token: TOKEN, next: Follows::Nothing };
        assert_eq!(settled, over);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_follows_a_completion_is_what_was_asked_for_and_answered() {
        let done = |closed, continued_as: &str| v1::Done {
            closed,
            continued_as: continued_as.to_owned(),
            ..Default::default()
        };
        let cases = [
            (true, done(false, ""), Follows::Step),
            (true, done(true, ""), Follows::Nothing),
            (true, done(true, "a+1"), Follows::Run("a+1".to_owned())),
            (false, done(false, ""), Follows::Nothing),
        ];
        for (lease_next, done, next) in cases {
            let mut outbox = Outbox::default();
            outbox.push(TOKEN, complete(lease_next), None);
            assert_eq!(outbox.done(1, done), Settled::LeaseOver { token: TOKEN, next });
        }
    }

    #[test]
    fn unknown_and_transient_answers_are_asked_again_later() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.push(TOKEN, complete(false), None);
        send_all(&mut outbox, now);
        assert_eq!(outbox.unknown(1, now), Settled::Again);
        assert_eq!(outbox.due(now), None);
        let due = outbox.next_due().expect("it waits");
        assert_eq!(send_all(&mut outbox, due), [1]);
        let refused = v1::Refused { reason: "NO_LEADER".into(), ..Default::default() };
        assert_eq!(outbox.refused(1, refused, due), Settled::Again);
        assert!(!outbox.is_empty());
    }

    #[test]
    fn what_would_break_every_stream_is_refused_at_once() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let large = || {
            let data = vec![b'x'; API_MESSAGE_BYTES].into();
            v1::Payload { content_type: "text/plain".into(), data }
        };
        let outcome = Some(v1::complete_step::Outcome::Done(large()));
        outbox.push(
            TOKEN,
            Message::Complete(v1::CompleteStep { outcome, ..Default::default() }),
            None,
        );
        let (_, request) = outbox.due(now).expect("a failure is sent in its place");
        let Some(Message::Fail(fail)) = request.message else { panic!("{:?}", request.sequence) };
        assert_eq!(fail.failure.expect("it has one").reason, "LIMIT_EXCEEDED");
        let (reply, mut answer) = oneshot::channel();
        let value = v1::Checkpoint { name: "c".into(), value: Some(large()), order: 1 };
        let checkpoint = v1::RecordCheckpoint { checkpoint: Some(value), ..Default::default() };
        outbox.push(TOKEN, Message::Checkpoint(checkpoint), Some(reply));
        let error = answer.try_recv().expect("answered at once").expect_err("refused");
        assert_eq!(error.reason(), "LIMIT_EXCEEDED");
        outbox.mark_sent(1);
        assert_eq!(outbox.due(now), None);
    }

    #[test]
    fn a_stale_completion_is_dropped() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.push(TOKEN, complete(true), None);
        send_all(&mut outbox, now);
        let refused = v1::Refused { reason: "LEASE_STALE".into(), ..Default::default() };
        let over = Settled::LeaseOver { token: TOKEN, next: Follows::Nothing };
        assert_eq!(outbox.refused(1, refused, now), over);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_result_that_the_cluster_does_not_take_becomes_a_failure() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.push(TOKEN, complete(true), None);
        send_all(&mut outbox, now);
        let refused = v1::Refused { reason: "LIMIT_EXCEEDED".into(), ..Default::default() };
        assert_eq!(outbox.refused(1, refused, now), Settled::Again);
        let (_, request) = outbox.due(now).expect("it is sent again");
        let Some(Message::Fail(fail)) = request.message else { panic!("{request:?}") };
        let failure = fail.failure.expect("a failure");
        assert_eq!((failure.reason.as_str(), failure.non_retryable), ("LIMIT_EXCEEDED", true));
    }

    #[tokio::test]
    async fn a_lost_lease_answers_whoever_waits() {
        let mut outbox = Outbox::default();
        let (reply, answer) = oneshot::channel();
        let message = Message::Checkpoint(v1::RecordCheckpoint::default());
        outbox.push(TOKEN, message, Some(reply));
        outbox.drop_lease(TOKEN);
        assert!(outbox.is_empty());
        let error = answer.await.expect("an answer").expect_err("the lease is gone");
        assert!(error.is_stale());
    }

    #[tokio::test]
    async fn a_conditional_write_that_may_have_been_done_is_not_called_refused() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let (reply, answer) = oneshot::channel();
        outbox.push(TOKEN, Message::MemoryPut(v1::WorkerMemoryPut::default()), Some(reply));
        send_all(&mut outbox, now);
        outbox.stream_lost();
        send_all(&mut outbox, now);
        let refused = v1::Refused { reason: "REVISION_MISMATCH".into(), ..Default::default() };
        assert_eq!(outbox.refused(1, refused, now), Settled::Other);
        let error = answer.await.expect("an answer").expect_err("nobody knows");
        assert_eq!(error.reason(), "OUTCOME_UNKNOWN");
        assert!(error.is_retryable());
    }
}

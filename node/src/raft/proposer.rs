//! Proposals of this node while it leads: what waits is packed into one log entry, and the next one forms while
//! it is in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::Raft;
use openraft::errors::{ClientWriteError, RaftError};
use pinrail_proto::limits;
use pinrail_proto::log as pb;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use super::cluster_time::ClusterTime;
use super::replica::ProposeError;
use super::state_machine::StateMachine;
use super::types::{EncodedBatch, Reply, TypeConfig};

/// Commands that may wait to be packed; more are refused with a hint when to come again.
const QUEUE: usize = 8_192;
/// Entries in flight. More than one only helps when the first is stuck; order between callers is not promised.
const IN_FLIGHT: usize = 4;
/// When to come again after a refusal.
pub(super) const RETRY: Duration = Duration::from_millis(50);

/// Commands of one caller, which stay together, and whom to tell.
struct Proposal {
    commands: Vec<Bytes>,
    /// Whoever sets it first decides: the caller gave up, or the commands went into the log.
    taken: Arc<AtomicBool>,
    reply: oneshot::Sender<Result<Vec<pb::Outcome>, Failed>>,
}

/// Why the commands of an entry were not answered with outcomes.
#[derive(Debug, Clone)]
pub(super) enum Failed {
    /// They were not appended.
    NotLeader,
    /// They may be applied yet.
    Unknown(String),
}

#[derive(Debug, Clone)]
pub(super) struct Proposer {
    queue: mpsc::Sender<Proposal>,
}

impl std::fmt::Debug for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proposal").field("commands", &self.commands.len()).finish_non_exhaustive()
    }
}

impl Proposer {
    pub(super) fn start(raft: Raft<TypeConfig, StateMachine>, time: Arc<ClusterTime>) -> Self {
        let (queue, proposals) = mpsc::channel(QUEUE);
        tokio::spawn(run(raft, time, proposals));
        Self { queue }
    }

    /// Proposes commands, which go into one entry together.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`] when they went into the log and no answer came in time.
    pub(super) async fn propose(
        &self,
        commands: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Vec<pb::Outcome>, ProposeError> {
        if let Some(command) = commands.iter().find(|command| command.len() > limits::COMMAND_BYTES)
        {
            return Err(ProposeError::TooLarge {
                size: command.len(),
                limit: limits::COMMAND_BYTES,
            });
        }
        let taken = Arc::new(AtomicBool::new(false));
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal { commands, taken: Arc::clone(&taken), reply };
        match self.queue.try_send(proposal) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(ProposeError::Overloaded { retry_after: RETRY });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ProposeError::Stopping),
        }
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(Ok(outcomes))) => Ok(outcomes),
            Ok(Ok(Err(Failed::NotLeader))) => Err(ProposeError::NotLeader { leader: None }),
            Ok(Ok(Err(Failed::Unknown(why)))) => Err(ProposeError::Unknown { why }),
            Ok(Err(_)) => Err(ProposeError::Unknown { why: "the node stopped".to_owned() }),
            // Still in the queue: it will be skipped there, so nothing was written.
            Err(_) if !taken.swap(true, Ordering::AcqRel) => Err(ProposeError::NoQuorum),
            Err(_) => Err(ProposeError::Unknown { why: "no answer within the timeout".to_owned() }),
        }
    }
}

async fn run(
    raft: Raft<TypeConfig, StateMachine>,
    time: Arc<ClusterTime>,
    mut proposals: mpsc::Receiver<Proposal>,
) {
    let mut in_flight = FuturesUnordered::new();
    let mut held: Option<Proposal> = None;
    loop {
        if held.is_none() && in_flight.len() < IN_FLIGHT {
            tokio::select! {
                biased;
                Some(()) = in_flight.next(), if !in_flight.is_empty() => continue,
                proposal = proposals.recv() => match proposal {
                    Some(proposal) => held = Some(proposal),
                    None => break,
                },
            }
        } else if in_flight.len() >= IN_FLIGHT {
            in_flight.next().await;
            continue;
        }
        let packed = pack(&mut held, &mut proposals);
        if !packed.is_empty() {
            in_flight.push(write(raft.clone(), time.stamp_ms(), packed));
        }
    }
    while in_flight.next().await.is_some() {}
}

/// Takes what waits, as much as fits one entry; what does not fit is held for the next.
fn pack(held: &mut Option<Proposal>, proposals: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let mut packed = Vec::new();
    let (mut commands, mut bytes) = (0, 0);
    while let Some(proposal) = held.take().or_else(|| proposals.try_recv().ok()) {
        let size: usize = proposal.commands.iter().map(Bytes::len).sum();
        let full = commands + proposal.commands.len() > limits::BATCH_COMMANDS
            || bytes + size > limits::BATCH_BYTES;
        if full && !packed.is_empty() {
            *held = Some(proposal);
            break;
        }
        if proposal.taken.swap(true, Ordering::AcqRel) {
            continue;
        }
        commands += proposal.commands.len();
        bytes += size;
        packed.push(proposal);
    }
    packed
}

async fn write(raft: Raft<TypeConfig, StateMachine>, stamp_ms: u64, packed: Vec<Proposal>) {
    let commands = packed.iter().flat_map(|proposal| proposal.commands.iter().cloned()).collect();
    let batch = pb::Batch { stamp_ms, commands };
    let written = raft.client_write(EncodedBatch(Bytes::from(batch.encode_to_vec()))).await;
    let result = match written {
        Ok(response) => Ok(response.data),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Failed::NotLeader),
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
            Err(Failed::Unknown("the leader changed while the write was under way".to_owned()))
        }
        Err(RaftError::APIError(error)) => Err(Failed::Unknown(error.to_string())),
        Err(RaftError::Fatal(fatal)) => Err(Failed::Unknown(fatal.to_string())),
    };
    answer(packed, result);
}

fn answer(packed: Vec<Proposal>, result: Result<Reply, Failed>) {
    let mut outcomes = match result {
        Ok(reply) => reply.0.into_iter(),
        Err(failed) => {
            for proposal in packed {
                // Who asked may have given up.
                let _ = proposal.reply.send(Err(failed.clone()));
            }
            return;
        }
    };
    for proposal in packed {
        let own = outcomes.by_ref().take(proposal.commands.len()).collect();
        let _ = proposal.reply.send(Ok(own));
    }
}

//! Linearizable reads: all that wait share one ReadIndex round. A follower asks the leader for the index.

use openraft::ReadPolicy;
use pinrail_proto::peer;
use pinrail_state_machine::mutant::{Mutant, is_planted};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::lead::Leadership;
use super::replica::{PeerInfo, ReadError, Replica};

/// Reads that may wait for one round.
const WAITING: usize = 65_536;
/// Wait before the round is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// One round to a leader elsewhere.
const ROUND: Duration = Duration::from_secs(2);

pub(super) type Waiter = oneshot::Sender<Result<u64, ReadError>>;

#[derive(Debug, Clone)]
pub(super) struct Reads {
    waiting: mpsc::Sender<Waiter>,
}

impl Reads {
    /// The handle, and what its task works off once the replica is there.
    pub(super) fn new() -> (Self, mpsc::Receiver<Waiter>) {
        let (waiting, rounds) = mpsc::channel(WAITING);
        (Self { waiting }, rounds)
    }

    /// The log index that a linearizable read has to wait for.
    pub(super) async fn index(
        &self,
        replica: &Replica,
        deadline: Instant,
    ) -> Result<u64, ReadError> {
        if is_planted(Mutant::ReadsWithoutQuorum) {
            return Ok(0);
        }
        loop {
            let (waiter, answer) = oneshot::channel();
            self.waiting.try_send(waiter).map_err(|_| ReadError::NoQuorum)?;
            match timeout_at(deadline, answer).await {
                Ok(Ok(Ok(index))) => return Ok(index),
                Ok(Ok(Err(error))) if Instant::now() + AGAIN >= deadline => return Err(error),
                Ok(Ok(Err(_))) => sleep(AGAIN).await,
                Ok(Err(_)) => return Err(ReadError::Stopping),
                Err(_) => return Err(no_answer(replica)),
            }
        }
    }
}

/// Without an answer in time: is there a leader that lost its majority, or none?
fn no_answer(replica: &Replica) -> ReadError {
    if replica.inner.leadership.borrow().leader.is_some() {
        ReadError::NoQuorum
    } else {
        ReadError::NoLeader
    }
}

/// One round after the other; each answers all that waited when it began.
pub(super) async fn run(replica: Replica, mut waiting: mpsc::Receiver<Waiter>) {
    while let Some(first) = waiting.recv().await {
        let mut waiters = vec![first];
        while let Ok(waiter) = waiting.try_recv() {
            waiters.push(waiter);
        }
        let result = round(&replica).await;
        for waiter in waiters {
            // Who waited may have given up.
            let _ = waiter.send(result.clone());
        }
    }
}

/// A leader that is cut off does not answer: the round ends when another one is known, and those that wait ask that.
async fn round(replica: &Replica) -> Result<u64, ReadError> {
    let mut leadership = replica.leadership();
    let leader = leadership.borrow_and_update().leader.clone().ok_or(ReadError::NoLeader)?;
    tokio::select! {
        answer = ask(replica, &leader) => answer,
        () = leads_no_more(&mut leadership, leader.node_id) => Err(ReadError::NoLeader),
    }
}

/// Waits until this node knows another leader, or none.
async fn leads_no_more(leadership: &mut watch::Receiver<Leadership>, node_id: u64) {
    let leads = |now: &Leadership| now.leader.as_ref().is_some_and(|it| it.node_id == node_id);
    if leadership.wait_for(|now| !leads(now)).await.is_err() {
        // The node ends, and its tasks with it.
        std::future::pending::<()>().await;
    }
}

async fn ask(replica: &Replica, leader: &PeerInfo) -> Result<u64, ReadError> {
    if leader.node_id == replica.identity().node_id {
        return replica.read_index_here().await;
    }
    let request =
        peer::ReadIndexRequest { sender: Some(replica.inner.network.sender(leader.node_id)) };
    let mut client = replica.inner.network.kept_client(&leader.peer_address);
    let answer = tokio::time::timeout(ROUND, client.read_index(request)).await;
    let answer = answer.map_err(|_| ReadError::NoQuorum)?.map_err(|_| ReadError::NoLeader)?;
    match answer.into_inner().result {
        Some(peer::read_index_response::Result::Index(index)) => Ok(index),
        Some(peer::read_index_response::Result::NotLeader(_)) | None => Err(ReadError::NoLeader),
    }
}

impl Replica {
    /// Confirms that this node leads and gives the index that reads have to wait for.
    pub(super) async fn read_index_here(&self) -> Result<u64, ReadError> {
        let round = self.raft().get_read_log_id(ReadPolicy::ReadIndex);
        let answer = tokio::time::timeout(ROUND, round).await.map_err(|_| ReadError::NoQuorum)?;
        match answer {
            Ok((read, _)) => Ok(read.index()),
            Err(_) => Err(ReadError::NoLeader),
        }
    }
}

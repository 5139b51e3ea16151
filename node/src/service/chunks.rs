//! Watching a run with what its steps emit. Chunks are in the leader's memory, so a follower relays the whole stream to it.

use std::pin::Pin;

use futures::Stream;
use pinrail_proto::limits;
use pinrail_proto::v1;
use pinrail_proto::v1::run_service_client::RunServiceClient;
use pinrail_state_machine::query;
use tokio::sync::mpsc;
use tokio::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::forward::forwarded;
use super::watch::{BUFFER, Feed, Watching, changed, look};
use super::{Node, error};

type Answers = Pin<Box<dyn Stream<Item = Result<v1::WatchRunResponse, Status>> + Send>>;

/// Passes the question on to the leader.
pub(super) async fn relay(
    node: &Node,
    request: Request<v1::WatchRunRequest>,
) -> Result<Answers, Status> {
    node.other_leader().await;
    let channel = node.leader_channel(&request)?;
    let mut leader =
        RunServiceClient::new(channel).max_decoding_message_size(limits::API_MESSAGE_BYTES);
    Ok(Box::pin(leader.watch_run(forwarded(request.into_inner())).await?.into_inner()))
}

/// The present state of a run and its chunks, then each change, until its end or until this node leads no more.
pub(super) async fn run(
    node: Node,
    it: v1::WatchRunRequest,
    timeout: Duration,
) -> Result<Answers, Status> {
    let watching = Watching::begin(&node)?;
    let feed = node.replica.feed();
    let find = |read: &dyn pinrail_state_machine::store::Read| {
        let run = query::run(read, &it.namespace, &it.agent_id, &it.run_id)?;
        query::agent_number(read, &it.namespace, &run.agent_id)
    };
    let (agent, _) = node.query(None, timeout, find).await?;
    let (answers, stream) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let _watching = watching;
        let mut watcher = Watcher {
            agent,
            place: it.after.unwrap_or_default(),
            seen: it.from_revision,
            told: false,
            it,
        };
        if let Err(status) = watcher.tell(&node, feed, &answers).await {
            // The watcher may be gone.
            let _ = answers.send(Err(status)).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// How far somebody who watches a run is.
struct Watcher {
    it: v1::WatchRunRequest,
    agent: u32,
    place: v1::ChunkPlace,
    seen: u64,
    /// Something was said of the run.
    told: bool,
}

impl Watcher {
    async fn tell(
        &mut self,
        node: &Node,
        mut feed: Feed,
        answers: &mpsc::Sender<Result<v1::WatchRunResponse, Status>>,
    ) -> Result<(), Status> {
        loop {
            let dispatch = &node.dispatch;
            let no_leader = || error::no_leader(dispatch.leader().as_ref());
            let run_id = self.it.run_id.clone();
            let signal = dispatch.chunk_signal(self.agent, &run_id).ok_or_else(no_leader)?;
            // Before the look: what comes in between is not missed.
            let more = signal.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            // The state first: chunks of a run that is over have all come.
            let now = look(node, &self.it)?;
            let emitted = dispatch.chunks(self.agent, &run_id, self.place).ok_or_else(no_leader)?;
            let closed = now.closed;
            for answer in self.answers(now, emitted) {
                if answers.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
            if closed {
                return Ok(());
            }
            tokio::select! {
                changed = changed(&mut feed, &run_id) => if !changed { return Ok(()) },
                () = more => {}
                () = answers.closed() => return Ok(()),
            }
        }
    }

    /// The news: chunks first, since they came before the change that follows them.
    fn answers(
        &mut self,
        now: v1::WatchRunResponse,
        emitted: crate::driver::Emitted,
    ) -> Vec<v1::WatchRunResponse> {
        let mut answers = Vec::new();
        if !emitted.chunks.is_empty() || emitted.gap {
            answers.push(v1::WatchRunResponse {
                at: now.at,
                chunks: emitted.chunks,
                gap: emitted.gap,
                place: Some(emitted.place),
                ..v1::WatchRunResponse::default()
            });
        }
        self.place = emitted.place;
        if now.revision > self.seen || (self.seen == 0 && !self.told) {
            self.seen = now.revision;
            answers.push(v1::WatchRunResponse { place: Some(emitted.place), ..now });
        }
        self.told = true;
        answers
    }
}

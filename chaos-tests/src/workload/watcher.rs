//! Somebody who watches the events of an agent, at one member after the other, and goes on where they were when a stream ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pinrail_proto::v1;
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::api::{Nodes, convert, request};
use crate::history::{EventFinal, Watched};

/// How long a member may take to open a stream.
const OPENS: Duration = Duration::from_secs(2);
/// A stream says how far it is every five seconds: one that is silent for longer is dead.
const SILENT: Duration = Duration::from_secs(12);
const PAUSE: Duration = Duration::from_millis(50);

/// Cheap to clone; all clones are the same one.
#[derive(Debug, Clone)]
pub struct Watcher {
    nodes: Nodes,
    /// The member that it asks first.
    first: usize,
    /// It takes so long over every answer.
    reads_for: Duration,
    heard: Arc<Mutex<Watched>>,
}

impl Watcher {
    #[must_use]
    pub fn new(nodes: Nodes, name: &str, agent: &str, first: usize, reads_for: Duration) -> Self {
        let heard = Arc::new(Mutex::new(Watched::of(name, agent)));
        Self { nodes, first, reads_for, heard }
    }

    #[must_use]
    pub fn heard(&self) -> Watched {
        self.lock().clone()
    }

    /// Watches until it is dropped.
    pub async fn run(self) {
        for node in self.first.. {
            // Whatever ended the stream, the next one goes on.
            let _ = self.watch(node).await;
            sleep(PAUSE).await;
        }
    }

    async fn watch(&self, node: usize) -> Result<(), Status> {
        let message = {
            let heard = self.lock();
            v1::WatchEventsRequest {
                agent_id: heard.agent.clone(),
                after_revision: heard.upto,
                ..v1::WatchEventsRequest::default()
            }
        };
        let mut events = self.nodes.stubs(node).events;
        let opened = timeout(OPENS, events.watch_events(request(message, OPENS))).await;
        let mut stream = opened.map_err(|_| silent())??.into_inner();
        loop {
            let answer = timeout(SILENT, stream.message()).await.map_err(|_| silent())??;
            let Some(answer) = answer else { return Ok(()) };
            let events: Vec<EventFinal> = answer.events.into_iter().map(convert::event).collect();
            self.lock().hear(&events, answer.revision);
            sleep(self.reads_for).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn silent() -> Status {
    Status::deadline_exceeded("the member is silent")
}

//! The socket of one step, for programs that have no connection of their own: whoever connects speaks the protocol and
//! is answered for this step, until the step is over.

use std::convert::Infallible;
use std::sync::Arc;

use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use super::outcome::PROTOCOL;
use super::peer::Peer;
use super::session::Session;

/// Connections of one step at once; more wait.
const CONNECTIONS: usize = 64;
/// After a connection that could not be accepted: out of file descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers all that connect, for as long as it is polled.
pub(super) async fn serve(listener: &UnixListener, session: &Arc<Session>) -> Infallible {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let session = Arc::clone(session);
                    open.spawn(async move { answer(&session, stream).await });
                }
                Err(_) => sleep(PAUSE).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn answer(session: &Session, stream: UnixStream) {
    let mut peer = Peer::new(stream);
    while let Ok(Some(_)) = session.talk(&mut peer).await {
        let message = "the outcome of this step does not come over the socket";
        let error = json!({ "error": { "reason": PROTOCOL, "message": message } });
        if peer.send(&error).await.is_err() {
            return;
        }
    }
}

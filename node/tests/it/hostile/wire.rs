//! gRPC as bare as it is on the wire: whatever bytes a caller likes to send, and what comes back.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Status;

/// A call that says nothing for so long hangs: the node gives none that names no time of its own more than ten seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// An answer that is a stream and says nothing for so long is left open by the node, which is legal.
const OPEN: Duration = Duration::from_millis(100);

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// `None`: a stream that is still open.
    pub(super) status: Option<Status>,
    /// The messages, framed.
    pub(super) data: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Wire(SendRequest<Bytes>);

impl Wire {
    pub(super) async fn connect(endpoint: &str) -> Self {
        let socket = TcpStream::connect(endpoint).await.expect("it listens");
        socket.set_nodelay(true).expect("it is a socket");
        let (send, connection) = h2::client::handshake(socket).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        Self(send)
    }

    /// Sends the frames to a method, and gives what it says; `Err`: it hung, or the call broke off without a status.
    pub(super) async fn call(&self, path: &str, frames: Bytes) -> Result<Answer, String> {
        match timeout(DEADLINE, self.answer(path, frames)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("it broke off: {error}")),
            Err(_) => Err("it hangs".to_owned()),
        }
    }

    async fn answer(&self, path: &str, frames: Bytes) -> Result<Answer, h2::Error> {
        let request = Request::post(format!("http://node{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("it is well formed");
        let mut send = self.0.clone().ready().await?;
        let (response, mut body) = send.send_request(request, false)?;
        // The node may have answered and closed already, which the answer shows.
        let _ = body.send_data(frames, true);
        let (head, mut body) = response.await?.into_parts();
        let mut data = Vec::new();
        if let Some(status) = status(&head.headers) {
            return Ok(Answer { status: Some(status), data });
        }
        loop {
            match timeout(OPEN, body.data()).await {
                Ok(Some(chunk)) => {
                    let chunk = chunk?;
                    body.flow_control().release_capacity(chunk.len())?;
                    data.extend_from_slice(&chunk);
                }
                Ok(None) => break,
                Err(_) => return Ok(Answer { status: None, data }),
            }
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        let status = status(&trailers).unwrap_or_else(|| Status::unknown("no status came"));
        Ok(Answer { status: Some(status), data })
    }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

/// A message behind the prefix that gRPC puts before it.
pub(super) fn framed(message: &[u8]) -> Bytes {
    prefixed(0, u32::try_from(message.len()).expect("tests send less"), message)
}

/// The same with any prefix.
pub(super) fn prefixed(compressed: u8, announced: u32, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(compressed);
    frame.put_u32(announced);
    frame.put_slice(message);
    frame.freeze()
}

/// The messages of a stream that came whole.
pub(super) fn messages(mut data: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = data.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let Some((message, rest)) = rest.split_at_checked(length) else { break };
        messages.push(message);
        data = rest;
    }
    messages
}

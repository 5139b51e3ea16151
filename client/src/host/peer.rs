//! One connection to a program: JSON, one object a line, both ways. It must not know what the objects mean.

use std::io;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::protocol::FromChild;

/// The longest line: a value at its limit, escaped, with its frame.
pub(super) const LINE: usize = 8 << 20;
/// What an error shows of a line that is none.
const SHOWN: usize = 200;

#[derive(Debug)]
pub(super) struct Peer {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
    /// What was read of the line that is on its way.
    line: Vec<u8>,
}

impl Peer {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (from, to) = stream.into_split();
        Self { from: BufReader::new(from), to, line: Vec::new() }
    }

    pub(super) async fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.to.write_all(&line).await
    }

    /// The next message; `None` when the connection was closed. What is no message is `InvalidData`, and the line is
    /// passed over. May be dropped and asked again.
    pub(super) async fn next(&mut self) -> io::Result<Option<FromChild>> {
        let room = LINE.saturating_sub(self.line.len());
        // Cancel safe: what was read is in `line`, and the next call goes on behind it.
        (&mut self.from).take(room as u64).read_until(b'\n', &mut self.line).await?;
        if self.line.last() != Some(&b'\n') {
            return match self.line.len() >= LINE {
                true => Err(io::Error::other(format!("a line is longer than {LINE} bytes"))),
                false => Ok(None),
            };
        }
        let parsed = serde_json::from_slice(&self.line);
        let shown: String =
            String::from_utf8_lossy(&self.line).trim().chars().take(SHOWN).collect();
        self.line.clear();
        parsed.map(Some).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{error}: {shown}"))
        })
    }
}

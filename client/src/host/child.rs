//! One child that is kept alive: its process and its connection. It takes one step at a time.

use std::io;
use std::process::Stdio;

use serde::Serialize;
use tokio::net::UnixListener;
use tokio::time::{Duration, timeout};

use super::peer::Peer;
use super::process::{Process, log};
use super::protocol::{FromChild, Hello, VERSION};
use super::socket::Socket;
use super::{Program, Served};

/// A framework may take its time to load.
const HELLO: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    pub(super) peer: Peer,
    pub(super) hello: Hello,
    /// Its file goes with the child.
    _socket: Socket,
}

impl Child {
    /// Starts the program and waits for its hello.
    pub(super) async fn start(
        program: &Program,
        served: &Served,
        socket: Socket,
    ) -> io::Result<Self> {
        let listener = socket.listen()?;
        let variables = [("PINRAIL_SOCKET", socket.to_string())];
        let (mut process, stdout) = Process::start(program, served, &variables, Stdio::null())?;
        tokio::spawn(log(stdout, process.stamped(), None));
        let met = timeout(HELLO, meet(&listener, &mut process)).await;
        let met = met.unwrap_or_else(|_| Err(io::Error::other("it did not say hello in time")));
        let (hello, peer) = met?;
        Ok(Self { process, peer, hello, _socket: socket })
    }

    /// Says whose output comes from here on.
    pub(super) fn stamp(&self, text: String) {
        self.process.stamp(text);
    }

    /// Whether it could take a step.
    pub(super) fn is_alive(&mut self) -> bool {
        self.process.is_alive()
    }

    pub(super) async fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        self.peer.send(message).await
    }

    /// Why it is gone, with the end of its stderr.
    pub(super) async fn obituary(&mut self) -> String {
        self.process.obituary().await
    }

    /// Asks it to end, and sees to it.
    pub(super) async fn end(mut self) {
        let _ = self.send(&serde_json::json!({ "type": "shutdown" })).await;
        self.process.end().await;
    }
}

async fn meet(listener: &UnixListener, process: &mut Process) -> io::Result<(Hello, Peer)> {
    let accepted = tokio::select! {
        accepted = listener.accept() => Some(accepted?.0),
        _ = process.wait() => None,
    };
    let Some(stream) = accepted else { return Err(io::Error::other(process.obituary().await)) };
    let mut peer = Peer::new(stream);
    match peer.next().await? {
        Some(FromChild::Hello(hello)) if hello.protocol == VERSION => Ok((hello, peer)),
        Some(FromChild::Hello(hello)) => {
            let theirs = hello.protocol;
            Err(io::Error::other(format!("it speaks protocol {theirs}, not {VERSION}")))
        }
        Some(_) | None => Err(io::Error::other("its first message is no hello")),
    }
}

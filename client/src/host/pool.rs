//! The children that wait for a step. There are never more than slots: the runtime runs no more steps than that.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::Rng as _;

use crate::error::{Error, Result};

use super::Host;
use super::child::Child;
use super::protocol::Hello;

#[derive(Debug)]
pub(super) struct Pool {
    host: Host,
    idle: Mutex<Vec<Child>>,
    /// Where the sockets are; only this user may enter.
    folder: PathBuf,
    started: AtomicU64,
}

impl Pool {
    pub(super) fn new(host: &Host) -> Result<Self> {
        let name = format!("pinrail-{:016x}", rand::rng().random::<u64>());
        let folder = std::env::temp_dir().join(name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| Error::invalid(format!("{}: {error}", folder.display())))?;
        let (host, idle) = (host.clone(), Mutex::default());
        Ok(Self { host, idle, folder, started: AtomicU64::new(0) })
    }

    /// Starts the first child, which says what the program serves.
    pub(super) async fn first(&self) -> io::Result<Hello> {
        let child = self.take().await?;
        let hello = child.hello.clone();
        self.keep(child);
        Ok(hello)
    }

    /// A child that waits, or a new one.
    pub(super) async fn take(&self) -> io::Result<Child> {
        loop {
            let waiting = self.idle.lock().pop();
            match waiting {
                Some(mut child) => {
                    if child.is_alive() {
                        return Ok(child);
                    }
                }
                None => break,
            }
        }
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        Child::start(&self.host, self.folder.join(format!("{number}.sock"))).await
    }

    pub(super) fn keep(&self, child: Child) {
        self.idle.lock().push(child);
    }

    /// Ends all children.
    pub(super) async fn end(&self) {
        let children = std::mem::take(&mut *self.idle.lock());
        futures::future::join_all(children.into_iter().map(Child::end)).await;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

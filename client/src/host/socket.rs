//! The Unix sockets of one host: a folder that only this user may enter, and a file in it for whoever calls back.

use std::fmt;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt as _;
use tokio::net::UnixListener;

use crate::error::{Error, Result};

/// The folder; it goes with its last user.
#[derive(Debug)]
pub(super) struct Sockets {
    folder: PathBuf,
    made: AtomicU64,
}

/// The name of one socket; dropping it removes its file.
#[derive(Debug)]
pub(super) struct Socket(PathBuf);

impl Sockets {
    pub(super) fn new() -> Result<Self> {
        let name = format!("pinrail-{:016x}", rand::rng().random::<u64>());
        let folder = std::env::temp_dir().join(name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| Error::invalid(format!("{}: {error}", folder.display())))?;
        Ok(Self { folder, made: AtomicU64::new(0) })
    }

    /// A name that none had before.
    pub(super) fn next(&self) -> Socket {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Socket(self.folder.join(format!("{number}.sock")))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Socket {
    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        let path: &Path = &self.0;
        UnixListener::bind(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

//! The data directory: one process at a time, one node for ever, a format that is known.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::snapshot::write_durably;

/// Format of the directory that this binary writes and the newest that it reads.
const FORMAT: u32 = 1;

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster: String,
    pub node: String,
    pub node_id: u64,
    /// Random, made with the directory. Empty in a directory that is older than this field, and in memory.
    pub directory: String,
}

/// Why a directory is not opened. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "another process uses the data directory {0}; stop it, or give this node a directory of its own"
    )]
    InUse(PathBuf),
    #[error(
        "the data directory {path} belongs to node {theirs} of cluster {their_cluster}, not to node {ours} of \
         cluster {our_cluster}; give this node a directory of its own"
    )]
    Foreign {
        path: PathBuf,
        theirs: String,
        their_cluster: String,
        ours: String,
        our_cluster: String,
    },
    #[error(
        "the data directory {path} has format {found}; this binary reads up to {known}: it is too old"
    )]
    TooNew { path: PathBuf, found: u32, known: u32 },
    #[error("the data directory {path} is damaged: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error("the data directory {path} cannot be used: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// A directory that this process holds. The lock ends with it.
#[derive(Debug)]
pub struct DataDir {
    pub identity: Identity,
    _lock: File,
}

impl DataDir {
    /// Takes a directory, which is made when it is not there. A new one gets `wanted` as its identity.
    ///
    /// # Errors
    /// When another process holds it, it belongs to another node or cluster, or its format is too new.
    pub fn open(path: &Path, wanted: &Identity) -> Result<Self, DataDirError> {
        let io = |error| DataDirError::Io { path: path.to_owned(), error };
        fs::create_dir_all(path).map_err(io)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("LOCK"))
            .map_err(io)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(DataDirError::InUse(path.to_owned()));
        }
        let identity = match fs::read_to_string(path.join("format-version")) {
            Ok(format) => {
                check_format(path, &format)?;
                existing(path, wanted)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path, wanted).map_err(io)?;
                wanted.clone()
            }
            Err(error) => return Err(io(error)),
        };
        Ok(Self { identity, _lock: lock })
    }
}

fn check_format(path: &Path, text: &str) -> Result<(), DataDirError> {
    let found = text.trim().parse().map_err(|_| DataDirError::Damaged {
        path: path.to_owned(),
        what: format!("format-version holds {text:?}"),
    })?;
    if found > FORMAT {
        return Err(DataDirError::TooNew { path: path.to_owned(), found, known: FORMAT });
    }
    Ok(())
}

/// `node-id` holds the cluster, the node and its number, a line each.
fn existing(path: &Path, wanted: &Identity) -> Result<Identity, DataDirError> {
    let damaged =
        |what: &str| DataDirError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let text =
        fs::read_to_string(path.join("node-id")).map_err(|_| damaged("node-id is not there"))?;
    let mut lines = text.lines();
    let (Some(cluster), Some(node), Some(number)) = (lines.next(), lines.next(), lines.next())
    else {
        return Err(damaged("node-id is too short"));
    };
    let node_id = number.parse().map_err(|_| damaged("node-id has no number"))?;
    if cluster != wanted.cluster || node != wanted.node {
        return Err(DataDirError::Foreign {
            path: path.to_owned(),
            theirs: node.to_owned(),
            their_cluster: cluster.to_owned(),
            ours: wanted.node.clone(),
            our_cluster: wanted.cluster.clone(),
        });
    }
    let directory = lines.next().unwrap_or_default().to_owned();
    Ok(Identity { cluster: cluster.to_owned(), node: node.to_owned(), node_id, directory })
}

/// The format goes in last: a directory without it is new.
fn create(path: &Path, identity: &Identity) -> io::Result<()> {
    let Identity { cluster, node, node_id, directory } = identity;
    let text = format!("{cluster}\n{node}\n{node_id}\n{directory}\n");
    write_durably(&path.join("node-id"), text.as_bytes())?;
    write_durably(&path.join("format-version"), FORMAT.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: &str, node: &str) -> Identity {
        let (cluster, node) = (cluster.to_owned(), node.to_owned());
        Identity { cluster, node, node_id: 7, directory: "d1".to_owned() }
    }

    #[test]
    fn a_directory_keeps_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let ours = identity("c", "n");
        drop(DataDir::open(dir.path(), &ours).unwrap());
        let wanted = Identity { node_id: 9, directory: "d2".to_owned(), ..ours.clone() };
        let again = DataDir::open(dir.path(), &wanted).unwrap();
        assert_eq!(again.identity, ours, "number and directory are kept");
        drop(again);
        for foreign in [identity("other", "n"), identity("c", "other")] {
            let refused = DataDir::open(dir.path(), &foreign);
            assert!(matches!(refused, Err(DataDirError::Foreign { .. })), "{foreign:?}");
        }
    }

    #[test]
    fn a_directory_has_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let _held = DataDir::open(dir.path(), &identity("c", "n")).unwrap();
        let second = DataDir::open(dir.path(), &identity("c", "n"));
        assert!(matches!(second, Err(DataDirError::InUse(_))));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), &identity("c", "n")).unwrap());
        fs::write(dir.path().join("format-version"), "2").unwrap();
        let refused = DataDir::open(dir.path(), &identity("c", "n"));
        assert!(matches!(refused, Err(DataDirError::TooNew { found: 2, .. })));
    }
}

//! The data directory: one process at a time, one node for ever, a format that is known.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::damaged as damaged_file;
use super::snapshot::{sync_directory, write_durably};

/// Format of the directory that this binary writes and the newest that it reads.
const FORMAT: u32 = 2;
/// From this one on `node-id` ends with its own checksum.
const SUMMED: u32 = 2;
/// Where the log ended when the node was stopped in order.
const LOG_END: &str = "log-end";
/// Holds why the member takes no part any more.
const GIVEN_UP: &str = "given-up";

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
    #[error(
        "the member of the data directory {path} was given up: {why}. Start it with an empty data directory and `join` in \
         server.toml, so that it gets a new number, and add it: docs/RECOVERY.md"
    )]
    GivenUp { path: PathBuf, why: String },
    #[error(
        "the data directory {path} is damaged: {what}. This member must not vote or serve: remove it from the cluster, start \
         it with an empty data directory and `join` in server.toml, and add it again: docs/RECOVERY.md"
    )]
    Damaged { path: PathBuf, what: String },
    #[error("the data directory {path} cannot be used: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// A directory that this process holds. The lock ends with it.
#[derive(Debug)]
pub struct DataDir {
    pub identity: Identity,
    path: PathBuf,
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
                let format = check_format(path, &format)?;
                existing(path, format, wanted)?
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged(path, "format-version holds no number"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.join("raft").exists() || path.join("state").exists() {
                    return Err(damaged(path, "format-version is not there"));
                }
                create(path, wanted).map_err(io)?;
                wanted.clone()
            }
            Err(error) => return Err(io(error)),
        };
        match fs::read_to_string(path.join(GIVEN_UP)) {
            Ok(why) => {
                let (path, why) = (path.to_owned(), why.trim().to_owned());
                return Err(DataDirError::GivenUp { path, why });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        Ok(Self { identity, path: path.to_owned(), _lock: lock })
    }

    /// Takes the directory of a member that is stopped, whoever that is and whatever became of it, to look at it: nothing is
    /// written.
    ///
    /// # Errors
    /// When a process holds it, it is damaged, or its format is too new.
    pub fn inspect(path: &Path) -> Result<Self, DataDirError> {
        let io = |error| DataDirError::Io { path: path.to_owned(), error };
        let lock = File::open(path.join("LOCK")).map_err(io)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(DataDirError::InUse(path.to_owned()));
        }
        let format = fs::read_to_string(path.join("format-version"))
            .map_err(|error| damaged(path, &format!("format-version cannot be read: {error}")))?;
        let identity = stored(path, check_format(path, &format)?)?;
        Ok(Self { identity, path: path.to_owned(), _lock: lock })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a member has ever lived here.
    #[must_use]
    pub fn is_there(path: &Path) -> bool {
        path.join("format-version").exists()
    }

    /// Gives the member another number and the directory another identity.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn renumber(&mut self, node_id: u64, directory: &str) -> io::Result<()> {
        self.identity.node_id = node_id;
        directory.clone_into(&mut self.identity.directory);
        write_identity(&self.path, &self.identity)
    }

    /// Writes down where the log ends.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn note_end(&self, end: &[u8]) -> io::Result<()> {
        let mut bytes = end.to_vec();
        bytes.extend(crc32c::crc32c(end).to_be_bytes());
        write_durably(&self.path.join(LOG_END), &bytes)
    }

    /// What was written down about the log's end.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    pub fn noted_end(&self) -> io::Result<Option<Vec<u8>>> {
        let bytes = match fs::read(self.path.join(LOG_END)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match bytes.split_last_chunk::<4>() {
            Some((end, sum)) if crc32c::crc32c(end).to_be_bytes() == *sum => Ok(Some(end.to_vec())),
            Some(_) | None => Err(damaged_file("log-end is not what was written there")),
        }
    }

    /// The log goes on: what was written down about its end counts no more.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn forget_end(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(LOG_END)) {
            Ok(()) => sync_directory(&self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// From now on nobody opens this directory: the cluster went on without its member.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn give_up(&self, why: &str) -> io::Result<()> {
        write_durably(&self.path.join(GIVEN_UP), why.as_bytes())
    }
}

fn check_format(path: &Path, text: &str) -> Result<u32, DataDirError> {
    match text.trim().parse() {
        Ok(found @ 1..=FORMAT) => Ok(found),
        Ok(found @ 1..) => {
            Err(DataDirError::TooNew { path: path.to_owned(), found, known: FORMAT })
        }
        Ok(_) | Err(_) => Err(damaged(path, &format!("format-version holds {text:?}"))),
    }
}

fn damaged(path: &Path, what: &str) -> DataDirError {
    DataDirError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

/// The identity of a directory, which must be what is wanted.
fn existing(path: &Path, format: u32, wanted: &Identity) -> Result<Identity, DataDirError> {
    let found = stored(path, format)?;
    if found.cluster != wanted.cluster || found.node != wanted.node {
        return Err(DataDirError::Foreign {
            path: path.to_owned(),
            theirs: found.node,
            their_cluster: found.cluster,
            ours: wanted.node.clone(),
            our_cluster: wanted.cluster.clone(),
        });
    }
    Ok(found)
}

/// `node-id` holds the cluster, the node, its number and the directory's identity, a line each; then its own checksum.
fn stored(path: &Path, format: u32) -> Result<Identity, DataDirError> {
    let damaged = |what: &str| damaged(path, what);
    let text = fs::read_to_string(path.join("node-id"))
        .map_err(|error| damaged(&format!("node-id cannot be read: {error}")))?;
    if format >= SUMMED && !is_whole(&text) {
        return Err(damaged("node-id is not what was written there"));
    }
    let mut lines = text.lines();
    let (Some(cluster), Some(node), Some(number)) = (lines.next(), lines.next(), lines.next())
    else {
        return Err(damaged("node-id is too short"));
    };
    let node_id = number.parse().map_err(|_| damaged("node-id has no number"))?;
    let directory = lines.next().unwrap_or_default().to_owned();
    Ok(Identity { cluster: cluster.to_owned(), node: node.to_owned(), node_id, directory })
}

/// The format goes in last: a directory without it is new.
fn create(path: &Path, identity: &Identity) -> io::Result<()> {
    write_identity(path, identity)?;
    write_durably(&path.join("format-version"), FORMAT.to_string().as_bytes())
}

fn write_identity(path: &Path, identity: &Identity) -> io::Result<()> {
    let Identity { cluster, node, node_id, directory } = identity;
    let text = format!("{cluster}\n{node}\n{node_id}\n{directory}\n");
    let text = format!("{text}{}\n", sum_of(&text));
    write_durably(&path.join("node-id"), text.as_bytes())
}

fn sum_of(text: &str) -> String {
    format!("{:08x}", crc32c::crc32c(text.as_bytes()))
}

fn is_whole(text: &str) -> bool {
    let end = text.trim_end_matches('\n').rfind('\n').map_or(0, |end| end + 1);
    let (lines, sum) = text.split_at(end);
    sum == format!("{}\n", sum_of(lines))
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
        fs::write(dir.path().join("format-version"), "3").unwrap();
        let refused = DataDir::open(dir.path(), &identity("c", "n"));
        assert!(matches!(refused, Err(DataDirError::TooNew { found: 3, .. })));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_who_it_is_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), &identity("c", "n")).unwrap());
        for name in ["node-id", "format-version"] {
            let path = dir.path().join(name);
            let whole = fs::read(&path).unwrap();
            let flipped = (0..whole.len() * 8).map(|bit| {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            });
            let cut = (0..whole.len()).map(|end| whole[..end].to_vec());
            for bytes in flipped.chain(cut) {
                fs::write(&path, &bytes).unwrap();
                let refused = DataDir::open(dir.path(), &identity("c", "n"));
                assert!(refused.is_err(), "{name}: {:?}", String::from_utf8_lossy(&bytes));
            }
            fs::write(&path, &whole).unwrap();
        }
        fs::create_dir(dir.path().join("raft")).unwrap();
        fs::remove_file(dir.path().join("format-version")).unwrap();
        let refused = DataDir::open(dir.path(), &identity("c", "n"));
        assert!(matches!(refused, Err(DataDirError::Damaged { .. })), "it is no new one");
    }

    #[test]
    fn a_member_that_was_given_up_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut held = DataDir::open(dir.path(), &identity("c", "n")).unwrap();
        held.renumber(12, "d9").unwrap();
        drop(held);
        let held = DataDir::open(dir.path(), &identity("c", "n")).unwrap();
        assert_eq!((held.identity.node_id, held.identity.directory.as_str()), (12, "d9"));
        held.give_up("the others went on").unwrap();
        drop(held);
        let refused = DataDir::open(dir.path(), &identity("c", "n")).unwrap_err();
        assert!(refused.to_string().contains("the others went on"), "{refused}");
    }
}

//! Backups of a whole cluster, each one file: taken while it serves, checked anywhere, and unpacked for the members of a new
//! cluster.
//!
//! ```text
//! "pinrail backup 1\n"   length of the head, 8 bytes, little-endian   head: pinrail.v1.Backup
//! the files that the head names, in its order   SHA-256 of everything before
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use pinrail_proto::v1;
use pinrail_proto::v1::save_snapshot_response::Part;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::client::Client;
use crate::error::Error;

const MAGIC: &[u8] = b"pinrail backup 1\n";
/// No head is larger; a length beyond it is damage.
const HEAD: u64 = 16 << 20;
const CHUNK: usize = 256 << 10;
const DIGEST: usize = 32;
/// Where a server looks for a backup to begin with, in its data directory; and how the nodes' own description is called there.
const RESTORE: &str = "restore";
const MANIFEST: &str = "manifest.pb";

/// Why there is no backup, or nothing came of one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nothing was written over it.
    #[error("{0} is there already")]
    Exists(PathBuf),
    /// Nothing was written.
    #[error("{0} is no new data directory: a backup is restored into an empty one")]
    NotNew(PathBuf),
    #[error("{path} is no whole backup: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Call(#[from] Error),
}

type Result<T> = std::result::Result<T, BackupError>;

/// Takes a backup of everything that was acknowledged before the call. The file is there whole, or not at all.
///
/// # Errors
/// When the file exists, cannot be written, or the cluster does not answer or breaks off.
pub async fn save(client: &Client, path: &Path) -> Result<v1::Backup> {
    if path.exists() {
        return Err(BackupError::Exists(path.to_owned()));
    }
    let mut parts = client.cluster().save_snapshot().await?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let io = |error| BackupError::Io { path: part.clone(), error };
    let mut out = Hashing::new(BufWriter::new(File::create(&part).map_err(io)?));
    let mut backup = None;
    while let Some(message) = parts.message().await.map_err(broken_off)? {
        match message.part {
            Some(Part::Backup(head)) => {
                let bytes = head.encode_to_vec();
                out.write_all(MAGIC).map_err(io)?;
                out.write_all(&(bytes.len() as u64).to_le_bytes()).map_err(io)?;
                out.write_all(&bytes).map_err(io)?;
                backup = Some(head);
            }
            Some(Part::Data(data)) => out.write_all(&data).map_err(io)?,
            None => {}
        }
    }
    let (digest, inner) = out.finish();
    let mut file = inner.into_inner().map_err(|error| io(error.into_error()))?;
    file.write_all(&digest).and_then(|()| file.sync_all()).map_err(io)?;
    // What is kept was read again from its first byte to its last.
    let Some(backup) = backup else {
        return Err(damaged(&part, "the cluster sent none"));
    };
    verify(&part)?;
    fs::rename(&part, path).map_err(io)?;
    Ok(backup)
}

fn broken_off(status: tonic::Status) -> Error {
    Error::Unavailable {
        reason: crate::error::UNREACHABLE.to_owned(),
        message: format!("the backup broke off: {}", status.message()),
    }
}

/// Reads a backup from its first byte to its last.
///
/// # Errors
/// When it is truncated, altered, or no backup.
pub fn verify(path: &Path) -> Result<v1::Backup> {
    read(path, &mut |_, _| Ok(()))
}

/// Verifies a backup and unpacks it into a new data directory, for a server to begin with at its first start.
///
/// # Errors
/// As [`verify`], and when the directory is not new; then nothing was written.
pub fn unpack(path: &Path, data: &Path) -> Result<v1::Backup> {
    let is_new = match fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_new {
        return Err(BackupError::NotNew(data.to_owned()));
    }
    verify(path)?;
    let target = data.join(RESTORE);
    let folder = data.join("restore.part");
    let io = |error| BackupError::Io { path: folder.clone(), error };
    fs::create_dir_all(&folder).map_err(io)?;
    let backup = read(path, &mut |name, bytes| {
        let mut options = OpenOptions::new();
        options.create(true).append(true).open(folder.join(name))?.write_all(bytes)
    })?;
    fs::write(folder.join(MANIFEST), &backup.manifest).map_err(io)?;
    for entry in fs::read_dir(&folder).map_err(io)? {
        File::open(entry.map_err(io)?.path()).and_then(|file| file.sync_all()).map_err(io)?;
    }
    fs::rename(&folder, &target).map_err(io)?;
    File::open(data).and_then(|directory| directory.sync_all()).map_err(io)?;
    Ok(backup)
}

/// Reads everything; gives each piece of each file to `take`.
fn read(path: &Path, take: &mut dyn FnMut(&str, &[u8]) -> io::Result<()>) -> Result<v1::Backup> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(path, "it ends too early"),
        _ => BackupError::Io { path: path.to_owned(), error },
    };
    let file = File::open(path).map_err(io)?;
    let mut bytes = Hashing::new(BufReader::new(file));
    let mut magic = [0; MAGIC.len()];
    bytes.read_exact(&mut magic).map_err(io)?;
    if magic != MAGIC {
        return Err(damaged(path, "it does not begin like one"));
    }
    let mut length = [0; 8];
    bytes.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > HEAD {
        return Err(damaged(path, "its head has no possible length"));
    }
    let mut head = vec![0; usize::try_from(length).unwrap_or(0)];
    bytes.read_exact(&mut head).map_err(io)?;
    let backup = v1::Backup::decode(head.as_slice())
        .map_err(|error| damaged(path, &format!("its head: {error}")))?;
    let mut buffer = vec![0; CHUNK];
    for file in &backup.files {
        if file.name.is_empty() || file.name.contains(['/', '\\']) || file.name.starts_with('.') {
            return Err(damaged(path, &format!("it has a file {:?}", file.name)));
        }
        let mut left = file.size;
        // A file without a byte is a file too.
        take(&file.name, &[]).map_err(io)?;
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            bytes.read_exact(&mut buffer[..size]).map_err(io)?;
            take(&file.name, &buffer[..size]).map_err(io)?;
            left -= size as u64;
        }
    }
    let (digest, mut rest) = bytes.finish();
    let mut kept = [0; DIGEST];
    rest.read_exact(&mut kept).map_err(io)?;
    if kept != digest {
        return Err(damaged(path, "its checksum does not match: it was altered"));
    }
    if rest.read(&mut [0]).map_err(io)? != 0 {
        return Err(damaged(path, "more follows behind its end"));
    }
    Ok(backup)
}

fn damaged(path: &Path, what: &str) -> BackupError {
    BackupError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

/// Hashes what goes through.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn finish(self) -> ([u8; DIGEST], T) {
        (self.hash.finalize().into(), self.inner)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hash.update(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backup with two files, one of them empty.
    fn write(path: &Path) -> Vec<u8> {
        let file = |name: &str, size| v1::BackupFile { name: name.to_owned(), size };
        let head = v1::Backup {
            cluster: "c".to_owned(),
            files: vec![file("a.sst", 5), file("empty", 0)],
            manifest: b"manifest".to_vec().into(),
            ..v1::Backup::default()
        };
        let head = head.encode_to_vec();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((head.len() as u64).to_le_bytes());
        bytes.extend(head);
        bytes.extend(b"hello");
        let digest: [u8; DIGEST] = Sha256::digest(&bytes).into();
        bytes.extend(digest);
        fs::write(path, &bytes).unwrap();
        bytes
    }

    #[test]
    fn a_backup_is_unpacked_into_a_new_directory_only() {
        let folder = tempfile::tempdir().unwrap();
        let (path, data) = (folder.path().join("backup"), folder.path().join("data"));
        write(&path);
        assert_eq!(verify(&path).unwrap().cluster, "c");
        unpack(&path, &data).unwrap();
        let restore = data.join(RESTORE);
        assert_eq!(fs::read(restore.join("a.sst")).unwrap(), b"hello");
        assert_eq!(fs::read(restore.join("empty")).unwrap(), b"");
        assert_eq!(fs::read(restore.join(MANIFEST)).unwrap(), b"manifest");
        assert!(matches!(unpack(&path, &data), Err(BackupError::NotNew(_))));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (path, data) = (folder.path().join("backup"), folder.path().join("data"));
        let whole = write(&path);
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(matches!(unpack(&path, &data), Err(BackupError::Damaged { .. })), "{end}");
        }
        for place in 0..whole.len() {
            let mut altered = whole.clone();
            altered[place] ^= 1;
            fs::write(&path, &altered).unwrap();
            assert!(matches!(unpack(&path, &data), Err(BackupError::Damaged { .. })), "{place}");
        }
        let mut longer = whole;
        longer.push(0);
        fs::write(&path, &longer).unwrap();
        assert!(matches!(unpack(&path, &data), Err(BackupError::Damaged { .. })));
        assert!(!data.exists());
    }
}

//! Snapshots: files of a checkpoint, a manifest that says what belongs to it, a checksum a file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pinrail_proto::log::{SnapshotFile, SnapshotManifest};

/// Format of manifests that this binary writes and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;
/// Name of the manifest beside the files.
pub(crate) const MANIFEST: &str = "manifest.pb";
/// CRC-32C of the manifest, for the checksums of the files are in it.
pub(crate) const MANIFEST_SUM: &str = "manifest.crc";
/// Bytes read at once for a checksum.
const CHUNK: usize = 256 << 10;

/// Where files are.
#[derive(Debug, Clone)]
pub enum Files {
    /// While anyone holds it, the directory stays where it is.
    Directory(Arc<PathBuf>),
    /// In memory, for the simulation.
    Memory(Arc<BTreeMap<String, Bytes>>),
}

/// A snapshot that is whole.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub manifest: SnapshotManifest,
    pub files: Files,
}

/// A snapshot that is being received.
#[derive(Debug)]
pub struct Incoming {
    pub manifest: SnapshotManifest,
    pub(crate) files: IncomingFiles,
}

#[derive(Debug)]
pub(crate) enum IncomingFiles {
    Directory(PathBuf),
    #[cfg_attr(
        not(feature = "simulation"),
        expect(dead_code, reason = "only the simulation keeps files in memory")
    )]
    Memory(BTreeMap<String, Vec<u8>>),
}

impl Files {
    /// Up to `limit` bytes of a file from `offset` on; fewer only at its end.
    ///
    /// # Errors
    /// When the file is not there or the disk fails.
    pub fn read(&self, name: &str, offset: u64, limit: usize) -> io::Result<Bytes> {
        match self {
            Self::Directory(directory) => {
                let mut file = File::open(directory.join(checked(name)?))?;
                file.seek(SeekFrom::Start(offset))?;
                let mut data = Vec::with_capacity(limit);
                file.take(limit as u64).read_to_end(&mut data)?;
                Ok(Bytes::from(data))
            }
            Self::Memory(files) => {
                let file = files.get(name).ok_or_else(|| missing(name))?;
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
                let end = start.saturating_add(limit).min(file.len());
                Ok(file.slice(start..end))
            }
        }
    }

    /// Compares the files with their manifest.
    ///
    /// # Errors
    /// Names the first file that is missing or damaged.
    pub fn verify(&self, manifest: &SnapshotManifest) -> io::Result<()> {
        if manifest.format > FORMAT {
            return Err(io::Error::other(format!(
                "the snapshot has format {}; this binary reads up to {FORMAT}",
                manifest.format
            )));
        }
        let described = self.describe()?;
        for file in &manifest.files {
            if !described.contains(file) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("file {} of the snapshot is missing or damaged", file.name),
                ));
            }
        }
        Ok(())
    }

    /// Names, sizes and checksums of all files, the manifest aside.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn describe(&self) -> io::Result<Vec<SnapshotFile>> {
        match self {
            Self::Directory(directory) => {
                let mut files = Vec::new();
                for entry in fs::read_dir(&**directory)? {
                    let entry = entry?;
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if name != MANIFEST && name != MANIFEST_SUM {
                        files.push(describe(directory, &name)?);
                    }
                }
                files.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(files)
            }
            Self::Memory(files) => Ok(files
                .iter()
                .map(|(name, data)| SnapshotFile {
                    name: name.clone(),
                    size: data.len() as u64,
                    crc32c: crc32c::crc32c(data),
                })
                .collect()),
        }
    }
}

impl Incoming {
    /// Names of the manifest's files that are not here whole yet: what the sender has to send.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn missing(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in &self.manifest.files {
            let here = match &self.files {
                IncomingFiles::Directory(directory) => {
                    directory.join(checked(&file.name)?).exists()
                        && describe(directory, &file.name)? == *file
                }
                IncomingFiles::Memory(_) => false,
            };
            if !here {
                names.push(file.name.clone());
            }
        }
        Ok(names)
    }

    /// Writes a piece of a file; pieces of one file come in order.
    ///
    /// # Errors
    /// When the file is not the manifest's or the disk fails.
    pub fn write(&mut self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        if !self.manifest.files.iter().any(|file| file.name == name) {
            return Err(missing(name));
        }
        match &mut self.files {
            IncomingFiles::Directory(directory) => {
                let path = directory.join(checked(name)?);
                let mut file =
                    OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
                if offset == 0 {
                    file.set_len(0)?;
                }
                file.seek(SeekFrom::Start(offset))?;
                file.write_all(data)
            }
            IncomingFiles::Memory(files) => {
                let file = files.entry(name.to_owned()).or_default();
                file.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
                file.extend_from_slice(data);
                Ok(())
            }
        }
    }
}

/// Writes a file so that it is there whole after a crash, or not at all.
pub(crate) fn write_durably(path: &Path, data: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("a file without a directory"))?;
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(data)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_directory(directory)
}

pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn describe(directory: &Path, name: &str) -> io::Result<SnapshotFile> {
    let mut file = File::open(directory.join(checked(name)?))?;
    let mut buffer = vec![0; CHUNK];
    let (mut size, mut crc) = (0_u64, 0_u32);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(SnapshotFile { name: name.to_owned(), size, crc32c: crc });
        }
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
        size += read as u64;
    }
}

/// A name from another node must not lead out of the directory.
/// The name of a file in a folder: it leads nowhere else, and is not the folder.
pub(crate) fn checked(name: &str) -> io::Result<&str> {
    if name.is_empty() || name.contains(['/', '\\']) || name == "." || name.starts_with("..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("file name {name:?}")));
    }
    Ok(name)
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the snapshot has no file {name:?}"))
}

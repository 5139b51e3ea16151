//! The snapshots of a data directory: `snapshots/snapshot-INDEX-TERM/`, whole once they have that name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pinrail_proto::log::SnapshotManifest;
use prost::Message as _;

use super::snapshot::{Files, MANIFEST, MANIFEST_SUM, Snapshot, sync_directory, write_durably};

/// What a directory is called before it is whole.
const UNFINISHED: &str = "new-";
const WHOLE: &str = "snapshot-";

#[derive(Debug)]
pub(super) struct Snapshots {
    directory: PathBuf,
    /// Those that were handed out: on the way to a follower or into a backup, perhaps for minutes.
    handed_out: Mutex<Vec<Weak<PathBuf>>>,
}

impl Snapshots {
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { directory, handed_out: Mutex::default() })
    }

    /// Removes what a crash left unfinished.
    pub(super) fn tidy_up(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
            if unfinished && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Where the files of a snapshot are put until it is whole.
    pub(super) fn unfinished(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{UNFINISHED}{name}"))
    }

    pub(super) fn newest(&self) -> io::Result<Option<Snapshot>> {
        for path in self.whole()?.into_iter().rev() {
            if let Some(manifest) = load(&path)? {
                return Ok(Some(self.hand_out(path, manifest)));
            }
        }
        Ok(None)
    }

    /// Gives a directory its final name; the manifest goes in last but one, the name is what counts. Older snapshots go,
    /// but for those that are still being read.
    pub(super) fn seal(&self, from: &Path, manifest: SnapshotManifest) -> io::Result<Snapshot> {
        let encoded = manifest.encode_to_vec();
        write_durably(&from.join(MANIFEST_SUM), &checksum(&encoded))?;
        write_durably(&from.join(MANIFEST), &encoded)?;
        for entry in fs::read_dir(from)? {
            fs::File::open(entry?.path())?.sync_all()?;
        }
        sync_directory(from)?;
        let name = name_of(&manifest);
        // The one before it may be of the same moment, and still be read.
        let target = (0..)
            .map(|again| self.directory.join(format!("{name}-{again:03}")))
            .find(|target| !target.exists())
            .ok_or_else(|| io::Error::other("no name is free"))?;
        fs::rename(from, &target)?;
        sync_directory(&self.directory)?;
        let snapshot = self.hand_out(target.clone(), manifest);
        self.drop_unread()?;
        Ok(snapshot)
    }

    fn hand_out(&self, path: PathBuf, manifest: SnapshotManifest) -> Snapshot {
        let path = Arc::new(path);
        self.handed_out.lock().push(Arc::downgrade(&path));
        Snapshot { manifest, files: Files::Directory(path) }
    }

    fn drop_unread(&self) -> io::Result<()> {
        let mut handed_out = self.handed_out.lock();
        handed_out.retain(|path| path.strong_count() > 0);
        let read: Vec<_> = handed_out.iter().filter_map(Weak::upgrade).collect();
        for path in self.whole()? {
            if !read.iter().any(|it| **it == path) {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    /// Directories of whole snapshots, oldest first.
    fn whole(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(WHOLE) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The manifest of a snapshot, unless it is none or not whole: the state is all here, and another one is soon made of it.
fn load(path: &Path) -> io::Result<Option<SnapshotManifest>> {
    let data = match fs::read(path.join(MANIFEST)) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_whole = match fs::read(path.join(MANIFEST_SUM)) {
        Ok(sum) => sum == checksum(&data),
        // Made before there were such sums.
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error),
    };
    match SnapshotManifest::decode(data.as_slice()) {
        Ok(manifest) if is_whole => Ok(Some(manifest)),
        Ok(_) | Err(_) => {
            tracing::error!(path = %path.display(), "a snapshot's manifest is damaged: it is not used");
            Ok(None)
        }
    }
}

fn checksum(data: &[u8]) -> Vec<u8> {
    crc32c::crc32c(data).to_be_bytes().to_vec()
}

/// Ordered by the index of the last entry in it.
pub(super) fn name_of(manifest: &SnapshotManifest) -> String {
    let last = manifest.meta.as_ref().and_then(|meta| meta.last_log_id).unwrap_or_default();
    let term = last.leader_id.unwrap_or_default().term;
    format!("{WHOLE}{:020}-{term}", last.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(snapshots: &Snapshots, index: u64) -> Snapshot {
        let directory = snapshots.unfinished(&index.to_string());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), index.to_string()).unwrap();
        let last = pinrail_proto::log::LogId { index, ..Default::default() };
        let meta =
            pinrail_proto::log::SnapshotMeta { last_log_id: Some(last), ..Default::default() };
        let manifest = SnapshotManifest { meta: Some(meta), ..Default::default() };
        snapshots.seal(&directory, manifest).unwrap()
    }

    #[test]
    fn a_snapshot_stays_as_long_as_it_is_read_however_many_follow() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(folder.path().join("snapshots")).unwrap();
        let read = seal(&snapshots, 7);
        let again = seal(&snapshots, 7);
        for index in 8..12 {
            drop(seal(&snapshots, index));
        }
        for snapshot in [&read, &again] {
            assert_eq!(snapshot.files.read("file", 0, 9).unwrap(), "7");
        }
        drop((read, again));
        let newest = seal(&snapshots, 12);
        assert_eq!(snapshots.whole().unwrap().len(), 1, "nobody reads the others");
        assert_eq!(newest.files.read("file", 0, 9).unwrap(), "12");
        let found = snapshots.newest().unwrap().unwrap();
        assert_eq!(found.manifest, newest.manifest);
    }
}

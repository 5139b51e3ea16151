//! Every entry that a node applies, appended to files that no snapshot shortens. For tests: what judges a whole history needs
//! the whole log, and a log is purged.
//!
//! It is written before the state is, so it has whatever the state has. After a restart entries are applied again, and are
//! here again: a log that changed behind an entry that was applied shows as two of one index.
//!
//! ```text
//!   DIR/00000001.entries    one file a start of the node, in order; only the end of each can be torn
//!   record                  length u32 | CRC-32C u32 | kind u8, revision u64, the encoded entry or position
//! ```
//! The length and the sum are of what is behind them. Numbers are big-endian.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::{Buf as _, BufMut as _, Bytes};

use super::damaged;

/// Kinds of records. Persisted numbers.
const ENTRY: u8 = 1;
const SNAPSHOT: u8 = 2;
/// Of a record's kind and revision.
const HEAD_BYTES: usize = 9;
/// A longer record was never written: entries are bound by what a peer may send.
const RECORD_BYTES: usize = 64 << 20;
const ENDING: &str = "entries";

/// What a node says of itself while it applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// It applied an encoded entry and was at this revision then.
    Entry { revision: u64, entry: Bytes },
    /// It installed a snapshot that reaches this encoded position: what is before it never came here.
    Snapshot { revision: u64, position: Bytes },
}

/// The file of one start of the node.
#[derive(Debug)]
pub struct Archive {
    file: File,
    buffer: Vec<u8>,
}

impl Archive {
    /// Begins the next file of a directory, which is made when it is not there.
    ///
    /// # Errors
    /// When the disk fails, or the directory is none.
    pub fn begin(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let next = files(directory)?.last().map_or(1, |(number, _)| number + 1);
        let path = directory.join(format!("{next:08}.{ENDING}"));
        let file = OpenOptions::new().create_new(true).append(true).open(path)?;
        Ok(Self { file, buffer: Vec::new() })
    }

    /// Adds a record, which is written with the next [`Archive::write`].
    pub fn add(&mut self, record: &Record) {
        let (kind, revision, bytes) = match record {
            Record::Entry { revision, entry } => (ENTRY, *revision, entry),
            Record::Snapshot { revision, position } => (SNAPSHOT, *revision, position),
        };
        let mut body = Vec::with_capacity(HEAD_BYTES + bytes.len());
        body.put_u8(kind);
        body.put_u64(revision);
        body.put_slice(bytes);
        self.buffer.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        self.buffer.put_u32(crc32c::crc32c(&body));
        self.buffer.put_slice(&body);
    }

    /// Hands what was added to the system, in one go. Not synced: the end of the process loses nothing of it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Shows the records of a directory in the order in which they were written.
///
/// # Errors
/// When a record is damaged, the disk fails, or `show` does.
pub fn read(directory: &Path, mut show: impl FnMut(Record) -> io::Result<()>) -> io::Result<()> {
    for (_, path) in files(directory)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut rest = Bytes::from(fs::read(&path)?);
        while let Some(body) = next(&mut rest, &name)? {
            show(record(body, &name)?)?;
        }
    }
    Ok(())
}

/// The body of the next record. A file that ends within one was torn by the end of its process.
fn next(rest: &mut Bytes, name: &str) -> io::Result<Option<Bytes>> {
    if rest.len() < 8 {
        return Ok(None);
    }
    let (length, sum) = (rest.get_u32() as usize, rest.get_u32());
    if !(HEAD_BYTES..=RECORD_BYTES).contains(&length) {
        return Err(damaged(format!("{name} has a record of {length} bytes")));
    }
    if rest.len() < length {
        return Ok(None);
    }
    let body = rest.split_to(length);
    if crc32c::crc32c(&body) != sum {
        return Err(damaged(format!("a record of {name} is not what was written there")));
    }
    Ok(Some(body))
}

fn record(mut body: Bytes, name: &str) -> io::Result<Record> {
    let (kind, revision) = (body.get_u8(), body.get_u64());
    match kind {
        ENTRY => Ok(Record::Entry { revision, entry: body }),
        SNAPSHOT => Ok(Record::Snapshot { revision, position: body }),
        other => Err(damaged(format!("{name} has a record of kind {other}"))),
    }
}

/// Files of a directory by their numbers.
fn files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|it| it == ENDING)) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: u64, text: &'static str) -> Record {
        Record::Entry { revision, entry: Bytes::from_static(text.as_bytes()) }
    }

    fn all(directory: &Path) -> io::Result<Vec<Record>> {
        let mut all = Vec::new();
        read(directory, |record| {
            all.push(record);
            Ok(())
        })?;
        Ok(all)
    }

    fn write(directory: &Path, records: &[Record]) {
        let mut archive = Archive::begin(directory).unwrap();
        records.iter().for_each(|record| archive.add(record));
        archive.write().unwrap();
    }

    #[test]
    fn every_start_goes_on_behind_the_one_before_even_when_that_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = Record::Snapshot { revision: 9, position: Bytes::from_static(b"at 9") };
        write(dir.path(), &[entry(1, "one"), entry(2, "two")]);
        let first = dir.path().join("00000001.entries");
        let whole = fs::read(&first).unwrap();
        write(dir.path(), &[snapshot.clone(), entry(10, "ten")]);
        let later = [snapshot, entry(10, "ten")];
        for end in 0..=whole.len() {
            fs::write(&first, &whole[..end]).unwrap();
            let found = all(dir.path()).unwrap();
            let kept = found.len() - later.len();
            assert_eq!(found[..kept], [entry(1, "one"), entry(2, "two")][..kept], "cut at {end}");
            assert_eq!(found[kept..], later, "cut at {end}");
        }
    }

    #[test]
    fn every_flipped_bit_of_what_was_applied_is_found() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[entry(1, "one")]);
        let path = dir.path().join("00000001.entries");
        let whole = fs::read(&path).unwrap();
        // A length may become one that reaches behind the end, which is how a torn record looks.
        for bit in 32..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(all(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bit}");
        }
    }

    #[test]
    fn what_the_system_does_not_take_is_an_error() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut archive = Archive { file: full, buffer: Vec::new() };
        archive.add(&entry(1, "one"));
        archive.write().unwrap_err();
    }

    #[test]
    fn the_bytes_of_a_record_never_change() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[entry(7, "abc")]);
        let bytes = fs::read(dir.path().join("00000001.entries")).unwrap();
        assert_eq!(hex::encode(&bytes[..4]), "0000000c");
        assert_eq!(hex::encode(&bytes[8..]), "010000000000000007616263");
    }
}

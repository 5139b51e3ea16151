//! The entries of a log that nobody uses, as JSON, one object a line: of a stopped member, or of the archive of a node under
//! test.
//!
//! Read only: nothing of a directory changes. It decodes what is persisted and knows neither Raft nor what a command does.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pinrail_proto::{json, log as pb};
use prost::Message as _;
use serde_json::{Map, Value as Json, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::storage::{
    DataDir, DataDirError, LogEngine as _, Record, RocksLog, damaged, read_archive,
};

/// Entries that are read at once.
const READ: u64 = 256;

/// Why a log is not shown. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("{0} is no member's data directory")]
    NoMember(PathBuf),
    #[error(
        "{0} holds no archive: a node under test writes one with `pinrail server --log-archive`"
    )]
    NoArchive(PathBuf),
    #[error(transparent)]
    Directory(#[from] DataDirError),
    #[error("{path} is damaged: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error("{path} cannot be read: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the entries cannot be written: {0}")]
    Output(io::Error),
}

/// Writes the entries of a stopped member's log, as far as the log still has them. Whether the last ones were committed is not
/// known here.
///
/// # Errors
/// When a process holds the directory, it is damaged, or the output fails.
pub fn member(
    data: &Path,
    range: &RangeInclusive<u64>,
    out: &mut dyn Write,
) -> Result<(), DumpError> {
    if !DataDir::is_there(data) {
        return Err(DumpError::NoMember(data.to_owned()));
    }
    let _held = DataDir::inspect(data)?;
    let path = data.join("raft");
    let failed = |error| of_disk(&path, error);
    let log = RocksLog::open_to_read(&path).map_err(failed)?;
    let Some((first, last)) = log.load().map_err(failed)?.entries else { return Ok(()) };
    let reader = log.reader();
    let (mut next, last) = (first.max(*range.start()), last.min(*range.end()));
    while next <= last {
        let end = last.min(next + READ - 1) + 1;
        for entry in reader.read(next..end).map_err(failed)? {
            let line = of_entry(&entry, None).map_err(failed)?;
            say(out, &line)?;
        }
        next = end;
    }
    out.flush().map_err(DumpError::Output)
}

/// Writes what a node under test archived, in the order in which it applied it. Entries that it applied again after a restart
/// are there again, and the snapshots that it installed are among them.
///
/// # Errors
/// When there is none, a record is damaged, or the output fails.
pub fn archive(
    directory: &Path,
    range: &RangeInclusive<u64>,
    out: &mut dyn Write,
) -> Result<(), DumpError> {
    if !directory.is_dir() {
        return Err(DumpError::NoArchive(directory.to_owned()));
    }
    let mut unsaid = None;
    let read = read_archive(directory, |record| {
        let line = match record {
            Record::Entry { revision, entry } => of_entry(&entry, Some(revision))?,
            Record::Snapshot { revision, position } => of_snapshot(&position, revision)?,
        };
        if !line["index"].as_u64().is_some_and(|index| range.contains(&index)) {
            return Ok(());
        }
        say(out, &line).map_err(|error| {
            unsaid = Some(error);
            io::Error::other("nobody reads it")
        })
    });
    match (unsaid, read) {
        (Some(error), _) => Err(error),
        (None, read) => {
            read.map_err(|error| of_disk(directory, error))?;
            out.flush().map_err(DumpError::Output)
        }
    }
}

fn of_disk(path: &Path, error: io::Error) -> DumpError {
    let path = path.to_owned();
    if error.kind() == io::ErrorKind::InvalidData {
        DumpError::Damaged { path, what: error.to_string() }
    } else {
        DumpError::Unreadable { path, error }
    }
}

fn say(out: &mut dyn Write, line: &Json) -> Result<(), DumpError> {
    writeln!(out, "{line}").map_err(DumpError::Output)
}

/// An entry. Its hash is of the bytes as they are stored, which are the same at every member.
fn of_entry(bytes: &Bytes, revision: Option<u64>) -> io::Result<Json> {
    let undecoded = |what: String| damaged(format!("an entry does not decode: {what}"));
    let entry = pb::Entry::decode(bytes.clone()).map_err(|error| undecoded(error.to_string()))?;
    let mut line = of_position(entry.log_id.ok_or_else(|| undecoded("it has no id".to_owned()))?);
    line.insert("bytes".into(), bytes.len().into());
    line.insert("hash".into(), format!("{:032x}", xxh3_128(bytes)).into());
    if let Some(revision) = revision {
        line.insert("revision".into(), revision.into());
    }
    match entry.payload {
        None => return Err(undecoded("it has no payload".to_owned())),
        Some(pb::entry::Payload::Blank(pb::Blank {})) => line.insert("kind".into(), "blank".into()),
        Some(pb::entry::Payload::Membership(membership)) => {
            line.insert("membership".into(), json::of(&membership));
            line.insert("kind".into(), "membership".into())
        }
        Some(pb::entry::Payload::Batch(batch)) => {
            let batch = pb::Batch::decode(batch).map_err(|error| undecoded(error.to_string()))?;
            // Every command takes one revision, whatever comes of it.
            let before = revision.map(|last| last.saturating_sub(batch.commands.len() as u64));
            let commands = batch.commands.into_iter().zip(1..).map(|(command, place)| {
                of_command(command, before.map(|before| before + place))
                    .map_err(|error| undecoded(error.to_string()))
            });
            line.insert("commands".into(), commands.collect::<io::Result<_>>()?);
            line.insert("stamp_ms".into(), batch.stamp_ms.into());
            line.insert("kind".into(), "batch".into())
        }
    };
    Ok(line.into())
}

fn of_position(id: pb::LogId) -> Map<String, Json> {
    let leader = id.leader_id.unwrap_or_default();
    let pairs = [("index", id.index), ("term", leader.term), ("leader", leader.node_id)];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn of_snapshot(position: &Bytes, revision: u64) -> io::Result<Json> {
    let id = pb::LogId::decode(position.clone())
        .map_err(|error| damaged(format!("a snapshot's position does not decode: {error}")))?;
    let mut line = of_position(id);
    line.insert("kind".into(), "snapshot".into());
    line.insert("revision".into(), revision.into());
    Ok(line.into())
}

/// A command: its kind, the id of the request, who asked, and what was asked.
fn of_command(bytes: Bytes, revision: Option<u64>) -> Result<Json, prost::DecodeError> {
    let command = pb::Command::decode(bytes)?;
    let header = command.header.clone().unwrap_or_default();
    let mut fields = match json::of(&command) {
        Json::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.remove("header");
    // One of them is set, unless a newer binary wrote it.
    let (kind, asked) =
        fields.into_iter().next().unwrap_or_else(|| ("unknown".to_owned(), Json::Null));
    let mut line = json!({ "kind": kind, "request_id": header.request_id, "asked": asked });
    for (name, value) in [("actor", header.actor), ("reason", header.reason)] {
        if !value.is_empty() {
            line[name] = value.into();
        }
    }
    if let Some(revision) = revision {
        line["revision"] = revision.into();
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: pb::entry::Payload) -> Bytes {
        let leader_id = Some(pb::LeaderId { term: 3, node_id: u64::MAX });
        let log_id = Some(pb::LogId { leader_id, index: 41 });
        pb::Entry { log_id, payload: Some(payload) }.encode_to_vec().into()
    }

    #[test]
    fn a_batch_is_shown_command_by_command_each_with_its_revision() {
        let command = |request_id: &str, kind| {
            let header = pb::Header { request_id: request_id.into(), ..pb::Header::default() };
            Bytes::from(pb::Command { header: Some(header), kind: Some(kind) }.encode_to_vec())
        };
        let delete = pb::DeleteMemory { key: "k".into(), ..pb::DeleteMemory::default() };
        let commands = vec![
            command("", pb::command::Kind::Probe(pb::Probe {})),
            command("r1", pb::command::Kind::DeleteMemory(delete)),
        ];
        let batch = pb::Batch { stamp_ms: 5, commands }.encode_to_vec().into();
        let bytes = entry(pb::entry::Payload::Batch(batch));
        let line = of_entry(&bytes, Some(118)).unwrap();
        assert_eq!(
            (&line["index"], &line["term"], &line["leader"]),
            (&json!(41), &json!(3), &json!(u64::MAX))
        );
        assert_eq!((&line["kind"], &line["stamp_ms"]), (&json!("batch"), &json!(5)));
        assert_eq!(
            (&line["commands"][0]["kind"], &line["commands"][0]["revision"]),
            (&json!("probe"), &json!(117))
        );
        let last = &line["commands"][1];
        assert_eq!((&last["request_id"], &last["revision"]), (&json!("r1"), &json!(118)));
        assert_eq!(last["asked"]["key"], "k");
        let log = of_entry(&bytes, None).unwrap();
        assert_eq!((&log["hash"], log.get("revision")), (&line["hash"], None));
    }

    #[test]
    fn the_hash_of_an_entry_never_changes() {
        let blank = entry(pb::entry::Payload::Blank(pb::Blank {}));
        let line = of_entry(&blank, None).unwrap();
        assert_eq!(
            (line["kind"].as_str(), line["hash"].as_str()),
            (Some("blank"), Some("d0823e2b16feadb1d46bc4d44f6e3051"))
        );
    }

    #[test]
    fn what_does_not_decode_is_damage() {
        for bytes in [&b"\xff"[..], b"", b"\x0a\x00"] {
            let error = of_entry(&Bytes::from_static(bytes), None).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}

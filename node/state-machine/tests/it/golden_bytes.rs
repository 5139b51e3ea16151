//! Persisted formats and replicated behaviour, held to their bytes.
//!
//! `tests/golden/log.txt` is a log as some earlier version wrote it: one entry a line, in hex, after what it says.
//! It never changes; new commands are added at its end. `tests/golden/rows.txt` is what this log leaves in the
//! store. When that changes, members of two versions would come apart: a feature level must switch the change
//! on. (Until the first release `UPDATE=1` may write the rows anew.)

mod history;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pinrail_proto::log;
use pinrail_state_machine::key::{Key, Kind, Timer};
use pinrail_state_machine::outcome::Applied;
use pinrail_state_machine::store::MemoryStore;
use pinrail_state_machine::{Machine, invariants};
use prost::Message as _;

const BEGIN_MS: u64 = 1_700_000_000_000;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Compares with a golden file, or writes it when that is asked for.
fn expect_file(name: &str, is: &str) {
    let path = file(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, is).unwrap();
        return;
    }
    let was = std::fs::read_to_string(&path).unwrap();
    for (number, (was, is)) in (1..).zip(was.lines().zip(is.lines())) {
        assert_eq!(was, is, "{name} line {number}");
    }
    assert_eq!(was.lines().count(), is.lines().count(), "{name} has another length");
}

/// The entries of the golden log and what they say.
fn golden_log() -> Vec<(String, Bytes)> {
    let text = std::fs::read_to_string(file("log.txt")).unwrap();
    let entry = |line: &str| {
        let (says, bytes) = line.split_once(": ").unwrap();
        (says.to_owned(), Bytes::from(hex::decode(bytes).unwrap()))
    };
    text.lines().map(entry).collect()
}

/// What is in the store behind the log, and what each entry's commands came to.
fn replay(log: &[(String, Bytes)]) -> (MemoryStore, Vec<Vec<Applied>>) {
    let mut store = MemoryStore::default();
    let mut all = Vec::new();
    for (_, entry) in log {
        let mut machine = Machine::open(&store).unwrap();
        all.push(machine.apply_batch(entry).unwrap());
        let written = machine.finish();
        store.write(written.writes);
    }
    (store, all)
}

#[test]
fn commands_are_written_as_ever() {
    let written: Vec<(&str, Bytes)> = commands();
    let golden = golden_log();
    if std::env::var_os("UPDATE").is_some() {
        // Only what is new is added: what was written once stays.
        let mut text = std::fs::read_to_string(file("log.txt")).unwrap();
        for (says, entry) in written.iter().skip(golden.len()) {
            writeln!(text, "{says}: {}", hex::encode(entry)).unwrap();
        }
        std::fs::write(file("log.txt"), text).unwrap();
        return;
    }
    assert_eq!(golden.len(), written.len(), "the golden log has other entries");
    for ((golden_says, golden), (says, written)) in golden.iter().zip(&written) {
        assert_eq!(golden_says, says);
        assert_eq!(hex::encode(golden), hex::encode(written), "{says}");
    }
}

#[test]
fn an_old_log_leaves_the_same_rows() {
    let (store, applied) = replay(&golden_log());
    for (applied, (says, _)) in applied.iter().zip(golden_log()) {
        for Applied { outcome, .. } in applied {
            let refused = matches!(outcome.result, Some(log::outcome::Result::Rejection(_)) | None);
            assert!(!refused, "{says}: {outcome:?}");
        }
    }
    assert_eq!(invariants::check(&store).unwrap(), []);
    let mut rows = String::new();
    for (key, value) in store.rows() {
        writeln!(rows, "{} = {}", hex::encode(key), hex::encode(value)).unwrap();
    }
    expect_file("rows.txt", &rows);
}

/// The rows of the golden log are of nearly every kind: a kind that is missing here is held by nothing.
#[test]
fn the_golden_log_leaves_rows_of_every_kind() {
    let (store, _) = replay(&golden_log());
    let all = [
        Kind::Cluster,
        Kind::Namespace,
        Kind::AgentName,
        Kind::AgentHash,
        Kind::Agent,
        Kind::Policy,
        Kind::Bundle,
        Kind::BundleManifest,
        Kind::BundleSteps,
        Kind::PartSeen,
        Kind::Run,
        Kind::RunInput,
        Kind::RunOutput,
        Kind::Step,
        Kind::StepInput,
        Kind::Checkpoint,
        Kind::OpenPin,
        Kind::RunByState,
        Kind::RunByStart,
        Kind::RunByLabel,
        Kind::Cost,
        Kind::Ready,
        Kind::Leased,
        Kind::Signal,
        Kind::Woken,
        Kind::Deadline,
        Kind::Memory,
        Kind::Layer,
        Kind::LayerKey,
        Kind::MemoryChange,
        Kind::Scratch,
        Kind::ScratchMemory,
        Kind::RunByKind,
        Kind::Dedupe,
        Kind::TrafficId,
        Kind::Event,
        Kind::EvalSet,
        Kind::EvalReport,
        Kind::EvalBody,
        Kind::Hook,
        Kind::Audit,
        Kind::Drift,
        Kind::BundleModels,
        Kind::Drill,
        Kind::GivenUp,
    ];
    for kind in all {
        assert!(store.rows().any(|(key, _)| key[0] == kind as u8), "{kind:?}");
    }
}

#[test]
fn keys_are_built_as_ever() {
    for (key, bytes) in [
        (Key::new(Kind::Cluster).build(), "01"),
        (Key::new(Kind::AgentName).text("default").last("a"), "0364656661756c740061"),
        (Key::of(Kind::Agent, 258).build(), "1000000102"),
        (Key::of(Kind::Step, 1).text("r").u32(2).build(), "2300000001720000000002"),
        (
            Key::of(Kind::Deadline, 1).u64(9).u8(Timer::DrainSoft as u8).last("b"),
            "400000000100000000000000090362",
        ),
        (
            Key::of(Kind::Memory, 1).text("k").u64(u64::MAX - 5).build(),
            "50000000016b00fffffffffffffffa",
        ),
    ] {
        assert_eq!(hex::encode(key), bytes);
    }
}

/// A small history that touches every kind of row, an entry a second.
fn commands() -> Vec<(&'static str, Bytes)> {
    let mut entries = Vec::new();
    for (second, (says, commands)) in (0..).zip(history::history()) {
        let batch = log::Batch {
            stamp_ms: BEGIN_MS + second * 1_000,
            commands: commands.iter().map(|it| Bytes::from(it.encode_to_vec())).collect(),
        };
        entries.push((says, Bytes::from(batch.encode_to_vec())));
    }
    entries
}

//! The storage under openraft's own suite.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _};
use openraft::testing::log::{StoreBuilder, Suite};

use crate::env::Env;

use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::types::{EncodedBatch, Entry, LogId, TypeConfig, Vote};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, StateMachine), openraft::StorageError<TypeConfig>>
    {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let env = Env::real();
        let log = LogStore::open(env.engines.open_log(dir.path()).unwrap(), &env).unwrap();
        let engine = env.engines.open_state(dir.path(), 256 << 20).unwrap();
        let (machine, _) = StateMachine::open(engine, &env).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn the_log_passes_openrafts_suite() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Suite::test_all(Builder).await }).unwrap();
}

/// A thread that still held the engine would find RocksDB's lock taken here, or RocksDB's globals gone at an exit.
#[test]
fn a_closed_log_holds_its_directory_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for round in 0..50 {
        let engine = env.engines.open_log(dir.path());
        let log = LogStore::open(engine.expect("nobody holds it"), &env).unwrap();
        let mut writer = log.clone();
        runtime.block_on(async {
            writer.save_vote(&Vote::new(round, 1)).await.unwrap();
            log.close().await;
            assert!(writer.save_vote(&Vote::new(round, 1)).await.is_err(), "it is closed");
            log.close().await;
        });
    }
}

/// As above, for who never closed it: a test, or a start that failed half-way.
#[test]
fn a_dropped_log_holds_its_directory_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for round in 0..50 {
        let engine = env.engines.open_log(dir.path());
        let mut log = LogStore::open(engine.expect("nobody holds it"), &env).unwrap();
        runtime.block_on(log.save_vote(&Vote::new(round, 1))).unwrap();
    }
}

/// What snapshots are triggered by: the log that another process left counts too.
#[test]
fn the_log_that_was_found_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let log = LogStore::open(env.engines.open_log(dir.path()).unwrap(), &env).unwrap();
        let mut writer = log.clone();
        let entries = (0..=100).map(|index| {
            let payload = EntryPayload::Normal(EncodedBatch(vec![7; 1_000].into()));
            Entry::new(LogId::new(Vote::new(1, 1).leader_id, index), payload)
        });
        writer.blocking_append(entries).await.unwrap();
        log.close().await;
        drop((log, writer));
        let log = LogStore::open(env.engines.open_log(dir.path()).unwrap(), &env).unwrap();
        assert_eq!(log.appended_bytes(), 0);
        let all = log.bytes_behind(0, u64::MAX).unwrap();
        assert!((100_000..110_000).contains(&all), "{all}");
        assert!(log.bytes_behind(60, u64::MAX).unwrap() < all / 2);
        assert_eq!(log.bytes_behind(100, u64::MAX).unwrap(), 0);
        assert!(log.bytes_behind(0, 1).unwrap() < all / 2, "it stops in time");
        log.close().await;
    });
}

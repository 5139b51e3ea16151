//! What a replica is told at its start, and what openraft is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::{Config, ConfigError, SnapshotPolicy};

use super::types::PeerNode;

/// A member that forms the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberConfig {
    pub name: String,
    /// Host and port of its peer service.
    pub peer_address: String,
}

/// One member of a cluster.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    pub cluster: String,
    pub node: String,
    pub data: PathBuf,
    pub peer_listen: SocketAddr,
    /// Where the others find this node; `None`: where it listens.
    pub peer_advertise: Option<String>,
    /// Where clients find this node.
    pub grpc_advertise: String,
    /// Members that form the cluster; empty: this node alone.
    pub members: Vec<MemberConfig>,
    /// Wait to be added to a cluster that exists.
    pub join: Vec<String>,
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    /// Bytes of log after which a snapshot is taken.
    pub snapshot_log_bytes: u64,
    /// Entries of log kept behind a snapshot.
    pub keep_entries: u64,
    /// Bytes of memory that the node aims to stay below.
    pub memory: u64,
}

impl ReplicaConfig {
    /// Whether the member is of the cluster's first list, so that its number follows from its name. One that joins, be it
    /// in the list or not, gets a number that nobody had before.
    pub(super) fn founds(&self) -> bool {
        let in_list = self.members.iter().any(|member| member.name == self.node);
        self.join.is_empty() && (self.members.is_empty() || in_list)
    }

    /// This member, as the others find it, while its server does not run.
    pub(super) fn own(&self, directory: String) -> PeerNode {
        let advertised = self.peer_advertise.clone();
        PeerNode {
            name: self.node.clone(),
            peer_address: advertised.unwrap_or_else(|| self.peer_listen.to_string()),
            grpc_address: self.grpc_advertise.clone(),
            directory,
            forgot: false,
        }
    }
}

/// openraft's configuration. Where it differs from the defaults, `docs/ARCHITECTURE.md` has the reason.
pub(super) fn raft_config(config: &ReplicaConfig) -> Result<Arc<Config>, Box<ConfigError>> {
    let settings = Config {
        cluster_name: config.cluster.clone(),
        heartbeat_interval: config.heartbeat_ms,
        heartbeat_min_interval: Some(config.heartbeat_ms.min(config.election_min_ms / 4)),
        election_timeout_min: config.election_min_ms,
        election_timeout_max: config.election_max_ms,
        max_payload_entries: 1_024,
        // By bytes of log, in `lead.rs`: a count of entries would take several a second.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: config.keep_entries,
        replication_lag_threshold: config.keep_entries.saturating_mul(2).max(100),
        install_snapshot_timeout: 60_000,
        enable_pre_vote: Some(true),
        // The state is not flushed when it is applied: a restarted leader must not go on as if nothing happened.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(config.election_max_ms * 2 + config.heartbeat_ms),
        broadcast_submitted_on_append: Some(true),
        ..Config::default()
    };
    Ok(Arc::new(settings.validate().map_err(Box::new)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_joins_founds_nothing_though_it_stands_in_the_list() {
        let member = MemberConfig { name: "n0".to_owned(), peer_address: "p:1".to_owned() };
        let listed = ReplicaConfig {
            cluster: "c".to_owned(),
            node: "n0".to_owned(),
            data: PathBuf::new(),
            peer_listen: ([127, 0, 0, 1], 0).into(),
            peer_advertise: None,
            grpc_advertise: String::new(),
            members: vec![member],
            join: vec![],
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 300,
            snapshot_log_bytes: 1,
            keep_entries: 1,
            memory: 256 << 20,
        };
        assert!(listed.founds());
        let alone = ReplicaConfig { members: vec![], ..listed.clone() };
        assert!(alone.founds());
        let stranger = ReplicaConfig { node: "n9".to_owned(), ..listed.clone() };
        assert!(!stranger.founds());
        let joins = ReplicaConfig { join: vec!["p:2".to_owned()], ..listed };
        assert!(!joins.founds());
    }
}

//! Three replicas in one process: election, failover, restart, catching up by snapshot, membership.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pinrail_node::env::Env;
use pinrail_node::raft::{MemberConfig, MemberError, Replica, ReplicaConfig, StartError};
use pinrail_proto::log as pb;
use pinrail_proto::log::command::Kind;
use pinrail_state_machine::query;
use tokio::time::{Instant, sleep};

use pinrail_node::testing::free_port;

use crate::damage::copy;

const TIMEOUT: Duration = Duration::from_secs(20);

struct Cluster {
    directory: tempfile::TempDir,
    members: Vec<MemberConfig>,
    replicas: Vec<Option<Replica>>,
    snapshot_log_bytes: u64,
    keep_entries: u64,
}

impl Cluster {
    async fn start(size: usize, snapshot_log_bytes: u64, keep_entries: u64) -> Self {
        let mut cluster = Self::planned(size, snapshot_log_bytes, keep_entries);
        for i in 0..size {
            cluster.start_one(i).await;
        }
        cluster
    }

    /// Nothing runs yet.
    fn planned(size: usize, snapshot_log_bytes: u64, keep_entries: u64) -> Self {
        let members = (0..size).map(|i| MemberConfig {
            name: format!("n{i}"),
            peer_address: format!("127.0.0.1:{}", free_port()),
        });
        Self {
            directory: tempfile::tempdir().unwrap(),
            members: members.collect(),
            replicas: (0..size).map(|_| None).collect(),
            snapshot_log_bytes,
            keep_entries,
        }
    }

    fn data(&self, i: usize) -> PathBuf {
        self.directory.path().join(format!("n{i}"))
    }

    async fn start_one(&mut self, i: usize) {
        let member = &self.members[i];
        let listen: SocketAddr = member.peer_address.parse().unwrap();
        let config = config(&member.name, listen, &self.data(i), self.members.clone());
        let config = ReplicaConfig {
            snapshot_log_bytes: self.snapshot_log_bytes,
            keep_entries: self.keep_entries,
            ..config
        };
        self.replicas[i] = Some(Replica::start(config, Env::real()).await.unwrap());
    }

    async fn stop_one(&mut self, i: usize) {
        self.replicas[i].take().unwrap().shutdown().await;
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Replica)> {
        self.replicas.iter().enumerate().filter_map(|(i, r)| r.as_ref().map(|r| (i, r)))
    }

    async fn leader(&self) -> usize {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            for (i, replica) in self.running() {
                if replica.leadership().borrow().here {
                    return i;
                }
            }
            assert!(Instant::now() < deadline, "no leader");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The cluster knows the directories of all members.
    async fn registered(&self) {
        let deadline = Instant::now() + TIMEOUT;
        let leader = self.replicas[self.leader().await].as_ref().unwrap();
        while leader.status().members.iter().any(|member| member.directory.is_empty()) {
            assert!(Instant::now() < deadline, "{:?}", leader.status().members);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// All running replicas have the same state hash at the same index.
    async fn converge(&self) {
        let leader = self.leader().await;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let at: Vec<_> = self.running().map(|(_, r)| r.applied().borrow().log_index).collect();
            if at.iter().all(|index| *index == at[0]) {
                let cluster = |r: &Replica| r.read(query::cluster).unwrap().state_hash;
                let expected = cluster(self.replicas[leader].as_ref().unwrap());
                for (i, replica) in self.running() {
                    assert_eq!(cluster(replica), expected, "n{i} differs");
                }
                return;
            }
            assert!(Instant::now() < deadline, "replicas stay apart: {at:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn config(
    name: &str,
    listen: SocketAddr,
    data: &Path,
    members: Vec<MemberConfig>,
) -> ReplicaConfig {
    ReplicaConfig {
        cluster: "test".to_owned(),
        node: name.to_owned(),
        data: data.to_owned(),
        peer_listen: listen,
        peer_advertise: None,
        grpc_advertise: format!("{name}:1"),
        members,
        join: Vec::new(),
        heartbeat_ms: 100,
        election_min_ms: 300,
        election_max_ms: 600,
        snapshot_log_bytes: 256 << 20,
        keep_entries: 20_000,
        memory: 256 << 20,
    }
}

fn create_agent(name: &str) -> pb::Command {
    let agent = pb::AgentRef { namespace: String::new(), agent_id: name.to_owned() };
    let create = pb::CreateAgent { agent: Some(agent), policy: None };
    pb::Command { header: None, kind: Some(Kind::CreateAgent(Box::new(create))) }
}

/// Proposes until it is known to be done: creating an agent twice is the same as once.
async fn create(replica: &Replica, name: &str) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match replica.propose(create_agent(name), Duration::from_secs(2)).await {
            Ok(outcome) => {
                let done = matches!(outcome.result, Some(pb::outcome::Result::Agent(_)));
                assert!(done, "{outcome:?}");
                return;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

fn agents(replica: &Replica) -> usize {
    let listed = replica.read(|read| Ok(query::agents(read, "", 1_000, ""))).unwrap();
    listed.unwrap().0.len()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn a_cluster_survives_its_leader_and_a_restart_of_all() {
    run(async {
        let mut cluster = Cluster::start(3, 256 << 20, 20_000).await;
        let first = cluster.leader().await;
        let follower = cluster.replicas[(first + 1) % 3].clone().unwrap();
        for i in 0..5 {
            create(&follower, &format!("before-{i}")).await;
        }
        follower.barrier(TIMEOUT).await.unwrap();
        assert_eq!(
            agents(&follower),
            5,
            "a follower's linearizable read sees what it acknowledged"
        );

        // A handle that is left keeps the storage open.
        drop(follower);
        cluster.stop_one(first).await;
        let second = cluster.leader().await;
        assert_ne!(first, second);
        create(cluster.replicas[second].as_ref().unwrap(), "after").await;
        cluster.start_one(first).await;
        cluster.converge().await;

        for i in 0..3 {
            cluster.stop_one(i).await;
        }
        for i in 0..3 {
            cluster.start_one(i).await;
        }
        let leader = cluster.leader().await;
        create(cluster.replicas[leader].as_ref().unwrap(), "again").await;
        cluster.converge().await;
        for (_, replica) in cluster.running() {
            assert_eq!(agents(replica), 7);
        }
    });
}

#[test]
fn a_follower_past_the_logs_tail_catches_up_by_snapshot() {
    run(async {
        let mut cluster = Cluster::start(3, 8 << 10, 5).await;
        let leader = cluster.leader().await;
        let late = (leader + 1) % 3;
        cluster.stop_one(late).await;
        let leader = cluster.leader().await;
        let replica = cluster.replicas[leader].clone().unwrap();
        for i in 0..200 {
            create(&replica, &format!("agent-{i}")).await;
        }
        let deadline = Instant::now() + TIMEOUT;
        while replica.status().snapshot_index < 50 {
            assert!(Instant::now() < deadline, "no snapshot was taken");
            sleep(Duration::from_millis(50)).await;
        }
        cluster.start_one(late).await;
        create(&replica, "meanwhile").await;
        cluster.converge().await;
        let late = cluster.replicas[late].as_ref().unwrap();
        // Raft's own figures come a moment after the state.
        let deadline = Instant::now() + TIMEOUT;
        while late.status().snapshot_index == 0 {
            assert!(Instant::now() < deadline, "it did not come by snapshot");
            sleep(Duration::from_millis(20)).await;
        }
        let hash = |r: &Replica| r.read(query::dispatch::content_hash).unwrap();
        assert_eq!(hash(late), hash(&replica));
    });
}

#[test]
fn a_member_that_comes_late_to_the_formation_is_let_in() {
    run(async {
        let mut cluster = Cluster::planned(3, 256 << 20, 20_000);
        cluster.start_one(0).await;
        cluster.start_one(1).await;
        let leader = cluster.leader().await;
        create(cluster.replicas[leader].as_ref().unwrap(), "one").await;
        cluster.start_one(2).await;
        cluster.converge().await;
        // It votes: without one of the first two there is a leader still.
        cluster.stop_one(leader).await;
        let leader = cluster.leader().await;
        create(cluster.replicas[leader].as_ref().unwrap(), "two").await;
        cluster.converge().await;
    });
}

/// Two members acknowledge a write while the third is down; then one of them loses its disk, and the other is down.
/// The one that lost its disk and the one that never had the write must not become a majority that knows nothing of it.
#[test]
fn a_member_that_lost_its_directory_takes_no_part_until_it_is_added_again() {
    run(async {
        let mut cluster = Cluster::start(3, 256 << 20, 20_000).await;
        let leader = cluster.leader().await;
        cluster.registered().await;
        let (lost, behind) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.converge().await;
        cluster.stop_one(behind).await;
        create(cluster.replicas[leader].as_ref().unwrap(), "acknowledged").await;
        cluster.stop_one(lost).await;
        cluster.stop_one(leader).await;
        std::fs::remove_dir_all(cluster.data(lost)).unwrap();
        cluster.start_one(behind).await;
        cluster.start_one(lost).await;
        // Far longer than any election takes.
        let mut leadership = cluster.replicas[behind].as_ref().unwrap().leadership();
        let led = leadership.wait_for(|now| now.here);
        assert!(tokio::time::timeout(Duration::from_secs(3), led).await.is_err(), "it leads");

        cluster.start_one(leader).await;
        let leads = cluster.leader().await;
        let replica = cluster.replicas[leads].clone().unwrap();
        assert_eq!(agents(&replica), 1, "what was acknowledged is there");
        let without = cluster.replicas[lost].as_ref().unwrap().applied().borrow().log_index;
        assert_eq!(without, 0, "it takes no part");

        let name = cluster.members[lost].name.clone();
        replica.remove_member(&name, false).await.unwrap();
        let address = cluster.members[lost].peer_address.clone();
        assert!(replica.add_member(&name, &address, false).await.unwrap().voter);
        create(&replica, "two").await;
        cluster.converge().await;
    });
}

/// An old copy of its disk was put back: what it acknowledged after the copy counts for a majority, and it has it no more.
#[test]
fn a_member_that_forgot_what_it_acknowledged_takes_no_part_and_ends_no_leader() {
    run(async {
        let mut cluster = Cluster::start(3, 256 << 20, 20_000).await;
        cluster.registered().await;
        cluster.converge().await;
        let leader = cluster.leader().await;
        let (old, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let kept = cluster.directory.path().join("copy");
        cluster.stop_one(old).await;
        copy(&cluster.data(old), &kept);
        cluster.start_one(old).await;
        for i in 0..20 {
            create(cluster.replicas[leader].as_ref().unwrap(), &format!("agent-{i}")).await;
        }
        cluster.converge().await;
        cluster.stop_one(old).await;
        std::fs::remove_dir_all(cluster.data(old)).unwrap();
        std::fs::rename(&kept, cluster.data(old)).unwrap();
        cluster.start_one(old).await;

        let replica = cluster.replicas[leader].clone().unwrap();
        let name = cluster.members[old].name.clone();
        let knows = |replica: &Replica| {
            replica.status().members.iter().any(|it| it.name == name && it.forgot)
        };
        let deadline = Instant::now() + TIMEOUT;
        while !knows(&replica) || !knows(cluster.replicas[other].as_ref().unwrap()) {
            assert!(Instant::now() < deadline, "{:?}", replica.status().members);
            sleep(Duration::from_millis(20)).await;
        }
        create(&replica, "after").await;
        assert!(replica.leadership().borrow().here, "the leader went on");
        let refused = replica.remove_member(&cluster.members[other].name, false).await;
        assert!(matches!(refused, Err(MemberError::Rejected(_))), "{refused:?}");

        // It is told, and keeps it over a restart; a later leader knows it too.
        let given_up = cluster.data(old).join("given-up");
        while !given_up.exists() {
            assert!(Instant::now() < deadline, "it was not told");
            sleep(Duration::from_millis(20)).await;
        }
        cluster.stop_one(old).await;
        let listen: SocketAddr = cluster.members[old].peer_address.parse().unwrap();
        let again = config(&name, listen, &cluster.data(old), cluster.members.clone());
        let refused = Replica::start(again, Env::real()).await;
        assert!(matches!(refused, Err(StartError::Directory(_))), "{refused:?}");
        replica.transfer_leader(Some(&cluster.members[other].name)).await.unwrap();

        let next = cluster.replicas[other].clone().unwrap();
        tokio::time::timeout(TIMEOUT, next.leadership().wait_for(|now| now.here))
            .await
            .expect("it leads soon")
            .unwrap();
        next.remove_member(&name, false).await.unwrap();
        std::fs::remove_dir_all(cluster.data(old)).unwrap();
        cluster.start_one(old).await;
        let address = cluster.members[old].peer_address.clone();
        assert!(next.add_member(&name, &address, false).await.unwrap().voter);
        create(&next, "again").await;
        cluster.converge().await;
    });
}

#[test]
fn members_come_and_go() {
    run(async {
        let mut cluster = Cluster::start(1, 256 << 20, 20_000).await;
        cluster.leader().await;
        let first = cluster.replicas[0].clone().unwrap();
        create(&first, "one").await;

        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let joining = ReplicaConfig {
            join: vec![cluster.members[0].peer_address.clone()],
            ..config("joiner", address.parse().unwrap(), dir.path(), Vec::new())
        };
        let joiner = Replica::start(joining, Env::real()).await.unwrap();
        let member = first.add_member("joiner", &address, false).await.unwrap();
        assert!(member.voter);
        joiner.barrier(TIMEOUT).await.unwrap();
        assert_eq!(agents(&joiner), 1);

        first.transfer_leader(Some("joiner")).await.unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while !joiner.leadership().borrow().here {
            assert!(Instant::now() < deadline, "the joiner does not lead");
            sleep(Duration::from_millis(10)).await;
        }
        let refused = first.remove_member("joiner", false).await;
        assert!(matches!(refused, Err(MemberError::NotLeader { .. })), "{refused:?}");
        joiner.remove_member("n0", false).await.unwrap();
        cluster.stop_one(0).await;
        create(&joiner, "two").await;
        assert_eq!(joiner.status().members.len(), 1);
        joiner.shutdown().await;
    });
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    run(async {
        let mut cluster = Cluster::start(1, 256 << 20, 20_000).await;
        cluster.leader().await;
        let busy = config("n0", ([127, 0, 0, 1], 0).into(), &cluster.data(0), Vec::new());
        let refused = Replica::start(busy, Env::real()).await.unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        cluster.stop_one(0).await;
        let foreign = ReplicaConfig {
            cluster: "other".to_owned(),
            ..config("n0", ([127, 0, 0, 1], 0).into(), &cluster.data(0), Vec::new())
        };
        let refused = Replica::start(foreign, Env::real()).await.unwrap_err();
        assert!(refused.to_string().contains("belongs to node n0 of cluster test"), "{refused}");
        let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = occupied.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let refused =
            Replica::start(config("x", address, dir.path(), Vec::new()), Env::real()).await;
        assert!(matches!(refused, Err(StartError::Listen { .. })), "{refused:?}");
    });
}

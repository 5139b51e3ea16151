//! A cluster of three loses two members for good: the third goes on alone, and the lost ones never take part again.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use pinrail_client::v1;
use pinrail_node::config::ServerConfig;
use pinrail_node::env::{Engines, Env};
use pinrail_node::raft::{RecoverError, Survivor};
use pinrail_node::server::{Server, replica_config};
use pinrail_node::storage::{LogEngine, LogLoaded, LogOp, LogRead, StateEngine};
use pinrail_proto::v1::work_request::Message as Request;
use pinrail_proto::v1::work_response::Message;
use tokio::time::{Instant, sleep};

use crate::backup::{client, members, put, serves};
use crate::damage::copy;
use crate::nodes::{SOON, Stream, agent, hello, start};

async fn run(config: &ServerConfig) -> Server {
    Server::start(config.clone(), Env::real()).await.expect("it starts")
}

fn open(config: &ServerConfig) -> Result<Survivor, RecoverError> {
    Survivor::open(&replica_config(config, config.listen.grpc), &Env::real())
}

/// A cluster of three that has served and is stopped; the revision of its last write.
async fn stopped(folder: &Path) -> (Vec<ServerConfig>, u64) {
    let configs = members("c", folder, 3);
    let mut servers = Vec::new();
    for config in &configs {
        servers.push(run(config).await);
    }
    let all = client(&servers);
    agent(&all).await;
    let written = serves(&all).await;
    for server in servers {
        server.shutdown().await;
    }
    for config in &configs {
        let_go(config).await;
    }
    (configs, written)
}

/// In this process the last call may still hold the log for a moment.
async fn let_go(config: &ServerConfig) -> Survivor {
    let deadline = Instant::now() + SOON;
    loop {
        match open(config) {
            Ok(survivor) => return survivor,
            Err(error) => assert!(Instant::now() < deadline, "it is whole: {error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The same member with an empty directory, which waits to be added.
fn joins(config: &ServerConfig, at: &ServerConfig) -> ServerConfig {
    fs::remove_dir_all(&config.data).expect("its old data is there");
    ServerConfig { join: vec![at.listen.peer.to_string()], ..config.clone() }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_last_member_goes_on_and_what_was_leased_before_is_void() {
    let folder = tempfile::tempdir().expect("a folder");
    let configs = members("c", folder.path(), 3);
    let mut servers = Vec::new();
    for config in &configs {
        servers.push(run(config).await);
    }
    let all = client(&servers);
    agent(&all).await;
    let endpoint = servers[0].grpc_addr.to_string();
    let mut worker = Stream::open(&endpoint, hello("w")).await.expect("it is let in");
    worker.next().await;
    worker.say(0, Request::Credit(v1::Credit { slots: 1 })).await;
    start(&all, "open").await;
    let (_, Message::Assignment(step)) = worker.next().await else { panic!("no assignment") };
    let written = put(&all, 1).await.expect("it is written");
    let before = all.cluster().status().await.expect("it answers");
    drop(worker);
    for server in servers {
        server.shutdown().await;
    }

    let survivor = let_go(&configs[0]).await;
    survivor.judge(&Env::real()).await.expect("nobody else is there");
    assert!(survivor.revision >= written);
    let lost: Vec<String> = survivor.given_up().into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(lost, ["r1", "r2"]);
    survivor.carry_out(&Env::real(), "ann", "rack 2 burnt").expect("it is written");
    let again = open(&configs[0]).expect("it is whole").judge(&Env::real()).await;
    assert!(matches!(again, Err(RecoverError::OnlyVoter { .. })), "{again:?}");

    let server = run(&configs[0]).await;
    let new = client(std::slice::from_ref(&server));
    assert!(serves(&new).await > written, "revisions go on");
    let after = new.cluster().status().await.expect("it answers");
    assert_ne!(after.cluster_id, before.cluster_id);
    assert!(after.term > before.term);
    let time = |status: &v1::GetClusterStatusResponse| {
        status.cluster_time.as_ref().map(|at| (at.seconds, at.nanos))
    };
    assert!(time(&after) >= time(&before), "time goes on");
    let audit = new.audit().list_all(v1::ListAuditRequest::default()).await.expect("it is read");
    let entry = audit.entries.iter().find(|it| it.action == "cluster recover");
    let entry = entry.expect("it stands in the audit");
    assert_eq!((entry.actor.as_str(), entry.reason.as_str()), ("ann", "rack 2 burnt"));
    assert_eq!(entry.details["given_up"], "r1, r2");
    let check = new.audit().verify(v1::VerifyAuditRequest::default()).await.expect("it is read");
    assert_eq!(check.broken_sequence, None, "{}", check.problem);

    let mut worker = Stream::open(&server.grpc_addr.to_string(), hello("w")).await.expect("in");
    worker.next().await;
    let refused = worker.completes_in_vain(&step).await;
    assert_eq!(refused.reason, "LEASE_STALE", "{refused:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_lost_member_that_comes_back_is_refused_until_it_begins_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (configs, _) = stopped(folder.path()).await;
    let survivor = open(&configs[0]).expect("it is whole");
    survivor.carry_out(&Env::real(), "ann", "rack 2 burnt").expect("it is written");
    let server = run(&configs[0]).await;
    let new = client(std::slice::from_ref(&server));
    serves(&new).await;

    // Both at once: they would be a majority of what the cluster was.
    let old = [run(&configs[1]).await, run(&configs[2]).await];
    for config in &configs[1..] {
        let told = config.data.join("given-up");
        until("it is told that it was given up", || told.exists()).await;
    }
    for server in old {
        server.shutdown().await;
    }
    for config in &configs[1..] {
        let refused = Server::start(config.clone(), Env::real()).await.expect_err("it is refused");
        let refused = refused.to_string();
        assert!(
            refused.contains("was given up") && refused.contains("docs/RECOVERY.md"),
            "{refused}"
        );
    }
    assert_eq!(server.replica.status().members.len(), 1, "nothing of it touched the new cluster");

    // With an empty directory, but the number that its name gives.
    fs::remove_dir_all(&configs[1].data).expect("its old data is there");
    let empty = run(&configs[1]).await;
    let peer = configs[1].listen.peer.to_string();
    let deadline = Instant::now() + SOON;
    loop {
        let added = server.replica.add_member("r1", &peer, false).await;
        let refused = added.expect_err("it is refused").to_string();
        if refused.contains("never used again") {
            break;
        }
        assert!(Instant::now() < deadline, "{refused}");
        sleep(Duration::from_millis(50)).await;
    }
    empty.shutdown().await;

    let mut all = vec![];
    for config in &configs[1..] {
        let joining = run(&joins(config, &configs[0])).await;
        let request = v1::AddMemberRequest {
            name: config.node.clone(),
            peer_address: config.listen.peer.to_string(),
            learner: false,
        };
        let deadline = Instant::now() + SOON;
        // On a busy machine the leadership may just be on its way.
        let added = loop {
            match new.cluster().add_member(request.clone()).await {
                Ok(added) => break added.member.expect("it is there"),
                Err(error) => assert!(Instant::now() < deadline, "it is not added: {error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        assert_ne!(added.role(), v1::MemberRole::Learner);
        all.push(joining);
    }
    let written = serves(&new).await;
    let request = || v1::GetContentHashRequest::default();
    let mut hashes = vec![];
    for server in all.iter().chain([&server]) {
        server.replica.wait_revision(written, SOON).await.expect("it catches up");
        let one = client(std::slice::from_ref(server));
        let hash = one.cluster().content_hash(request()).await.expect("it is read");
        hashes.push((hash.revision, hash.content_hash));
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "all have the same state");
    // It leads no more: what it knows of who was given up, the others know too.
    server.shutdown().await;
    serves(&client(&all)).await;
    for server in all {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn where_nothing_is_lost_nothing_is_recovered() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = ServerConfig::local("c", "n", &folder.path().join("n"), 0);
    assert!(matches!(open(&config), Err(RecoverError::NoMember(_))));
    let (configs, _) = stopped(folder.path()).await;

    // This member and another one are a majority.
    let other = run(&configs[1]).await;
    let refused = open(&configs[0]).expect("it is whole").judge(&Env::real()).await;
    let refused = refused.expect_err("two of three are there").to_string();
    assert!(refused.contains("r1 of 3 voters answers"), "{refused}");
    let running = open(&configs[1]).expect_err("a server runs").to_string();
    assert!(running.contains("another process uses"), "{running}");
    other.shutdown().await;
}

/// A disk on which the log cannot be written.
#[derive(Debug)]
struct Full(Arc<dyn Engines>);

#[derive(Debug)]
struct FullLog(Box<dyn LogEngine>);

impl Engines for Full {
    fn open_log(&self, directory: &Path) -> io::Result<Box<dyn LogEngine>> {
        Ok(Box::new(FullLog(self.0.open_log(directory)?)))
    }

    fn open_state(&self, directory: &Path, memory: u64) -> io::Result<Arc<dyn StateEngine>> {
        self.0.open_state(directory, memory)
    }

    fn is_durable(&self) -> bool {
        self.0.is_durable()
    }
}

impl LogEngine for FullLog {
    fn load(&self) -> io::Result<LogLoaded> {
        self.0.load()
    }

    fn reader(&self) -> Box<dyn LogRead> {
        self.0.reader()
    }

    fn write(&mut self, _ops: &[LogOp], _sync: bool) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }
}

#[tokio::test]
async fn a_recovery_that_broke_off_is_finished_by_the_start_wherever_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let (configs, written) = stopped(folder.path()).await;
    let data = &configs[0].data;
    let [before, broken, kept] = ["before", "broken", "kept"].map(|name| folder.path().join(name));
    copy(data, &before);
    let mut full = Env::real();
    full.engines = Arc::new(Full(full.engines));
    let survivor = Survivor::open(&replica_config(&configs[0], configs[0].listen.grpc), &full);
    let survivor = survivor.expect("it is whole");
    survivor.carry_out(&full, "ann", "rack 2 burnt").expect_err("the log cannot be written");
    copy(data, &broken);
    let plan = fs::read(data.join("recovery.pb")).expect("it stays until all is done");
    drop(open(&configs[0]).expect("whoever opens it finishes it"));
    copy(data, &kept);

    // Nothing but the plan was written; the member had its new number too; all was written, and the plan not yet removed.
    let mut numbers = BTreeSet::new();
    for stage in [&before, &broken, &kept] {
        fs::remove_dir_all(data).expect("it is there");
        copy(stage, data);
        fs::write(data.join("recovery.pb"), &plan).expect("it is written");
        let server = run(&configs[0]).await;
        let new = client(std::slice::from_ref(&server));
        assert!(serves(&new).await > written, "{}: revisions go on", stage.display());
        let status = server.replica.status();
        assert_eq!(status.members.len(), 1, "{}: it is alone", stage.display());
        numbers.extend(status.members.iter().map(|member| member.node_id));
        let audit =
            new.audit().list_all(v1::ListAuditRequest::default()).await.expect("it is read");
        let recovered = audit.entries.iter().filter(|it| it.action == "cluster recover").count();
        assert_eq!(recovered, 1, "{}", stage.display());
        assert!(!data.join("recovery.pb").exists(), "{}", stage.display());
        server.shutdown().await;
    }
    assert_eq!(numbers.len(), 1, "the plan gives the number");
}

fn recover(file: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinrail"));
    command.args(["cluster", "recover", "-f"]).arg(file).args(["--reason", "drill"]).args(flags);
    command.env("USER", "ann").output().expect("the binary runs")
}

#[tokio::test]
async fn the_command_says_what_may_be_lost_and_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    let (configs, written) = stopped(folder.path()).await;
    let file = folder.path().join("r0.toml");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = recover(&file, &["--dry-run"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let shown = text(&said.stdout);
    for word in ["may be lost", "r1 at", "r2 at", "last entry", "revision"] {
        assert!(shown.contains(word), "{word:?} is not in {shown}");
    }
    let said = recover(&file, &[]);
    assert_eq!(said.status.code(), Some(2), "nobody can be asked here: {said:?}");
    assert!(text(&said.stderr).contains("--yes"), "{said:?}");
    assert!(!folder.path().join("r0/recovery.pb").exists());
    let said = recover(&file, &["--yes", "-o", "json"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let json: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert_eq!(json["recovered"], true);
    assert!(json["revision"].as_u64() >= Some(written), "{json}");
    let said = recover(&file, &["--yes"]);
    assert_eq!(said.status.code(), Some(9), "{said:?}");
    assert!(text(&said.stderr).contains("error[NOTHING_LOST]"), "{said:?}");
    let server = run(&configs[0]).await;
    assert!(serves(&client(std::slice::from_ref(&server))).await > written);
    server.shutdown().await;
}

//! Backups over whole nodes: taken while users write, restored as another cluster of three.

use std::path::Path;
use std::time::Duration;

use pinrail_client::backup::{self, BackupError};
use pinrail_client::{Client, Config, v1};
use pinrail_node::config::ServerConfig;
use pinrail_node::env::Env;
use pinrail_node::server::Server;
use pinrail_node::testing::free_port;
use pinrail_proto::v1::work_request::Message as Request;
use pinrail_proto::v1::work_response::Message;
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, SOON, Stream, agent, hello, start};

/// server.toml of each member of a cluster with this name.
pub(crate) fn members(cluster: &str, folder: &Path, count: usize) -> Vec<ServerConfig> {
    let ports: Vec<[u16; 3]> =
        (0..count).map(|_| [free_port(), free_port(), free_port()]).collect();
    let list: String = ports
        .iter()
        .enumerate()
        .map(|(index, [_, _, peer])| {
            format!("[[members]]\nname = \"r{index}\"\npeer = \"127.0.0.1:{peer}\"\n")
        })
        .collect();
    let member = |(index, [grpc, http, peer]): (usize, &[u16; 3])| {
        let text = format!(
            "cluster = \"{cluster}\"\nnode = \"r{index}\"\ndata = \"{}\"\nlisten = {{ grpc = \"127.0.0.1:{grpc}\", \
             http = \"127.0.0.1:{http}\", peer = \"127.0.0.1:{peer}\" }}\n{list}",
            folder.join(format!("r{index}")).display()
        );
        let path = folder.join(format!("r{index}.toml"));
        std::fs::write(&path, text).expect("the file is written");
        ServerConfig::load(&path).expect("it is valid")
    };
    ports.iter().enumerate().map(member).collect()
}

pub(crate) fn client(servers: &[Server]) -> Client {
    let endpoints = servers.iter().map(|server| server.grpc_addr.to_string()).collect();
    Client::new(Config { endpoints, ..Config::default() }).expect("a client")
}

pub(crate) async fn put(client: &Client, number: usize) -> pinrail_client::Result<u64> {
    let request = v1::PutMemoryRequest {
        agent_id: "support".into(),
        key: format!("note/{number}"),
        value: Some(v1::Payload { content_type: "text/plain".into(), data: "kept".into() }),
        ..Default::default()
    };
    client.memory().put(request).await.map(|answer| answer.revision)
}

/// Waits until writes are taken.
pub(crate) async fn serves(client: &Client) -> u64 {
    let deadline = Instant::now() + SOON;
    loop {
        match put(client, 0).await {
            Ok(revision) => return revision,
            Err(error) => assert!(Instant::now() < deadline, "it does not serve: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn content(client: &Client) -> v1::GetContentHashResponse {
    let request = v1::GetContentHashRequest::default();
    client.cluster().content_hash(request).await.expect("the state is read")
}

#[tokio::test]
async fn a_backup_becomes_another_cluster_with_the_same_content_whose_old_leases_are_void() {
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = Nodes::start(1).await;
    let old = nodes.client();
    agent(&old).await;
    let mut worker = Stream::open(&nodes.endpoint(0), hello("w")).await.expect("it is let in");
    worker.next().await;
    worker.say(0, Request::Credit(v1::Credit { slots: 1 })).await;
    start(&old, "open").await;
    let (_, Message::Assignment(step)) = worker.next().await else { panic!("no assignment") };
    for number in 0..50 {
        put(&old, number).await.expect("it is written");
    }
    let file = folder.path().join("c.backup");
    let saved = backup::save(&old, &file).await.expect("it is saved");
    let before = content(&old).await;
    assert_eq!(saved.revision, before.revision, "all that was acknowledged is in it");
    let again = backup::save(&old, &file).await;
    assert!(matches!(again, Err(BackupError::Exists(_))), "{again:?}");
    assert_eq!(backup::verify(&file).expect("it is whole").revision, saved.revision);

    let configs = members("another", folder.path(), 3);
    for config in &configs {
        backup::unpack(&file, &config.data).expect("it is unpacked");
    }
    let mut servers = Vec::new();
    for config in configs {
        servers.push(Server::start(config, Env::real()).await.expect("it begins with the backup"));
    }
    let new = client(&servers);
    // Nothing was written yet that is no part of the content.
    let after = content(&new).await;
    assert_eq!(
        (after.content_hash.as_str(), after.revision),
        (before.content_hash.as_str(), before.revision)
    );
    let next = serves(&new).await;
    assert!(next > before.revision, "revisions go on");
    let request = v1::GetRunRequest {
        agent_id: "support".into(),
        run_id: "open".into(),
        ..Default::default()
    };
    let run = new.runs().get(request).await.expect("it is read").run.expect("the run is there");
    assert_eq!(run.pin.expect("it is pinned").bundle_id, "v1");
    let ids = [&old, &new].map(|client| async move {
        client.cluster().status().await.expect("it answers").cluster_id
    });
    let [old_id, new_id] = ids;
    assert_ne!(old_id.await, new_id.await);
    // The worker finds the new cluster, and says what became of its step.
    let endpoint = servers[0].grpc_addr.to_string();
    let mut worker = Stream::open(&endpoint, hello("w")).await.expect("it is let in");
    worker.next().await;
    let refused = worker.completes_in_vain(&step).await;
    assert_eq!(refused.reason, "LEASE_STALE", "{refused:?}");
    for server in servers {
        server.shutdown().await;
    }
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_backup_taken_while_users_write_holds_everything_acknowledged_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = Nodes::start(3).await;
    let old = nodes.client();
    agent(&old).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn({
        let old = old.clone();
        async move {
            let mut number = 0;
            while !*stopped.borrow() {
                put(&old, number).await.expect("it is written");
                number += 1;
            }
            number
        }
    });
    sleep(Duration::from_millis(300)).await;
    let acknowledged = put(&old, 1_000_000).await.expect("it is written");
    let file = folder.path().join("c.backup");
    let saved = backup::save(&old, &file).await.expect("it is saved");
    assert!(saved.revision >= acknowledged);
    stop.send_replace(true);
    assert!(writer.await.expect("it does not panic") > 0);

    let config = members("another", folder.path(), 1).remove(0);
    backup::unpack(&file, &config.data).expect("it is unpacked");
    let server = Server::start(config, Env::real()).await.expect("it begins with the backup");
    let new = client(std::slice::from_ref(&server));
    serves(&new).await;
    let request = v1::GetMemoryRequest {
        agent_id: "support".into(),
        key: "note/1000000".into(),
        ..Default::default()
    };
    let read = new.memory().get(request).await.expect("it is read");
    assert_eq!(read.version.expect("it is there").revision, acknowledged);
    server.shutdown().await;
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_backup_is_taken_over_by_a_new_directory_of_another_cluster_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = Nodes::start(1).await;
    let old = nodes.client();
    agent(&old).await;
    let file = folder.path().join("c.backup");
    let saved = backup::save(&old, &file).await.expect("it is saved");
    let config = members(&saved.cluster, folder.path(), 1).remove(0);
    backup::unpack(&file, &config.data).expect("it is unpacked");
    let error = Server::start(config.clone(), Env::real()).await.expect_err("it is the same name");
    assert!(error.to_string().contains("give the restored cluster another name"), "{error}");
    let again = backup::unpack(&file, &config.data);
    assert!(matches!(again, Err(BackupError::NotNew(_))), "{again:?}");
    nodes.stop_all().await;
}

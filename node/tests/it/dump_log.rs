//! `pinrail debug dump-log` on a stopped member, and the archive of a node under test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use pinrail_node::config::ServerConfig;
use pinrail_node::env::Env;
use pinrail_node::server::Server;
use serde_json::Value as Json;
use tokio::time::{Instant, sleep};

use crate::backup::{client, members, put, serves};
use crate::nodes::{SOON, agent};

fn dump(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinrail"));
    command.args(["debug", "dump-log"]).args(args).output().expect("the binary runs")
}

fn lines(args: &[&str]) -> Vec<Json> {
    let said = dump(args);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let text = String::from_utf8(said.stdout).expect("JSON is text");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn refused(args: &[&str], exit: i32, words: &[&str]) {
    let said = dump(args);
    assert_eq!(said.status.code(), Some(exit), "{said:?}");
    let error = String::from_utf8_lossy(&said.stderr);
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
}

fn index(line: &Json) -> u64 {
    line["index"].as_u64().expect("every line has an index")
}

async fn start(config: &ServerConfig, archive: &Path) -> Server {
    let deadline = Instant::now() + SOON;
    loop {
        let mut env = Env::real();
        env.log_archive = Some(archive.to_owned());
        match Server::start(config.clone(), env).await {
            Ok(server) => return server,
            // In this process the last call may still hold the log for a moment.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Every file with its content and the time of its last change.
fn files(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("it is read").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let changed = fs::metadata(&path).and_then(|it| it.modified()).expect("it is a file");
            all.insert(path.clone(), (fs::read(&path).expect("it is read"), changed));
        }
    }
    all
}

#[tokio::test]
async fn a_stopped_members_entries_are_shown_and_its_directory_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = members("c", folder.path(), 1).remove(0);
    let archive = folder.path().join("archive");
    let file = folder.path().join("r0.toml");
    let file = file.to_str().expect("it is text");
    let data = config.data.to_str().expect("it is text").to_owned();
    refused(&["-f", file], 1, &["NOTHING_THERE", "is no member's data directory"]);
    let server = start(&config, &archive).await;
    let one = client(std::slice::from_ref(&server));
    agent(&one).await;
    let written = serves(&one).await;
    refused(&["--data", &data], 9, &["DIRECTORY_IN_USE", "another process uses"]);
    server.shutdown().await;

    let before = files(&config.data);
    let all = lines(&["-f", file]);
    assert_eq!(files(&config.data), before, "nothing is written");
    let indexes: Vec<u64> = all.iter().map(index).collect();
    let (first, last) = (indexes[0], indexes[indexes.len() - 1]);
    assert_eq!(indexes, (first..=last).collect::<Vec<_>>());
    assert_eq!(all[0]["kind"], "membership");
    let puts = all.iter().flat_map(|line| line["commands"].as_array().into_iter().flatten());
    let puts: Vec<&Json> = puts.filter(|it| it["kind"] == "put_memory").collect();
    assert!(puts.iter().any(|it| it["asked"]["key"] == "note/0"), "{puts:?}");
    assert!(puts.iter().all(|it| it["request_id"] != ""), "{puts:?}");
    let part = lines(&["--data", &data, "--from", "3", "--to", "4"]);
    assert_eq!(part[..], all[3 - usize::try_from(first).expect("it is small")..][..2]);

    let archive = archive.to_str().expect("it is text");
    let kept = lines(&["--archive", archive]);
    let by_index: BTreeMap<u64, &Json> = all.iter().map(|line| (index(line), line)).collect();
    for line in &kept {
        assert_eq!(line["hash"], by_index[&index(line)]["hash"], "{line}");
    }
    let commands = kept.iter().flat_map(|line| line["commands"].as_array().into_iter().flatten());
    let at = commands
        .filter(|it| it["asked"]["key"] == "note/0")
        .filter_map(|it| it["revision"].as_u64());
    assert!(at.collect::<Vec<_>>().contains(&written), "the revision is the answer's");

    fs::write(config.data.join("raft/CURRENT"), "nonsense\n").expect("it is written");
    refused(&["--data", &data], 1, &["DATA_DAMAGED", "raft is damaged"]);
    refused(&["--data", &data, "--from", "4", "--to", "3"], 2, &["--from 4 is behind"]);
    refused(&[], 2, &["--file", "--archive"]);
    refused(&["--archive", file], 1, &["holds no archive"]);
}

#[tokio::test]
async fn an_archive_goes_on_over_restarts_and_purges() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = members("c", folder.path(), 1).remove(0);
    (config.raft.snapshot_log, config.raft.keep_entries) = (4 << 10, 1);
    let archive = folder.path().join("archive");
    for life in 0..2 {
        let server = start(&config, &archive).await;
        let one = client(std::slice::from_ref(&server));
        if life == 0 {
            agent(&one).await;
        }
        serves(&one).await;
        for number in 0..100 {
            put(&one, number).await.expect("it is written");
        }
        server.shutdown().await;
    }
    let text = |path: &Path| path.to_str().expect("it is text").to_owned();
    let deadline = Instant::now() + 2 * SOON;
    // The log's growth is looked at twice a second, and what a snapshot has made needless goes some time behind it.
    while index(&lines(&["--data", &text(&config.data)])[0]) <= 50 {
        assert!(Instant::now() < deadline, "the log was not purged");
        let server = start(&config, &archive).await;
        serves(&client(std::slice::from_ref(&server))).await;
        sleep(Duration::from_millis(600)).await;
        server.shutdown().await;
    }
    let kept = lines(&["--archive", &text(&archive)]);
    assert!(index(&kept[0]) <= 1, "the archive has the first entry");
    for (one, next) in kept.iter().zip(&kept[1..]) {
        assert!(index(next) <= index(one) + 1, "{one} is followed by {next}");
    }
    assert!(kept.iter().map(index).max() >= Some(200));
}

#[tokio::test]
async fn a_node_whose_archive_cannot_be_written_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    members("c", folder.path(), 1);
    let file = folder.path().join("r0.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinrail"));
    let said = command.arg("server").arg("-f").arg(&file).arg("--log-archive").arg(&file).output();
    let said = said.expect("the binary runs");
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("the log archive"), "{said:?}");
}

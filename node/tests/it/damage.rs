//! One member's files are damaged while it is stopped, one after the other: it either refuses to start with an error that says
//! what to do, or runs with the same state as the others. It never serves anything else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pinrail_client::{Client, Config, backup, v1};
use pinrail_node::config::ServerConfig;
use pinrail_node::env::Env;
use pinrail_node::server::Server;
use tokio::time::{Instant, sleep};

use pinrail_node::testing::free_port;

use crate::backup::{client, members, put, serves};
use crate::nodes::{SOON, agent};

/// The member whose files are damaged, as a process of its own: a fault that it meets ends it.
struct Member {
    child: Child,
    errors: PathBuf,
}

impl Member {
    fn start(config: &ServerConfig, folder: &Path) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_pinrail")), config, folder)
    }

    /// None of its files may grow beyond so many blocks: as on a disk that is full, a write fails then.
    fn start_with_files_of(blocks: u32, config: &ServerConfig, folder: &Path) -> Self {
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_pinrail"));
        Self::run(command, config, folder)
    }

    fn run(mut command: Command, config: &ServerConfig, folder: &Path) -> Self {
        let errors = folder.join("errors.txt");
        let out = fs::File::create(&errors).expect("it can be made");
        command.arg("server").arg("-f").arg(folder.join(format!("{}.toml", config.node)));
        let child = command.stdout(Stdio::null()).stderr(out).spawn().expect("the binary runs");
        Self { child, errors }
    }

    /// Its exit code, if it has ended.
    fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("it is ours").map(|status| status.code())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Ends it in order.
    async fn stop(mut self) {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(told.success());
        let deadline = Instant::now() + SOON;
        while self.ended().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The two members that nothing happens to.
async fn others_of(configs: &[ServerConfig]) -> Vec<Server> {
    let mut servers = Vec::new();
    for config in &configs[..2] {
        servers.push(Server::start(config.clone(), Env::real()).await.expect("it starts"));
    }
    servers
}

fn alone(config: &ServerConfig) -> Client {
    let endpoints = vec![config.listen.grpc.to_string()];
    let config = Config { endpoints, timeout: Duration::from_secs(2), ..Config::default() };
    Client::builder(config).learn_members(false).build().expect("a client")
}

/// The state of a member once it has applied an entry.
async fn state(client: &Client, min_applied_index: u64) -> Option<v1::GetContentHashResponse> {
    let request = v1::GetContentHashRequest { min_applied_index };
    client.cluster().content_hash(request).await.ok()
}

/// What became of a start with a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    Refused,
    /// It runs with the state that it had.
    Harmless,
    /// It runs with an earlier state, and goes on from there by its log.
    Behind,
}

/// Starts the member alone. Were the others there, it would acknowledge what the next trial has forgotten, and would be given up
/// for that.
async fn trial(
    config: &ServerConfig,
    folder: &Path,
    case: &str,
    truth: &v1::GetContentHashResponse,
) -> Became {
    let mut member = Member::start(config, folder);
    let client = alone(config);
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(code) = member.ended() {
            let said = member.said();
            // A block of the state is looked at when it is read: the node stops there at once.
            assert!(matches!(code, Some(1) | None), "{case}: it ended with {code:?}: {said}");
            let helps = said.contains("damaged") && said.contains("docs/RECOVERY.md");
            // A flipped digit is the number of a format that may come.
            let helps = helps || case.starts_with("format-version") && said.contains("has format");
            assert!(helps, "{case}: the error says too little: {said}");
            return Became::Refused;
        }
        if let Some(its) = state(&client, 0).await {
            if its.applied_index < truth.applied_index {
                return Became::Behind;
            }
            assert_eq!(
                (&its.content_hash, &its.state_hash),
                (&truth.content_hash, &truth.state_hash),
                "{case}: it serves another state"
            );
            return Became::Harmless;
        }
        assert!(Instant::now() < deadline, "{case}: it neither ends nor serves: {}", member.said());
        sleep(Duration::from_millis(30)).await;
    }
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("it is listed") {
        let path = entry.expect("it is listed").path();
        if path.is_dir() {
            found.extend(files_of(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A copy without shared files: a snapshot has links to tables of the state.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it can be made");
    for entry in fs::read_dir(from).expect("it is listed") {
        let path = entry.expect("it is listed").path();
        let target = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("it is copied");
        }
    }
}

/// What is done to a file.
type Damage = (&'static str, fn(&mut Vec<u8>));

const DAMAGES: &[Damage] = &[
    ("a bit flipped in its middle", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    }),
    ("a bit flipped near its end", |bytes| {
        let place = bytes.len() - bytes.len().min(20) / 2 - 1;
        bytes[place] ^= 1;
    }),
    ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
];

/// Files that no start reads: RocksDB's own notes, and the lock.
fn is_a_note(name: &str) -> bool {
    name.starts_with("LOG") || name == "LOCK" || name == "IDENTITY"
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_does_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let configs = members("c", folder, 3);
    let servers = others_of(&configs).await;
    let config = &configs[2];
    let member = Member::start(config, folder);
    let others = client(&servers);
    agent(&others).await;
    for number in 0..200 {
        put(&others, number).await.expect("it is written");
    }
    let last = serves(&others).await;
    let truth = state(&others, 0).await.expect("it is read");
    while state(&alone(config), truth.applied_index).await.is_none() {
        sleep(Duration::from_millis(30)).await;
    }
    // It has a snapshot, tables beside the log's newest part, and a generation of its own.
    backup::save(&alone(config), &folder.join("c.backup")).await.expect("it makes a snapshot");
    member.stop().await;
    let member = Member::start(config, folder);
    assert!(serves(&others).await > last);
    while state(&alone(config), truth.applied_index + 1).await.is_none() {
        sleep(Duration::from_millis(30)).await;
    }
    member.stop().await;

    for server in servers {
        server.shutdown().await;
    }

    let whole = folder.join("whole");
    copy(&config.data, &whole);
    let member = Member::start(config, folder);
    let deadline = Instant::now() + SOON;
    let truth = loop {
        if let Some(its) = state(&alone(config), truth.applied_index + 1).await {
            break its;
        }
        assert!(Instant::now() < deadline, "it does not serve: {}", member.said());
    };
    drop(member);
    let mut cases = Vec::new();
    for path in files_of(&whole) {
        let name = path.strip_prefix(&whole).expect("it is in there").to_owned();
        let bytes = fs::read(&path).expect("it is read");
        let short = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if bytes.is_empty() || is_a_note(&short) {
            continue;
        }
        for (what, damage) in DAMAGES {
            fs::remove_dir_all(&config.data).expect("it is removed");
            copy(&whole, &config.data);
            let mut damaged = bytes.clone();
            damage(&mut damaged);
            fs::write(config.data.join(&name), damaged).expect("it is written");
            let case = format!("{}, {what}", name.display());
            let became = trial(config, folder, &case, &truth).await;
            println!("{became:?}: {case}");
            cases.push((case, became));
        }
    }
    for part in ["node-id", "format-version", "log-end", "raft/CURRENT"] {
        let unnoticed =
            cases.iter().find(|(case, it)| case.starts_with(part) && *it != Became::Refused);
        assert_eq!(unnoticed, None, "a damaged {part} was not noticed");
    }
    let of_log = |case: &str| case.starts_with("raft/") && case.contains(".log");
    let unnoticed = cases.iter().find(|(case, it)| of_log(case) && *it != Became::Refused);
    assert_eq!(unnoticed, None, "what it had acknowledged was lost unnoticed");

    let servers = others_of(&configs).await;
    let others = client(&servers);
    serves(&others).await;
    rebuild(config, folder, &servers, &others).await;
    for server in servers {
        server.shutdown().await;
    }
}

/// The way out: the member is removed, begins with an empty directory under another number, and catches up by a snapshot.
async fn rebuild(config: &ServerConfig, folder: &Path, servers: &[Server], others: &Client) {
    let request = v1::RemoveMemberRequest { name: config.node.clone(), force: false };
    let deadline = Instant::now() + SOON;
    let removed = loop {
        match others.cluster().remove_member(request.clone()).await {
            Ok(removed) => break removed,
            Err(error) => assert!(Instant::now() < deadline, "it is not removed: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    fs::remove_dir_all(&config.data).expect("it is removed");
    let file = folder.join(format!("{}.toml", config.node));
    let text = fs::read_to_string(&file).expect("it is read");
    let peer = servers[0].peer_addr;
    fs::write(&file, format!("join = [\"{peer}\"]\n{text}")).expect("it is written");
    let _member = Member::start(config, folder);
    let deadline = Instant::now() + SOON;
    let request = v1::AddMemberRequest {
        name: config.node.clone(),
        peer_address: config.listen.peer.to_string(),
        learner: false,
    };
    let added = loop {
        match others.cluster().add_member(request.clone()).await {
            Ok(added) => break added.member.expect("it is there"),
            Err(error) => assert!(Instant::now() < deadline, "it is not added: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_ne!(
        Some(added.node_id),
        removed.member.map(|it| it.node_id),
        "numbers are not used again"
    );
    catches_up(config, others).await;
}

/// The member comes to the state of the others.
async fn catches_up(config: &ServerConfig, others: &Client) {
    let truth = state(others, 0).await.expect("the others serve");
    let deadline = Instant::now() + SOON;
    let its = loop {
        if let Some(its) = state(&alone(config), truth.applied_index).await {
            break its;
        }
        assert!(Instant::now() < deadline, "it does not catch up");
        sleep(Duration::from_millis(30)).await;
    };
    assert_eq!(its.content_hash, truth.content_hash);
}

/// A leader that finds its own files damaged ends: nobody can catch up by them, and its state may share them.
#[tokio::test]
async fn a_leader_whose_snapshot_is_damaged_ends_and_another_one_gives_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut configs = members("c", folder, 3);
    for config in &mut configs {
        config.raft.keep_entries = 5;
    }
    let file = folder.join("r2.toml");
    let text = fs::read_to_string(&file).expect("it is read");
    fs::write(&file, format!("{text}[raft]\nkeep_entries = 5\n")).expect("it is written");
    let mut servers = others_of(&configs).await;
    let mut member = Member::start(&configs[2], folder);
    let others = client(&servers);
    agent(&others).await;
    for number in 0..200 {
        put(&others, number).await.expect("it is written");
    }
    let deadline = Instant::now() + SOON;
    let lead = v1::TransferLeaderRequest { to: configs[2].node.clone() };
    while let Err(error) = others.cluster().transfer_leader(lead.clone()).await {
        assert!(Instant::now() < deadline, "it does not lead: {error}");
        sleep(Duration::from_millis(50)).await;
    }
    backup::save(&alone(&configs[2]), &folder.join("c.backup")).await.expect("it makes a snapshot");
    let tables = files_of(&configs[2].data.join("snapshots"));
    let tables: Vec<_> =
        tables.iter().filter(|it| it.extension() == Some("sst".as_ref())).collect();
    assert!(!tables.is_empty(), "the snapshot has a table");
    for table in tables {
        let mut bytes = fs::read(table).expect("it is read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        // The state keeps its own: it is the snapshot that is damaged.
        let copy = table.with_extension("copy");
        fs::write(&copy, bytes).expect("it is written");
        fs::rename(&copy, table).expect("it is replaced");
    }

    let [grpc, http, peer] = [free_port(), free_port(), free_port()];
    let text = format!(
        "join = [\"{}\"]\ncluster = \"c\"\nnode = \"r3\"\ndata = \"{}\"\n\
         listen = {{ grpc = \"127.0.0.1:{grpc}\", http = \"127.0.0.1:{http}\", peer = \"127.0.0.1:{peer}\" }}\n",
        servers[0].peer_addr,
        folder.join("r3").display()
    );
    let file = folder.join("r3.toml");
    fs::write(&file, text).expect("it is written");
    let joining = ServerConfig::load(&file).expect("it is valid");
    servers.push(Server::start(joining.clone(), Env::real()).await.expect("it starts"));
    let request = v1::AddMemberRequest {
        name: "r3".into(),
        peer_address: format!("127.0.0.1:{peer}"),
        learner: false,
    };
    let deadline = Instant::now() + SOON;
    while let Err(error) = others.cluster().add_member(request.clone()).await {
        assert!(Instant::now() < deadline, "it is not added: {error}; {}", member.said());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(member.ended(), Some(None), "it ended by a signal of its own: {}", member.said());
    assert!(member.said().contains("docs/RECOVERY.md"), "{}", member.said());
    catches_up(&joining, &others).await;
    for server in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_member_whose_disk_is_full_ends_and_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let configs = members("c", folder, 3);
    let servers = others_of(&configs).await;
    let config = &configs[2];
    let mut member = Member::start_with_files_of(1_024, config, folder);
    let others = client(&servers);
    agent(&others).await;
    let deadline = Instant::now() + SOON;
    let mut written = 0;
    while member.ended().is_none() {
        let request = v1::PutMemoryRequest {
            agent_id: "support".into(),
            key: format!("note/{written}"),
            value: Some(v1::Payload { data: vec![7; 32 << 10].into(), ..Default::default() }),
            ..Default::default()
        };
        others.memory().put(request).await.expect("the others serve");
        written += 1;
        assert!(Instant::now() < deadline, "it goes on without room: {}", member.said());
    }
    serves(&others).await;
    let _member = Member::start(config, folder);
    catches_up(config, &others).await;
    for server in servers {
        server.shutdown().await;
    }
}

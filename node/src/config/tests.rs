//! What server.toml may say, and how mistakes in it read.

use super::*;

const FULL: &str = r#"
cluster = "prod-eu"
node    = "pinrail-0"
data    = "/var/lib/pinrail"
listen    = { grpc = "127.0.0.1:7420", http = "127.0.0.1:7421", peer = "127.0.0.1:7422" }
advertise = { grpc = "pinrail-0.pinrail:7420", peer = "pinrail-0.pinrail:7422" }

[[members]]
name = "pinrail-0"
peer = "pinrail-0.pinrail:7422"

[[members]]
name = "pinrail-1"
peer = "pinrail-1.pinrail:7422"

[[members]]
name = "pinrail-2"
peer = "pinrail-2.pinrail:7422"

[raft]
profile = "dedicated"
snapshot_log = "256MiB"
keep_entries = 20_000

[limits]
memory  = "2GiB"
runs_per_second = 0

[log]
format = "text"
level  = "info"

[metrics]
agent_labels = []
currency = "USD"
"#;

fn error(text: &str) -> String {
    ServerConfig::parse("server.toml", text).expect_err("it holds a mistake").to_string()
}

#[test]
fn the_documented_file_is_read_as_it_stands() {
    let config = ServerConfig::parse("server.toml", FULL).expect("it is the documented file");
    assert_eq!(config.members.len(), 3);
    assert_eq!(config.raft, RaftSettings::default());
    assert_eq!(config.limits, LimitSettings::default());
    assert_eq!(config.log, LogSettings::default());
    assert_eq!(config.advertise.peer.as_deref(), Some("pinrail-0.pinrail:7422"));
    assert!(config.describe().contains("pinrail-0, pinrail-1, pinrail-2"));
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = ServerConfig::parse("s", "cluster = \"c\"\nnode = \"n\"").expect("enough");
    assert_eq!(config.listen.grpc, SocketAddr::from(([127, 0, 0, 1], GRPC_PORT)));
    assert_eq!(config.listen.peer, SocketAddr::from(([127, 0, 0, 1], PEER_PORT)));
    assert_eq!(config.data, Path::new("/var/lib/pinrail"));
    assert!(config.members.is_empty() && config.join.is_empty());
}

#[test]
fn the_example_for_systemd_is_read_by_this_loader() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/server.toml");
    let config = ServerConfig::load(&path).expect("the example is valid");
    assert_eq!(config.members.len(), 3);
    config.check_reach(false).expect_err("members on several machines listen beyond loopback");
    config.check_reach(true).expect("which has to be said");
}

#[test]
fn the_systemd_unit_starts_the_command_that_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/pinrail.service");
    let unit = std::fs::read_to_string(path).expect("the unit is there");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts");
    let mut words = start.split_whitespace();
    assert!(words.next().is_some_and(|binary| binary.ends_with("/pinrail")));
    assert_eq!(words.next(), Some("server"));
    assert_eq!(words.next(), Some("-f"));
    assert!(unit.contains("Restart=always"), "a node that stopped itself must come back");
}

#[test]
fn mistakes_name_their_line_and_key() {
    for (text, line, key) in [
        ("cluster = \"c\"\nnode = \"n\"\nclusterr = 1", ":3:", "clusterr"),
        ("cluster = \"c\"\nnode = \"n\"\n[raft]\nprofil = \"shared\"", ":4:", "profil"),
        ("cluster = \"c\"\nnode = \"n\"\n[raft]\nprofile = \"fast\"", ":4:", "fast"),
        ("cluster = \"c\"\nnode = \"n\"\n[raft]\nsnapshot_log = \"much\"", ":4:", "snapshot_log"),
        ("cluster = \"c\"\nnode = \"n\"\n[raft]\nkeep_entries = -1", ":4:", "keep_entries"),
        ("cluster = \"a b\"\nnode = \"n\"", ":1:", "cluster"),
        ("cluster = \"c\"\nnode = \"\"", ":2:", "node"),
        ("cluster = \"c\"\nnode = 7", ":2:", "node"),
        ("cluster = \"c\"\nnode = \"n\"\nlisten = { grpc = \"7420\" }", ":3:", "listen.grpc"),
        ("cluster = \"c\"\nnode = \"n\"\n[log]\nlevel = \"a=b=c\"", ":4:", "log.level"),
        ("cluster = \"c\"\nnode = \"n\"\n[limits]\nruns_per_second = -5", ":4:", "runs_per_second"),
        ("cluster = \"c\"\nnode = \"n\"\njoin = [\"http://x:1\"]", ":3:", "join"),
    ] {
        let error = error(text);
        assert!(error.contains(line) && error.contains(key), "{text:?} gave {error:?}");
    }
    assert!(error("node = \"n\"").contains("cluster"));
}

#[test]
fn wildcards_are_no_addresses_for_others() {
    let advertise = "cluster = \"c\"\nnode = \"n\"\nadvertise = { grpc = \"0.0.0.0:7420\" }";
    assert!(error(advertise).contains("wildcard"));
    let listen = "cluster = \"c\"\nnode = \"n\"\nlisten = { grpc = \"0.0.0.0:7420\" }";
    assert!(error(listen).contains("advertise.grpc"));
}

#[test]
fn members_are_distinct_and_include_this_node() {
    let member =
        |name: &str, peer: &str| format!("[[members]]\nname = \"{name}\"\npeer = \"{peer}\"\n");
    let head = "cluster = \"c\"\nnode = \"n\"\n";
    let twice = format!("{head}{}{}", member("n", "a:1"), member("n", "b:1"));
    assert!(error(&twice).contains("twice"));
    let same = format!("{head}{}{}", member("n", "a:1"), member("m", "a:1"));
    assert!(error(&same).contains("twice"));
    let without = format!("{head}{}", member("m", "a:1"));
    assert!(error(&without).contains("not among them"));
    let own = format!("{head}{}", member("n", "a:1"));
    let config = ServerConfig::parse("s", &own).expect("it is complete");
    assert_eq!(config.advertise.peer.as_deref(), Some("a:1"), "as the others know it");
}

#[test]
fn only_loopback_is_listened_on_unless_it_is_meant() {
    let text = "cluster = \"c\"\nnode = \"n\"\nlisten = { grpc = \"10.0.0.1:7420\" }";
    let config = ServerConfig::parse("s", text).expect("it is well formed");
    assert!(
        config.check_reach(false).expect_err("it is refused").to_string().contains("--insecure")
    );
    assert_eq!(config.check_reach(true), Ok(()));
}

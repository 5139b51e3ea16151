//! The text of server.toml: its shape, and the checks that know where in it something stands.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{
    Advertise, GRPC_PORT, HTTP_PORT, LimitSettings, Listen, LogFormat, LogSettings, MEMBERS,
    Member, MetricSettings, PEER_PORT, Profile, RaftSettings, ServerConfig, check_name,
};

/// A mistake in the configuration, in a sentence that names file, line and key where there are any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn plain(message: String) -> Self {
        Self(message)
    }

    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self(format!("{} cannot be read: {error}", path.display()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: Spanned<String>,
    node: Option<Spanned<String>>,
    data: Option<PathBuf>,
    #[serde(default)]
    listen: ListenFile,
    #[serde(default)]
    advertise: AdvertiseFile,
    #[serde(default)]
    members: Vec<MemberFile>,
    #[serde(default)]
    join: Vec<Spanned<String>>,
    #[serde(default)]
    raft: RaftFile,
    #[serde(default)]
    limits: LimitFile,
    #[serde(default)]
    log: LogFile,
    #[serde(default)]
    metrics: MetricFile,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ListenFile {
    grpc: Option<Spanned<String>>,
    http: Option<Spanned<String>>,
    peer: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct AdvertiseFile {
    grpc: Option<Spanned<String>>,
    peer: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberFile {
    name: Spanned<String>,
    peer: Spanned<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RaftFile {
    profile: Option<ProfileFile>,
    snapshot_log: Option<Spanned<String>>,
    keep_entries: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProfileFile {
    Dedicated,
    Shared,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitFile {
    memory: Option<Spanned<String>>,
    runs_per_second: Option<Spanned<i64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LogFile {
    format: Option<FormatFile>,
    level: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FormatFile {
    Text,
    Json,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct MetricFile {
    /// Known, and not here yet.
    agent_labels: Option<Spanned<Vec<String>>>,
    currency: Option<String>,
}

/// Knows the text, so that a mistake can be pointed at.
struct Checker<'a> {
    name: &'a str,
    text: &'a str,
}

pub(super) fn parse(name: &str, text: &str) -> Result<ServerConfig, ConfigError> {
    let check = Checker { name, text };
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        check.error_at(at, error.message())
    })?;
    check.name("cluster", &file.cluster)?;
    let node = match file.node {
        Some(node) => {
            check.name("node", &node)?;
            node.into_inner()
        }
        None => host_name().ok_or_else(|| {
            check.error_at(0, "node: this machine has no usable host name; set it")
        })?,
    };
    let listen = Listen {
        grpc: check.listen("listen.grpc", file.listen.grpc, GRPC_PORT)?,
        http: check.listen("listen.http", file.listen.http, HTTP_PORT)?,
        peer: check.listen("listen.peer", file.listen.peer, PEER_PORT)?,
    };
    let members = check.members(file.members, &node, !file.join.is_empty())?;
    let mut advertise = Advertise {
        grpc: check.advertised("advertise.grpc", file.advertise.grpc)?,
        peer: check.advertised("advertise.peer", file.advertise.peer)?,
    };
    if advertise.peer.is_none() {
        let own = members.iter().find(|member| member.name == node);
        advertise.peer = own.map(|member| member.peer.clone());
    }
    check.reachable(&listen, &advertise)?;
    let join =
        file.join.into_iter().map(|at| check.host_port("join", at)).collect::<Result<_, _>>()?;
    Ok(ServerConfig {
        cluster: file.cluster.into_inner(),
        node,
        data: file.data.unwrap_or_else(|| PathBuf::from("/var/lib/pinrail")),
        listen,
        advertise,
        members,
        join,
        raft: check.raft(file.raft)?,
        limits: check.limits(file.limits)?,
        log: check.log(file.log)?,
        metrics: check.metrics(file.metrics)?,
    })
}

impl Checker<'_> {
    fn error_at(&self, offset: usize, message: &str) -> ConfigError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count();
        let source = self.text.lines().nth(line).unwrap_or_default().trim();
        let source = if source.is_empty() { String::new() } else { format!("\n  {source}") };
        ConfigError(format!("{}:{}: {message}{source}", self.name, line + 1))
    }

    fn error<T>(&self, key: &str, value: &Spanned<T>, rule: &str) -> ConfigError {
        self.error_at(value.span().start, &format!("{key}: {rule}"))
    }

    fn name(&self, key: &'static str, value: &Spanned<String>) -> Result<(), ConfigError> {
        check_name(key, value.get_ref()).map_err(|rule| self.error(key, value, &rule))
    }

    fn listen(
        &self,
        key: &str,
        value: Option<Spanned<String>>,
        port: u16,
    ) -> Result<SocketAddr, ConfigError> {
        let Some(value) = value else { return Ok(SocketAddr::from(([127, 0, 0, 1], port))) };
        let text = value.get_ref().replacen("localhost:", "127.0.0.1:", 1);
        let rule = "an IP address and a port are wanted, such as 127.0.0.1:7420";
        text.parse().map_err(|_| self.error(key, &value, rule))
    }

    /// Host and port that others can be told: a name or an address, no wildcard.
    fn host_port(&self, key: &str, value: Spanned<String>) -> Result<String, ConfigError> {
        let rule = match value.get_ref().rsplit_once(':') {
            None | Some(("", _)) => "host and port are wanted, such as pinrail-0.pinrail:7422",
            Some((host, port)) => match port.parse::<u16>() {
                Err(_) | Ok(0) => "the port must be a number from 1 to 65535",
                Ok(_) if matches!(host, "0.0.0.0" | "[::]" | "*") => {
                    "a wildcard is no address that others can connect to"
                }
                Ok(_) if host.chars().any(|c| c.is_whitespace() || c == '/') => {
                    "host and port are wanted, without a scheme"
                }
                Ok(_) => return Ok(value.into_inner()),
            },
        };
        Err(self.error(key, &value, rule))
    }

    fn advertised(
        &self,
        key: &str,
        value: Option<Spanned<String>>,
    ) -> Result<Option<String>, ConfigError> {
        value.map(|value| self.host_port(key, value)).transpose()
    }

    fn members(
        &self,
        files: Vec<MemberFile>,
        node: &str,
        joins: bool,
    ) -> Result<Vec<Member>, ConfigError> {
        let (mut names, mut peers) = (BTreeSet::new(), BTreeSet::new());
        let mut members = Vec::new();
        if let Some(first) = files.first()
            && files.len() > MEMBERS
        {
            let rule = format!("at most {MEMBERS} members form a cluster");
            return Err(self.error("members", &first.name, &rule));
        }
        for file in files {
            self.name("members.name", &file.name)?;
            if !names.insert(file.name.get_ref().clone()) {
                return Err(self.error("members.name", &file.name, "the name is there twice"));
            }
            if !peers.insert(file.peer.get_ref().clone()) {
                return Err(self.error("members.peer", &file.peer, "the address is there twice"));
            }
            let peer = self.host_port("members.peer", file.peer)?;
            members.push(Member { name: file.name.into_inner(), peer });
        }
        if !members.is_empty() && !joins && !names.contains(node) {
            let rule = format!("members: this node, `{node}`, is not among them");
            return Err(self.error_at(0, &rule));
        }
        Ok(members)
    }

    /// A wildcard to listen on says nothing about where others find the node.
    fn reachable(&self, listen: &Listen, advertise: &Advertise) -> Result<(), ConfigError> {
        let pairs =
            [("grpc", listen.grpc, &advertise.grpc), ("peer", listen.peer, &advertise.peer)];
        for (key, listens, advertised) in pairs {
            if listens.ip().is_unspecified() && advertised.is_none() {
                let rule = format!(
                    "advertise.{key}: the node listens on {listens}, so it must be said where others find it"
                );
                return Err(self.error_at(0, &rule));
            }
        }
        Ok(())
    }

    fn metrics(&self, file: MetricFile) -> Result<MetricSettings, ConfigError> {
        if let Some(labels) = file.agent_labels.filter(|labels| !labels.get_ref().is_empty()) {
            let rule = "labels of agents are not on metrics yet: only an empty list is taken";
            return Err(self.error("metrics.agent_labels", &labels, rule));
        }
        let currency = file.currency.unwrap_or(MetricSettings::default().currency);
        Ok(MetricSettings { currency })
    }

    fn raft(&self, file: RaftFile) -> Result<RaftSettings, ConfigError> {
        let defaults = RaftSettings::default();
        let profile = match file.profile {
            Some(ProfileFile::Dedicated) | None => Profile::Dedicated,
            Some(ProfileFile::Shared) => Profile::Shared,
        };
        let snapshot_log = self.size("raft.snapshot_log", file.snapshot_log, 64 << 10, 64 << 30)?;
        let keep_entries = self.number("raft.keep_entries", file.keep_entries, 1, 10_000_000)?;
        Ok(RaftSettings {
            profile,
            snapshot_log: snapshot_log.unwrap_or(defaults.snapshot_log),
            keep_entries: keep_entries.unwrap_or(defaults.keep_entries),
        })
    }

    fn limits(&self, file: LimitFile) -> Result<LimitSettings, ConfigError> {
        let defaults = LimitSettings::default();
        let memory = self.size("limits.memory", file.memory, 256 << 20, 1 << 50)?;
        let runs = self.number("limits.runs_per_second", file.runs_per_second, 0, 1_000_000)?;
        let runs = runs.and_then(|runs| u32::try_from(runs).ok());
        Ok(LimitSettings {
            memory: memory.unwrap_or(defaults.memory),
            runs_per_second: runs.unwrap_or(defaults.runs_per_second),
        })
    }

    fn log(&self, file: LogFile) -> Result<LogSettings, ConfigError> {
        let format = match file.format {
            Some(FormatFile::Text) | None => LogFormat::Text,
            Some(FormatFile::Json) => LogFormat::Json,
        };
        let level = match file.level {
            None => LogSettings::default().level,
            Some(level) => {
                tracing_subscriber::EnvFilter::try_new(level.get_ref())
                    .map_err(|error| self.error("log.level", &level, &error.to_string()))?;
                level.into_inner()
            }
        };
        Ok(LogSettings { format, level })
    }

    fn size(
        &self,
        key: &str,
        value: Option<Spanned<String>>,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(value) = value else { return Ok(None) };
        match parse_size(value.get_ref()) {
            None => Err(self.error(key, &value, "a size is wanted, such as 256MiB or 2GiB")),
            Some(bytes) if bytes < min || bytes > max => {
                let rule = format!("must lie between {min} and {max} bytes");
                Err(self.error(key, &value, &rule))
            }
            Some(bytes) => Ok(Some(bytes)),
        }
    }

    fn number(
        &self,
        key: &str,
        value: Option<Spanned<i64>>,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(value) = value else { return Ok(None) };
        let number = u64::try_from(*value.get_ref()).ok().filter(|n| (min..=max).contains(n));
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(self.error(key, &value, &format!("must lie between {min} and {max}"))),
        }
    }
}

/// Bytes of a text such as `256MiB`.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}

/// The machine's name up to its first dot, when it is one that a node may have.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().split('.').next()?.to_owned();
    check_name("node", &name).ok()?;
    Some(name)
}

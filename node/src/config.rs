//! server.toml: what one member of a cluster is told at its start. Nothing here decides anything that is replicated.
//!
//! Every mistake is an error that names file, line and key. The only place of the node that reads configuration.

mod file;
mod secret;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pinrail_proto::id;

pub use file::ConfigError;
pub(crate) use secret::{SecretError, secret};

/// Ports that a node listens on unless told otherwise.
pub const GRPC_PORT: u16 = 7420;
pub const HTTP_PORT: u16 = 7421;
pub const PEER_PORT: u16 = 7422;
/// Members of a cluster at its start.
const MEMBERS: usize = 9;

/// One member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Name of the cluster; a data directory of another is refused.
    pub cluster: String,
    /// Name of this node.
    pub node: String,
    pub data: PathBuf,
    pub listen: Listen,
    pub advertise: Advertise,
    /// Members that form the cluster when they meet for the first time; afterwards a hint. Empty: this node alone.
    pub members: Vec<Member>,
    /// Peer addresses of a cluster that exists already and that this node waits to be added to.
    pub join: Vec<String>,
    pub raft: RaftSettings,
    pub limits: LimitSettings,
    pub log: LogSettings,
    pub metrics: MetricSettings,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub peer: SocketAddr,
}

/// Where others find this node. `None`: where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Advertise {
    pub grpc: Option<String>,
    pub peer: Option<String>,
}

/// A member of the first cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Host and port of its peer service.
    pub peer: String,
}

/// How quick Raft is to call a leader lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// A machine of its own: heartbeats every 50 ms, elections after 150 to 300 ms.
    #[default]
    Dedicated,
    /// A machine shared with others: heartbeats every 100 ms, elections after 300 to 600 ms.
    Shared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftSettings {
    pub profile: Profile,
    /// Bytes of log after which a snapshot is taken.
    pub snapshot_log: u64,
    /// Entries of log kept behind a snapshot, for followers that are a little late.
    pub keep_entries: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Bytes of memory that the node aims to stay below: a sixteenth of it caches the state.
    pub memory: u64,
    /// Runs that callers of this node may start in a second; 0: bounded by admission alone.
    pub runs_per_second: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level, or a filter such as `info,pinrail_node::raft=debug`.
    pub level: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSettings {
    /// What the millionths that workers report are of; `pinrail cost` shows it.
    pub currency: String,
}

impl Default for MetricSettings {
    fn default() -> Self {
        Self { currency: "USD".to_owned() }
    }
}

impl ServerConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or holds a mistake: the error names file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a text; `name` is what errors call it.
    ///
    /// # Errors
    /// When it holds a mistake: the error names file, line and key.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        file::parse(name, text)
    }

    /// A node alone on loopback, with everything else at its default. Ports count up from `port`; 0: any free ones.
    #[must_use]
    pub fn local(cluster: &str, node: &str, data: &Path, port: u16) -> Self {
        let at = |offset: u16| {
            let port = if port == 0 { 0 } else { port.saturating_add(offset) };
            SocketAddr::from(([127, 0, 0, 1], port))
        };
        Self {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            data: data.to_owned(),
            listen: Listen { grpc: at(0), http: at(1), peer: at(2) },
            advertise: Advertise::default(),
            members: Vec::new(),
            join: Vec::new(),
            raft: RaftSettings::default(),
            limits: LimitSettings::default(),
            log: LogSettings::default(),
            metrics: MetricSettings::default(),
        }
    }

    /// Refuses addresses that others can reach, unless it is said that this is meant: there is no TLS and no
    /// authentication yet.
    ///
    /// # Errors
    /// Names the first such address.
    pub fn check_reach(&self, insecure: bool) -> Result<(), ConfigError> {
        let Listen { grpc, http, peer } = self.listen;
        for (key, address) in [("listen.grpc", grpc), ("listen.http", http), ("listen.peer", peer)]
        {
            if !insecure && !address.ip().is_loopback() {
                return Err(ConfigError::plain(format!(
                    "{key} = \"{address}\" can be reached from outside, and connections are neither encrypted nor \
                     authenticated; say --insecure if that is meant"
                )));
            }
        }
        Ok(())
    }

    /// What starting it would do, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Listen { grpc, http, peer } = self.listen;
        let formation = if !self.join.is_empty() {
            format!("wait to be added to the cluster of {}", self.join.join(", "))
        } else if self.members.is_empty() {
            "form a cluster of this node alone, if its data directory is new".to_owned()
        } else {
            let names: Vec<_> = self.members.iter().map(|member| member.name.as_str()).collect();
            format!(
                "form a cluster of {} with a majority of them, if it does not exist yet",
                names.join(", ")
            )
        };
        let data = match self.data.try_exists() {
            Ok(true) => "exists",
            Ok(false) => "would be created",
            Err(_) => "cannot be looked at",
        };
        let profile = match self.raft.profile {
            Profile::Dedicated => "dedicated: heartbeat 50 ms, election 150-300 ms",
            Profile::Shared => "shared: heartbeat 100 ms, election 300-600 ms",
        };
        format!(
            "cluster    {}\nnode       {}\ndata       {} ({data})\nlisten     grpc {grpc}  http {http}  peer {peer}\n\
             advertise  grpc {}  peer {}\nraft       {profile}\nwould      {formation}\n",
            self.cluster,
            self.node,
            self.data.display(),
            self.advertise.grpc.clone().unwrap_or_else(|| grpc.to_string()),
            self.advertise.peer.clone().unwrap_or_else(|| peer.to_string()),
        )
    }
}

impl Default for RaftSettings {
    fn default() -> Self {
        Self { profile: Profile::default(), snapshot_log: 256 << 20, keep_entries: 20_000 }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { memory: 2 << 30, runs_per_second: 0 }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".to_owned() }
    }
}

/// Checks a name of a cluster or node.
fn check_name(what: &'static str, value: &str) -> Result<(), String> {
    id::check_name(what, value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;

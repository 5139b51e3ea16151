//! Real servers: three `pinrail server` processes on free loopback ports, each with a folder of its own.
//!
//! It owns the processes: whatever happens to the owner, they end with it. It knows how to hurt them and how to see
//! what they say about themselves, and nothing of what they should answer.

mod member;
mod ports;
pub mod process;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::time::Instant;

pub use member::Member;

use crate::api::Nodes;
pub use crate::api::agree::{Agreement, Status};
use member::Place;

/// How long a cluster may take to form.
const FORM: Duration = Duration::from_secs(20);

/// How to start one.
#[derive(Debug, Clone)]
pub struct Options {
    pub binary: PathBuf,
    pub nodes: usize,
    /// Size of the log that makes a snapshot, as server.toml says it: `256KiB`.
    pub snapshot_log: Option<String>,
    /// Entries kept after a snapshot.
    pub keep_entries: Option<u64>,
    pub log_level: String,
    /// Where files go; none: a temporary folder, kept when something failed.
    pub folder: Option<PathBuf>,
}

impl Options {
    #[must_use]
    pub fn three(binary: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            nodes: 3,
            snapshot_log: None,
            keep_entries: None,
            log_level: "info".to_owned(),
            folder: None,
        }
    }
}

/// A cluster of processes.
#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Member>,
    pub nodes: Nodes,
    folder: PathBuf,
    /// Removed with the cluster, unless it is to be kept.
    temporary: Option<TempDir>,
}

impl Cluster {
    /// Starts all members and waits until one of them leads.
    ///
    /// # Errors
    /// When a member ends or none leads in time.
    pub async fn start(options: &Options) -> Result<Self> {
        let mut cluster = Self::prepare(options)?;
        for member in &mut cluster.members {
            member.start()?;
        }
        cluster.wait_leader(FORM).await.context("the new cluster did not form")?;
        Ok(cluster)
    }

    fn prepare(options: &Options) -> Result<Self> {
        let temporary = match &options.folder {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("pinrail-chaos-").tempdir()?),
        };
        let folder = match (&options.folder, &temporary) {
            (Some(folder), _) => folder.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => unreachable!("one of the two was made above"),
        };
        std::fs::create_dir_all(&folder)?;
        let ports = ports::free(3 * options.nodes)?;
        let places: Vec<Place> = ports
            .chunks(3)
            .enumerate()
            .map(|(index, ports)| Place {
                name: format!("pinrail-{index}"),
                grpc: format!("127.0.0.1:{}", ports[0]),
                http: format!("127.0.0.1:{}", ports[1]),
                peer: format!("127.0.0.1:{}", ports[2]),
            })
            .collect();
        let members = places
            .iter()
            .map(|place| Member::prepare(&folder, place, &places, options))
            .collect::<Result<Vec<_>>>()?;
        let nodes = Nodes::connect(places.iter().map(|place| place.grpc.as_str()))?;
        Ok(Self { members, nodes, folder, temporary })
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// gRPC addresses, comma-separated, as `PINRAIL_ENDPOINT` takes them.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let all: Vec<&str> = self.members.iter().map(|member| member.grpc.as_str()).collect();
        all.join(",")
    }

    /// Keeps the files after the cluster is gone, and says where they are.
    pub fn keep(&mut self) -> PathBuf {
        if let Some(temporary) = self.temporary.take() {
            let _ = temporary.keep();
        }
        self.folder.clone()
    }

    /// Kills all members at the same moment and waits until they are gone.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub async fn kill_all(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.send_kill()?;
        }
        for member in &mut self.members {
            member.kill().await?;
        }
        Ok(())
    }

    /// Starts every member that is down and thaws those that are frozen.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn heal(&mut self) -> Result<()> {
        for member in &mut self.members {
            // Thawing one that is not frozen does nothing.
            member.thaw()?;
            if !member.is_up() {
                member.start()?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// When a member ended although nobody asked it to.
    pub fn must_run(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Member::must_run)
    }

    /// Waits until a member that is up leads and says so, and gives its place.
    ///
    /// # Errors
    /// When none does in time, or a member ended by itself.
    pub async fn wait_leader(&mut self, within: Duration) -> Result<usize> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            self.must_run()?;
            if Instant::now() > deadline {
                let tails: Vec<String> = self
                    .members
                    .iter()
                    .map(|member| format!("{}:\n{}", member.name, member.tail(8)))
                    .collect();
                anyhow::bail!("no leader within {within:?}\n{}", tails.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

//! Real servers: three `pinrail server` processes, each with a folder of its own: on free loopback ports and the file
//! system of the harness, or each in a network namespace and on a file system of its own.
//!
//! It owns the processes: whatever happens to the owner, they end with it. It knows how to hurt them and how to see
//! what they say about themselves, and nothing of what they should answer.

mod archive;
mod cut;
mod disk;
mod member;
mod network;
mod ports;
pub mod process;
mod processor;
mod switch;
mod syncs;
mod tool;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::time::Instant;

pub use cut::Way;
pub use member::Member;
pub use network::Network;
pub(crate) use ports::free as free_ports;
pub use switch::Weather;

use crate::api::Nodes;
use disk::Disk;
use member::{Peer, Place};

/// How long a cluster may take to form.
const FORM: Duration = Duration::from_secs(20);
/// How long a member that cannot store anything may go on: it notices at its next write.
const ENDS: Duration = Duration::from_secs(10);

/// Ports of a member that has an address of its own.
const PORTS: [u16; 3] = [7_420, 7_421, 7_422];

/// Where the members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// On free ports of this machine's loopback interface: needs nothing.
    Loopback,
    /// Each in a network namespace of its own, so that the network between them can be cut. Needs root.
    Namespaces,
    /// The same, with a switch of ours between them, so that the network can be slow and lose, double and damage what it carries.
    Weather,
}

/// How quick Raft is to call a leader lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timings {
    /// For a machine that does other things too.
    Shared,
    /// What a server has by default, and what targets are measured with.
    Production,
}

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
    pub ground: Ground,
    pub timings: Timings,
    /// Each member on a file system of its own, so that it can lose power. Needs root.
    pub disks: bool,
    /// Each member keeps every entry that it applies, beside its data.
    pub log_archive: bool,
    /// Where files go; none: a temporary folder, kept when something failed.
    pub folder: Option<PathBuf>,
    /// Ctrl-C in the terminal does not reach the members: whoever owns them hears it.
    pub apart: bool,
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
            ground: Ground::Loopback,
            timings: Timings::Shared,
            disks: false,
            log_archive: false,
            folder: None,
            apart: false,
        }
    }
}

/// A cluster of processes.
#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Member>,
    pub nodes: Nodes,
    /// None on loopback. Dropped after the processes in it.
    pub network: Option<Network>,
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
        let mut cluster = Self::prepare(options).await?;
        for member in &mut cluster.members {
            member.start()?;
        }
        cluster.wait_leader(FORM).await.context("the new cluster did not form")?;
        Ok(cluster)
    }

    /// Process ids of the members that are not down.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(Member::pid).collect()
    }

    async fn prepare(options: &Options) -> Result<Self> {
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
        let network = match options.ground {
            Ground::Loopback => None,
            Ground::Namespaces | Ground::Weather => {
                Some(Network::make(options.nodes, options.ground == Ground::Weather).await?)
            }
        };
        let mut places = match &network {
            None => on_loopback(options.nodes)?,
            Some(network) => (0..options.nodes).map(|index| in_namespace(network, index)).collect(),
        };
        if options.disks {
            for place in &mut places {
                place.disk = Some(Disk::make(&folder, &place.name).await?);
            }
        }
        let nodes = Nodes::connect(places.iter().map(|place| place.grpc.as_str()))?;
        let peers: Vec<Peer> = places
            .iter()
            .map(|place| Peer { name: place.name.clone(), address: place.peer.clone() })
            .collect();
        let members = places
            .into_iter()
            .map(|place| Member::prepare(&folder, place, &peers, options))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { members, nodes, network, folder, temporary })
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

    /// All members lose power at the same moment: what was not synced is gone. They are frozen first: a sync that is under way while
    /// the kernel shuts its file system down may succeed and keep nothing, and no process outlives a loss of power to say so.
    ///
    /// # Errors
    /// When they have no file systems of their own, or one still takes writes.
    pub async fn cut_power(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.untrace().await?;
            member.freeze().await?;
        }
        let mut disks: Vec<&mut Disk> =
            self.members.iter_mut().filter_map(Member::disk_mut).collect();
        ensure!(!disks.is_empty(), "the members have no file systems of their own");
        disk::cut_power(&mut disks).await?;
        self.kill_all().await
    }

    /// The next sync of a member's files fails; it must end by itself.
    ///
    /// # Errors
    /// When that cannot be done, or it goes on.
    pub async fn fail_sync(&mut self, member: usize) -> Result<()> {
        self.members[member].fail_sync(&self.folder, ENDS).await
    }

    /// Syncs of a member's files take long from now on.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn slow_syncs(&mut self, member: usize) -> Result<()> {
        self.members[member].slow_syncs(&self.folder).await
    }

    /// Leaves a member a part of one processor.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn starve(&mut self, member: usize) -> Result<()> {
        self.members[member].starve().await
    }

    /// Starts a member anew with a boot clock that is ahead.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn start_ahead(&mut self, member: usize, ahead: Duration) -> Result<()> {
        self.members[member].start_ahead(ahead).await
    }

    /// A member's file system has no more room; it must end by itself.
    ///
    /// # Errors
    /// When it has no file system of its own, or goes on.
    pub async fn fill_disk(&mut self, member: usize) -> Result<()> {
        self.own_disk(member)?.fill()?;
        self.members[member].end_by_itself(ENDS).await
    }

    /// A member's file system takes no more writes; it must end by itself.
    ///
    /// # Errors
    /// When it has no file system of its own, or goes on.
    pub async fn turn_read_only(&mut self, member: usize) -> Result<()> {
        self.own_disk(member)?.turn_read_only().await?;
        self.members[member].end_by_itself(ENDS).await
    }

    fn own_disk(&mut self, member: usize) -> Result<&mut Disk> {
        self.members[member].disk_mut().context("the member has no file system of its own")
    }

    /// Lets the weather between members be like this.
    ///
    /// # Errors
    /// When they have no switch of ours between them, or nothing suffers from it.
    pub async fn set_weather(&mut self, weather: Weather) -> Result<()> {
        let network = self.network.as_mut().context("the members have no network of their own")?;
        network.set_weather(weather).await
    }

    /// Cuts a member off from others on one way or both; gives the moment when that was done.
    ///
    /// # Errors
    /// When the members have no network of their own, or the cut takes no effect.
    pub async fn cut(&self, member: usize, way: Way, others: &[usize]) -> Result<u64> {
        let network = self.network.as_ref().context("the members have no network of their own")?;
        network.cut(member, way, others).await
    }

    /// Mends the network, gives power, room, processors and clocks back, starts every member that is down and thaws those that
    /// are frozen.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn heal(&mut self) -> Result<()> {
        if let Some(network) = &mut self.network {
            network.clear().await?;
            network.mend_all().await?;
        }
        for member in &mut self.members {
            member.release().await?;
        }
        for disk in self.members.iter_mut().filter_map(Member::disk_mut) {
            disk.boot().await?;
        }
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

fn on_loopback(nodes: usize) -> Result<Vec<Place>> {
    let ports = ports::free(3 * nodes)?;
    let places = ports.chunks(3).enumerate().map(|(index, ports)| Place {
        name: name(index),
        grpc: format!("127.0.0.1:{}", ports[0]),
        http: format!("127.0.0.1:{}", ports[1]),
        peer: format!("127.0.0.1:{}", ports[2]),
        namespace: None,
        disk: None,
    });
    Ok(places.collect())
}

fn in_namespace(network: &Network, index: usize) -> Place {
    let address = network.member_address(index);
    let [grpc, http, peer] = PORTS.map(|port| format!("{address}:{port}"));
    let namespace = Some(network.namespace(index).to_owned());
    Place { name: name(index), grpc, http, peer, namespace, disk: None }
}

fn name(index: usize) -> String {
    format!("pinrail-{index}")
}

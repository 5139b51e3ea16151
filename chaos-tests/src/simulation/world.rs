//! The world of a simulated node: turmoil's network and time in the node's own terms.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use pinrail_node::config::{Listen, Member, Profile, ServerConfig};
use pinrail_node::env::{BoxFuture, Clock, Connection, Env, Listener, Net};
use pinrail_node::server::Server;
use pinrail_node::storage::memory::Disk;
use rand::RngExt as _;
use tonic::transport::Channel;

use super::post::Post;
use super::weather::QUICK;
use crate::workload::client::rng;

const GRPC: u16 = 7420;
const HTTP: u16 = 7421;
const PEER: u16 = 7422;
/// Where simulated wall clocks begin.
const EPOCH_MS: u64 = 1_800_000_000_000;
const HOUR_MS: i64 = 3_600_000;
/// The node whose wall clock jumps is drawn from so many: in some seeds it is none.
const ODD: usize = 6;

pub(super) fn name(node: usize) -> String {
    format!("n{node}")
}

pub(super) fn grpc_address(node: usize) -> String {
    format!("n{node}:{GRPC}")
}

/// What all nodes of a simulation share.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    /// Copies of old messages that a member has answered.
    pub(super) copies: Arc<AtomicU64>,
}

impl World {
    pub(super) fn simulation(&self, longest: Duration) -> turmoil::Sim<'static> {
        turmoil::Builder::new()
            .rng_seed(self.seed)
            .simulation_duration(longest)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(QUICK)
            .tcp_capacity(65_536)
            .ephemeral_ports(10_000..=65_535)
            .enable_random_order()
            .build()
    }

    /// A disk whose state is flushed now and then by itself, or only when that is asked for.
    pub(super) fn disk(&self) -> Disk {
        let mut rng = rng(self.seed, u32::MAX - 3);
        Disk::flushed_every([0, 7, 100][rng.random_range(0..3)])
    }

    /// Adds a node, which is started again whenever the host is.
    pub(super) fn host(
        &self,
        sim: &mut turmoil::Sim<'_>,
        node: usize,
        disk: Disk,
        archive: PathBuf,
    ) {
        let world = self.clone();
        sim.host(name(node), move || {
            let (world, disk, archive) = (world.clone(), disk.clone(), archive.clone());
            async move {
                let started = now();
                let clock = Arc::new(SimulatedClock::of(world.seed, node, started));
                let started = u64::try_from(started.as_nanos()).unwrap_or(0);
                let own =
                    world.seed.wrapping_mul(31).wrapping_add(node as u64).wrapping_add(started);
                let copies = Arc::clone(&world.copies);
                let net = SimulatedNet { post: Post::of(world.seed, own, copies) };
                let mut env = Env::simulated(clock, Arc::new(net), Arc::new(disk), own);
                env.log_archive = Some(archive);
                let server = Server::start(world.config(node), env).await?;
                std::future::pending::<()>().await;
                drop(server);
                Ok(())
            }
        });
    }

    fn config(&self, node: usize) -> ServerConfig {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let mut config = ServerConfig::local("simulated", &name(node), Path::new("unused"), GRPC);
        config.listen = Listen { grpc: any(GRPC), http: any(HTTP), peer: any(PEER) };
        config.advertise.grpc = Some(grpc_address(node));
        config.advertise.peer = Some(format!("n{node}:{PEER}"));
        let member = |node| Member { name: name(node), peer: format!("n{node}:{PEER}") };
        config.members = (0..self.nodes).map(member).collect();
        config.raft.profile = Profile::Shared;
        // Small, so that snapshots are taken and sent within a seed; in some seeds all the time.
        let mut rng = rng(self.seed, u32::MAX - 2);
        config.raft.snapshot_log = [4 << 10, 16 << 10, 64 << 10][rng.random_range(0..3)];
        config.raft.keep_entries = [1, 5, 50][rng.random_range(0..3)];
        config
    }
}

/// Simulated time since the beginning, the same for all.
fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// Clocks that disagree: each node has booted at another time, runs a little fast or slow, and its wall clock is off by
/// seconds. In some seeds a crash restarts the machine too, and the wall clock of one node jumps by an hour or a day.
#[derive(Debug)]
struct SimulatedClock {
    /// When the machine started, and what its boot clock showed then.
    started: Duration,
    booted_ms: u64,
    /// Parts in a million.
    drift_ppm: i64,
    skew_ms: i64,
    /// From this moment on the wall clock shows so much more.
    jump: Option<(Duration, i64)>,
}

impl SimulatedClock {
    /// The clock of a node whose process began at `started`.
    fn of(seed: u64, node: usize, started: Duration) -> Self {
        // The first draws are the world's, those behind them the node's.
        let mut world = rng(seed, u32::MAX - 4);
        let (odd, restarts) = (world.random_range(0..ODD), world.random_ratio(1, 2));
        let by_ms = [HOUR_MS, -HOUR_MS, 24 * HOUR_MS, -24 * HOUR_MS][world.random_range(0..4)];
        let jump = (Duration::from_millis(world.random_range(0..15_000)), by_ms);
        let mut own = rng(seed, u32::MAX - 5 - u32::try_from(node).unwrap_or(0));
        let (booted_ms, drift_ppm) = (own.random_range(0..1_000_000), own.random_range(-500..=500));
        let skew_ms = own.random_range(0..10_000);
        let anew = restarts && !started.is_zero();
        Self {
            started: if anew { started } else { Duration::ZERO },
            booted_ms: if anew { 0 } else { booted_ms },
            drift_ppm,
            skew_ms,
            jump: (odd == node).then_some(jump),
        }
    }
}

impl Clock for SimulatedClock {
    fn boot_ms(&self) -> u64 {
        let real = i64::try_from(now().saturating_sub(self.started).as_micros()).unwrap_or(0);
        let shown = real + real / 1_000_000 * self.drift_ppm;
        self.booted_ms + u64::try_from(shown).unwrap_or(0) / 1_000
    }

    fn wall_ms(&self) -> u64 {
        let real = i64::try_from(now().as_millis()).unwrap_or(0);
        let jumped = self.jump.filter(|(at, _)| now() >= *at).map_or(0, |(_, by_ms)| by_ms);
        EPOCH_MS.saturating_add_signed(self.skew_ms + real + jumped)
    }
}

#[derive(Debug)]
struct SimulatedNet {
    post: Post,
}

impl Net for SimulatedNet {
    fn listen(&self, address: SocketAddr) -> BoxFuture<io::Result<Listener>> {
        Box::pin(async move {
            let listener = turmoil::net::TcpListener::bind(address).await?;
            let local_addr = listener.local_addr()?;
            let incoming = futures::stream::unfold(listener, |listener| async move {
                let accepted = listener.accept().await.map(|(stream, _)| Connection::new(stream));
                Some((accepted, listener))
            });
            Ok(Listener { local_addr, incoming: Box::pin(incoming) })
        })
    }

    fn connect(&self, address: &str) -> Channel {
        self.post.channel(address)
    }
}

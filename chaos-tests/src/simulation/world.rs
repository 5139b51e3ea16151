//! The world of a simulated node: turmoil's network and time in the node's own terms.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pinrail_node::config::{Listen, Member, Profile, ServerConfig};
use pinrail_node::env::{BoxFuture, Clock, Connection, Env, Listener, Net};
use pinrail_node::server::Server;
use pinrail_node::storage::memory::Disk;
use rand::RngExt as _;
use tonic::transport::Channel;

use super::NODES;
use crate::workload::client::rng;

const GRPC: u16 = 7420;
const HTTP: u16 = 7421;
const PEER: u16 = 7422;
/// Where simulated wall clocks begin.
const EPOCH_MS: u64 = 1_800_000_000_000;

pub(super) fn name(node: usize) -> String {
    format!("n{node}")
}

pub(super) fn grpc_address(node: usize) -> String {
    format!("n{node}:{GRPC}")
}

pub(super) fn simulation(seed: u64, longest: Duration) -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(longest)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(Duration::from_millis(8))
        .tcp_capacity(65_536)
        .ephemeral_ports(10_000..=65_535)
        .enable_random_order()
        .build()
}

/// Adds a node, which is started again whenever the host is.
pub(super) fn host(
    sim: &mut turmoil::Sim<'_>,
    seed: u64,
    node: usize,
    disk: Disk,
    archive: PathBuf,
) {
    sim.host(name(node), move || {
        let (disk, archive) = (disk.clone(), archive.clone());
        async move {
            let clock = Arc::new(SimulatedClock::of(seed, node));
            let started = u64::try_from(now().as_nanos()).unwrap_or(0);
            let own = seed.wrapping_mul(31).wrapping_add(node as u64).wrapping_add(started);
            let mut env = Env::simulated(clock, Arc::new(SimulatedNet), Arc::new(disk), own);
            env.log_archive = Some(archive);
            let server = Server::start(config(seed, node), env).await?;
            std::future::pending::<()>().await;
            drop(server);
            Ok(())
        }
    });
}

fn config(seed: u64, node: usize) -> ServerConfig {
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let mut config = ServerConfig::local("simulated", &name(node), Path::new("unused"), GRPC);
    config.listen = Listen { grpc: any(GRPC), http: any(HTTP), peer: any(PEER) };
    config.advertise.grpc = Some(grpc_address(node));
    config.advertise.peer = Some(format!("n{node}:{PEER}"));
    let member = |node| Member { name: name(node), peer: format!("n{node}:{PEER}") };
    config.members = (0..NODES).map(member).collect();
    config.raft.profile = Profile::Shared;
    // Small, so that snapshots are taken and sent within a seed; in some seeds all the time.
    let mut rng = rng(seed, u32::MAX - 2);
    config.raft.snapshot_log = [4 << 10, 16 << 10, 64 << 10][rng.random_range(0..3)];
    config.raft.keep_entries = [1, 5, 50][rng.random_range(0..3)];
    config
}

/// Simulated time since the beginning, the same for all.
fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// Clocks that disagree: each node has booted at another time, and its wall clock is off by seconds.
#[derive(Debug)]
struct SimulatedClock {
    booted_ms: u64,
    skew_ms: u64,
}

impl SimulatedClock {
    fn of(seed: u64, node: usize) -> Self {
        let mix = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(7 * node as u32 + 1);
        Self { booted_ms: mix % 1_000_000, skew_ms: (mix >> 20) % 10_000 }
    }
}

impl Clock for SimulatedClock {
    fn boot_ms(&self) -> u64 {
        self.booted_ms + u64::try_from(now().as_millis()).unwrap_or(0)
    }

    fn wall_ms(&self) -> u64 {
        EPOCH_MS + self.skew_ms + u64::try_from(now().as_millis()).unwrap_or(0)
    }
}

#[derive(Debug)]
struct SimulatedNet;

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
        crate::api::simulated_channel(address)
    }
}

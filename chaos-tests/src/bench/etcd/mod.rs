//! etcd: three processes on fresh data, with the settings that they have by default, which sync every write.

mod size;
mod watch;
mod wire;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use pinrail_client::bench::{
    Figures, Load, Operation, READ_IN_TURN, connections, measure, measure_watch, value,
};
use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use super::failover::first_write;
use super::folder;
use crate::cluster::free_ports;
use crate::cluster::process::{Launch, Process};

/// How long the members may take to form a cluster.
const FORM: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_secs(1);
/// Calls under way while keys are made that are read later.
const AT_ONCE: usize = 64;
/// So large that a measurement never fills it.
const QUOTA_BYTES: u64 = 8 << 30;

/// What is measured of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Create a key if absent.
    Transaction,
    Put,
    /// Linearizable.
    Get,
    /// From the state of the member that is asked.
    Serializable,
    /// Clients watch a key that is written meanwhile.
    Watch,
}

/// Three members.
pub(super) struct Etcd {
    processes: Vec<Process>,
    /// What each was started with.
    launches: Vec<Launch>,
    addresses: Vec<String>,
    pub(super) version: String,
    /// Goes after the processes.
    _folder: TempDir,
}

impl Etcd {
    pub(super) async fn start(binary: &Path, out: Option<&Path>) -> Result<Self> {
        let folder = folder::fresh(out)?;
        let ports = free_ports(6)?;
        let name = |index: usize| format!("etcd-{index}");
        let client = |index: usize| format!("127.0.0.1:{}", ports[2 * index]);
        let peer = |index: usize| format!("http://127.0.0.1:{}", ports[2 * index + 1]);
        let all: Vec<String> =
            (0..3).map(|index| format!("{}={}", name(index), peer(index))).collect();
        let mut launches = Vec::new();
        for index in 0..3 {
            let url = format!("http://{}", client(index));
            let data = folder.path().join(name(index)).display().to_string();
            let quota = QUOTA_BYTES.to_string();
            let flags = [
                ("--name", name(index)),
                ("--data-dir", data),
                ("--listen-client-urls", url.clone()),
                ("--advertise-client-urls", url),
                ("--listen-peer-urls", peer(index)),
                ("--initial-advertise-peer-urls", peer(index)),
                ("--initial-cluster", all.join(",")),
                ("--initial-cluster-state", "new".to_owned()),
                ("--quota-backend-bytes", quota),
                ("--log-level", "error".to_owned()),
            ];
            let args = flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]);
            launches.push(Launch {
                what: name(index),
                program: binary.to_owned(),
                args: args.collect(),
                env: Vec::new(),
                log: folder.path().join(format!("{}.log", name(index))),
                namespace: None,
                apart: false,
            });
        }
        let processes = launches.iter().map(Process::start).collect::<Result<_>>()?;
        let (addresses, version) = ((0..3).map(client).collect(), String::new());
        let mut etcd = Self { processes, launches, addresses, version, _folder: folder };
        etcd.leader().await.context("etcd did not form a cluster")?;
        Ok(etcd)
    }

    fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// The place of the member that leads.
    async fn leader(&mut self) -> Result<usize> {
        let deadline = Instant::now() + FORM;
        loop {
            for (index, address) in self.addresses.iter().enumerate() {
                let channel = wire::channel(address)?;
                let asked = wire::call(&channel, wire::STATUS, wire::Nothing {});
                let answer: Result<Result<wire::State, Status>, _> = timeout(ANSWER, asked).await;
                let Ok(Ok(state)) = answer else { continue };
                if state.leader != 0 && state.head.is_some_and(|it| it.member_id == state.leader) {
                    self.version = state.version;
                    return Ok(index);
                }
            }
            self.processes.iter_mut().try_for_each(Process::must_run)?;
            if Instant::now() > deadline {
                bail!("no leader within {FORM:?}");
            }
            sleep(LOOK).await;
        }
    }

    /// Kills the leader once the cluster has settled; microseconds until one of the others acknowledges a write.
    pub(super) async fn lose_leader(&mut self, settle: Duration) -> Result<u64> {
        let leader = self.leader().await?;
        let others = self.addresses.iter().enumerate().filter(|(index, _)| *index != leader);
        let channels = others.map(|(_, address)| wire::channel(address));
        let channels = channels.collect::<Result<Vec<Channel>>>()?;
        let calls = Calls { call: Call::Put, channels, value: value() };
        let put = |caller: usize, number: usize| {
            let calls = &calls;
            async move { calls.put(caller + number, number as u64).await.is_ok() }
        };
        first_write(Instant::now(), put).await?;
        sleep(settle).await;
        let killed = Instant::now();
        self.processes[leader].kill().await?;
        first_write(killed, put).await
    }

    /// One measurement; all clients ask the leader.
    pub(super) async fn measure(&mut self, call: Call, load: Load) -> Result<Option<Figures>> {
        let leader = self.leader().await?;
        let address = &self.addresses[leader];
        let channels: Vec<Channel> = (0..connections(load.clients))
            .map(|_| wire::channel(address))
            .collect::<Result<_>>()?;
        let calls = Calls { call, channels, value: value() };
        if matches!(call, Call::Get | Call::Serializable) {
            let puts = stream::iter(0..READ_IN_TURN).map(|number| calls.put(0, number));
            puts.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        }
        let pids = self.pids();
        let (calls, never) = (Arc::new(calls), CancellationToken::new());
        let figures = match call {
            Call::Watch => measure_watch(load, calls, &pids, &never).await?,
            Call::Transaction | Call::Put | Call::Get | Call::Serializable => {
                measure(load, calls, &pids, &never).await?
            }
        };
        self.processes.iter_mut().try_for_each(Process::must_run)?;
        Ok(figures)
    }
}

struct Calls {
    call: Call,
    channels: Vec<Channel>,
    value: Bytes,
}

impl Calls {
    fn channel(&self, client: usize) -> &Channel {
        &self.channels[client % self.channels.len()]
    }

    /// As long as the ids and keys of our side.
    fn key(number: u64) -> Bytes {
        Bytes::from(format!("bench/{number:012}"))
    }

    async fn put(&self, client: usize, number: u64) -> Result<(), Status> {
        let put = wire::Put { key: Self::key(number), value: self.value.clone() };
        wire::call(self.channel(client), wire::PUT, put).await.map(|_: wire::Nothing| ())
    }

    async fn create(&self, client: usize, number: u64) -> Result<(), Status> {
        let key = Self::key(number);
        let put = wire::Put { key: key.clone(), value: self.value.clone() };
        let request = wire::Transaction {
            compare: vec![wire::Compare { target: 1, key, create_revision: Some(0) }],
            success: vec![wire::Then { put: Some(put) }],
        };
        let done: wire::Done = wire::call(self.channel(client), wire::TRANSACTION, request).await?;
        expect(done.succeeded, "the key was there")
    }

    async fn get(&self, client: usize, number: u64, serializable: bool) -> Result<(), Status> {
        let key = Self::key(number % READ_IN_TURN);
        let range = wire::Range { key, serializable };
        let found: wire::Found = wire::call(self.channel(client), wire::RANGE, range).await?;
        expect(found.count == 1, "the key is not there")
    }
}

fn expect(right: bool, message: &str) -> Result<(), Status> {
    if right { Ok(()) } else { Err(Status::internal(message)) }
}

impl Operation for Calls {
    fn perform(&self, client: usize, number: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let done = match self.call {
                Call::Transaction => self.create(client, number).await,
                // What watchers see is measured by itself.
                Call::Put | Call::Watch => self.put(client, number).await,
                Call::Get => self.get(client, number, false).await,
                Call::Serializable => self.get(client, number, true).await,
            };
            done.map_err(|status| format!("{:?}", status.code()))
        })
    }
}

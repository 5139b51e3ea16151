//! Very many keys.

use anyhow::{Context as _, Result};
use pinrail_client::bench::{connections, value};
use tokio::time::{Duration, Instant, timeout};
use tonic::transport::Channel;

use super::super::size::{AT_ONCE, Size, back, fill, weigh};
use super::{ANSWER, Call, Calls, Etcd, wire};
use crate::cluster::process::Process;

impl Etcd {
    /// Weighs the members, empty and with so many keys, and starts one of them anew.
    pub(in super::super) async fn size(&mut self, count: u64) -> Result<Size> {
        let idle_bytes = weigh(&self.pids()).await?;
        self.put_keys(count).await?;
        let full_bytes = weigh(&self.pids()).await?;
        let follower = (self.leader().await? + 1) % self.addresses.len();
        let restart = self.restart(follower, count).await?;
        self.processes.iter_mut().try_for_each(Process::must_run)?;
        Ok(Size { idle_bytes, full_bytes, restart })
    }

    /// Puts so many keys.
    pub(in super::super) async fn put_keys(&mut self, count: u64) -> Result<()> {
        let leader = self.leader().await?;
        let channels: Vec<Channel> = (0..connections(AT_ONCE))
            .map(|_| wire::channel(&self.addresses[leader]))
            .collect::<Result<_>>()?;
        let calls = Calls { call: Call::Put, channels, value: value() };
        fill("keys", count, |number| calls.put(number as usize, number)).await
    }

    /// Kills a member and starts it; until it answers with the last of so many keys, which asks the leader how far it must be.
    async fn restart(&mut self, member: usize, count: u64) -> Result<Duration> {
        self.processes[member].kill().await?;
        let since = Instant::now();
        self.processes[member] = Process::start(&self.launches[member]).context("start anew")?;
        let channel = wire::channel(&self.addresses[member])?;
        let asks = || async {
            let range = wire::Range { key: Calls::key(count - 1), serializable: false };
            let found = wire::call::<_, wire::Found>(&channel, wire::RANGE, range);
            matches!(timeout(ANSWER, found).await, Ok(Ok(found)) if found.count == 1)
        };
        back(since, asks).await
    }
}

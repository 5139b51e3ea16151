//! Operations that are one call of the API, or two: what each asks, and what must be there before.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use pinrail_proto::v1;

use super::ground::{MEASURED, scope};
use super::load::Operation;
use super::watch::{Board, Watched, number_of, numbered};
use super::workload::Workload;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::payload::JSON;
use crate::pin_cache::PinCache;

/// Bytes of every input and value.
pub const VALUE_BYTES: usize = 256;
/// Runs or keys that are read in turn.
pub const READ_IN_TURN: u64 = 1_000;
/// The key that is watched.
const WATCHED: &str = "bench/watched";
/// Calls under way while those are made.
const AT_ONCE: usize = 64;

/// JSON text of as many bytes as every value has.
#[must_use]
pub fn value() -> Bytes {
    value_of(VALUE_BYTES)
}

/// JSON text of so many bytes, at least of two.
#[must_use]
pub fn value_of(bytes: usize) -> Bytes {
    Bytes::from(format!("\"{}\"", "x".repeat(bytes.saturating_sub(2))))
}

/// Calls of one workload through a few connections.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) workload: Workload,
    pub(super) agent: String,
    /// Each has a connection of its own; the load's clients share them evenly.
    pub(super) clients: Vec<Client>,
    pub(super) value: Bytes,
    /// Of a workload that looks up what is kept: all clients are callers of one router.
    pub(super) pins: Option<PinCache>,
}

impl Calls {
    /// Makes what the workload reads.
    pub(super) async fn prepare(&self) -> Result<()> {
        let made = stream::iter(0..READ_IN_TURN).map(|number| async move {
            match self.workload {
                Workload::Read | Workload::Lookup | Workload::Cached => {
                    self.start(self.client(0), number).await
                }
                Workload::Get => self.put(self.client(0), number).await,
                Workload::Start
                | Workload::Put
                | Workload::Step
                | Workload::Run
                | Workload::Chain
                | Workload::Watch
                | Workload::Dispatch => Ok(()),
            }
        });
        made.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        // What each connection learns with its first call is no part of a measurement, nor is a member that is still behind.
        for client in &self.clients {
            let revision = self.look(client, v1::ReadOptions::default()).await?;
            let local = v1::ReadOptions {
                consistency: v1::Consistency::Local.into(),
                min_revision: revision,
            };
            // They go to one member after the other.
            for _ in client.connection().endpoints() {
                self.look(client, local).await?;
            }
        }
        Ok(())
    }

    pub(super) fn client(&self, number: usize) -> &Client {
        &self.clients[number % self.clients.len()]
    }

    fn payload(&self) -> Option<v1::Payload> {
        Some(v1::Payload { content_type: JSON.to_owned(), data: self.value.clone() })
    }

    pub(super) fn run_id(number: u64) -> String {
        format!("bench-{number:012}")
    }

    fn key(number: u64) -> String {
        format!("bench/{number:012}")
    }

    fn start_of(&self, number: u64) -> v1::StartRunRequest {
        v1::StartRunRequest {
            agent_id: self.agent.clone(),
            run_id: Self::run_id(number),
            input: self.payload(),
            ..Default::default()
        }
    }

    pub(super) async fn start(&self, client: &Client, number: u64) -> Result<()> {
        client.runs().start(self.start_of(number)).await.map(drop)
    }

    async fn put(&self, client: &Client, number: u64) -> Result<()> {
        self.put_at(client, Self::key(number), self.value.clone()).await
    }

    async fn put_at(&self, client: &Client, key: String, data: Bytes) -> Result<()> {
        let request = v1::PutMemoryRequest {
            agent_id: self.agent.clone(),
            scope: Some(scope()),
            key,
            value: Some(v1::Payload { content_type: JSON.to_owned(), data }),
            ..Default::default()
        };
        client.memory().put(request).await.map(drop)
    }

    async fn put_watched(&self, client: &Client, number: u64) -> Result<()> {
        self.put_at(client, WATCHED.to_owned(), numbered(number)).await
    }

    async fn pin(&self, client: &Client, number: u64, fresh: v1::Consistency) -> Result<()> {
        let request = v1::LookupPinRequest {
            agent_id: self.agent.clone(),
            run_id: Self::run_id(number % READ_IN_TURN),
            read: Some(v1::ReadOptions { consistency: fresh.into(), min_revision: 0 }),
            ..Default::default()
        };
        let answer = client.pins().lookup(request).await?;
        expect(answer.bundle_id == MEASURED, "the run has another bundle")
    }

    async fn kept_pin(&self, number: u64) -> Result<()> {
        // It may be there at once, and other callers want their turn.
        tokio::task::coop::consume_budget().await;
        let run_id = Self::run_id(number % READ_IN_TURN);
        let Some(pins) = &self.pins else { return Err(Error::invalid("no pins are kept")) };
        let answer = pins.lookup(&run_id).await?;
        expect(answer.bundle_id == MEASURED, "the run has another bundle")
    }

    async fn get(&self, client: &Client, number: u64) -> Result<()> {
        let request = v1::GetMemoryRequest {
            agent_id: self.agent.clone(),
            scope: Some(scope()),
            key: Self::key(number % READ_IN_TURN),
            ..Default::default()
        };
        let answer = client.memory().get(request).await?;
        expect(answer.found, "the key is not there")
    }

    async fn run(&self, client: &Client, number: u64) -> Result<()> {
        client.start_and_wait(self.start_of(number)).await.map(drop)
    }

    /// Reads something small; gives the revision that it was read at.
    async fn look(&self, client: &Client, read: v1::ReadOptions) -> Result<u64> {
        let request = v1::GetAgentRequest {
            agent_id: self.agent.clone(),
            read: Some(read),
            ..Default::default()
        };
        Ok(client.agents().get(request).await?.revision)
    }

    async fn call(&self, client: usize, number: u64) -> Result<()> {
        let client = self.client(client);
        match self.workload {
            Workload::Start => self.start(client, number).await,
            Workload::Put => self.put(client, number).await,
            Workload::Read => self.pin(client, number, v1::Consistency::Linearizable).await,
            Workload::Lookup => self.pin(client, number, v1::Consistency::Local).await,
            Workload::Cached => self.kept_pin(number).await,
            Workload::Get => self.get(client, number).await,
            Workload::Watch => self.put_watched(client, number).await,
            // Steps are no calls: workers have them.
            Workload::Step | Workload::Run | Workload::Chain | Workload::Dispatch => {
                self.run(client, number).await
            }
        }
    }
}

impl Operation for Calls {
    fn perform(
        &self,
        client: usize,
        number: u64,
    ) -> BoxFuture<'_, std::result::Result<(), String>> {
        Box::pin(async move {
            self.call(client, number).await.map_err(|error| error.reason().to_owned())
        })
    }
}

impl Watched for Calls {
    fn write(&self, number: u64) -> BoxFuture<'_, std::result::Result<(), String>> {
        self.perform(0, number)
    }

    fn follow<'w>(&'w self, watcher: usize, board: &'w Board) -> BoxFuture<'w, String> {
        Box::pin(async move {
            let request = v1::WatchMemoryRequest {
                agent_id: self.agent.clone(),
                scope: Some(scope()),
                prefix: WATCHED.to_owned(),
                ..Default::default()
            };
            let mut watch = self.client(watcher).memory().watch(request);
            let mut is_open = false;
            loop {
                let answer = match watch.next().await {
                    Ok(answer) => answer,
                    Err(error) => return error.to_string(),
                };
                // The first answer says what it has come to: there is nothing yet.
                if !std::mem::replace(&mut is_open, true) {
                    board.opened();
                }
                let values = answer.versions.iter().filter_map(|version| version.value.as_ref());
                values.filter_map(|value| number_of(&value.data)).for_each(|it| board.sees(it));
            }
        })
    }
}

/// An answer that is not what was written is an error like another.
fn expect(right: bool, message: &str) -> Result<()> {
    if right { Ok(()) } else { Err(Error::invalid(message)) }
}

//! Watchers of one key, each with a stream of its own.

use std::convert::Infallible;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use pinrail_client::bench::{Board, Watched, number_of, numbered};
use tonic::{Status, Streaming};

use super::{Calls, wire};

/// The key that is watched.
const WATCHED: &[u8] = b"bench/watched";

impl Calls {
    async fn put_watched(&self, number: u64) -> Result<(), Status> {
        let put = wire::Put { key: WATCHED.into(), value: numbered(number) };
        wire::call(self.channel(0), wire::PUT, put).await.map(|_: wire::Nothing| ())
    }

    /// Watches until that breaks.
    async fn watch(&self, watcher: usize, board: &Board) -> Result<Infallible, Status> {
        let create = wire::CreateWatch { key: WATCHED.into() };
        // It lasts for as long as its side of the stream is open.
        let asks = stream::iter([wire::Watch { create: Some(create) }]).chain(stream::pending());
        let mut answers: Streaming<wire::Changes> =
            wire::stream(self.channel(watcher), wire::WATCH, asks).await?;
        while let Some(answer) = answers.message().await? {
            if answer.created {
                board.opened();
            }
            let values = answer.events.iter().filter_map(|event| event.now.as_ref());
            values.filter_map(|now| number_of(&now.value)).for_each(|number| board.sees(number));
        }
        Err(Status::unavailable("the stream ended"))
    }
}

impl Watched for Calls {
    fn write(&self, number: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.put_watched(number).await.map_err(|status| format!("{:?}", status.code()))
        })
    }

    fn follow<'w>(&'w self, watcher: usize, board: &'w Board) -> BoxFuture<'w, String> {
        Box::pin(async move {
            let Err(status) = self.watch(watcher, board).await;
            status.to_string()
        })
    }
}

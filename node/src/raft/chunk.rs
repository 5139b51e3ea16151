//! Entries that are applied in one go: a node has one thread, and others want their turn.

use std::io;

use futures::{FutureExt as _, Stream, StreamExt as _};
use openraft::EntryPayload;
use openraft::storage::EntryResponder;

use super::types::TypeConfig;

/// Bytes of entries, some hundred commands, behind which others have their turn. When a leader applied all that was committed at
/// once, whom it answers and what it is asked waited for milliseconds, and its followers for work.
const BYTES: usize = 64 << 10;

pub(super) struct Chunk {
    /// None: there will be no more.
    pub(super) entries: Vec<EntryResponder<TypeConfig>>,
    /// Others have their turn before the next one.
    pub(super) is_full: bool,
}

/// Waits for entries, and takes as many as are there and are applied in one go.
///
/// # Errors
/// That of the stream.
pub(super) async fn next_chunk(
    stream: &mut (impl Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin),
) -> Result<Chunk, io::Error> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while bytes < BYTES {
        let next = match entries.is_empty() {
            true => stream.next().await,
            false => stream.next().now_or_never().flatten(),
        };
        let Some(next) = next.transpose()? else { return Ok(Chunk { entries, is_full: false }) };
        if let EntryPayload::Normal(batch) = &next.0.payload {
            bytes += batch.0.len();
        }
        entries.push(next);
    }
    Ok(Chunk { entries, is_full: true })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;

    use super::*;
    use crate::raft::types::{EncodedBatch, Entry, LeaderId, LogId};

    fn entry(index: u64, bytes: usize) -> Result<EntryResponder<TypeConfig>, io::Error> {
        let log_id = LogId::new(LeaderId { term: 1, node_id: 1 }, index);
        let payload = EntryPayload::Normal(EncodedBatch(Bytes::from(vec![0; bytes])));
        Ok((Entry { log_id, payload }, None))
    }

    #[tokio::test]
    async fn a_chunk_ends_where_it_is_large_enough_or_no_entry_is_there() {
        let (later, comes) = futures::channel::mpsc::unbounded();
        let there = [entry(1, 10), entry(2, BYTES), entry(3, 1), entry(4, 1)];
        let mut all = stream::iter(there).chain(comes);
        for (count, full) in [(2, true), (2, false)] {
            let chunk = next_chunk(&mut all).await.unwrap();
            assert_eq!((chunk.entries.len(), chunk.is_full), (count, full));
        }
        later.unbounded_send(entry(5, 1)).unwrap();
        drop(later);
        for count in [1, 0] {
            let chunk = next_chunk(&mut all).await.unwrap();
            assert_eq!((chunk.entries.len(), chunk.is_full), (count, false));
        }
    }
}

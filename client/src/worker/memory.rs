//! The agent's memory inside a step: reads see the layer that the run is pinned to, writes are fenced by the lease.

use pinrail_proto::v1::work_request::Message;
use pinrail_proto::{id, limits, reason, time, v1};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Duration;

use crate::error::Error;
use crate::payload;
use crate::trace;
use crate::worker::context::StepContext;
use crate::worker::outcome::{StepError, StepResult};

/// What the GenAI conventions call the operations.
const SEARCH: &str = "search_memory";
const UPSERT: &str = "upsert_memory";
const DELETE: &str = "delete_memory";

/// A path in memory: segments joined by `/`, at most 16 and 1 KiB.
pub trait MemoryKey {
    /// The path as the cluster knows it.
    fn path(&self) -> String;
}

impl MemoryKey for str {
    fn path(&self) -> String {
        self.to_owned()
    }
}

impl MemoryKey for String {
    fn path(&self) -> String {
        self.clone()
    }
}

impl<S: AsRef<str>, const N: usize> MemoryKey for [S; N] {
    fn path(&self) -> String {
        self.each_ref().map(AsRef::as_ref).join("/")
    }
}

impl<K: MemoryKey + ?Sized> MemoryKey for &K {
    fn path(&self) -> String {
        (**self).path()
    }
}

/// A value with the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// Its path.
    pub key: String,
    /// What was written.
    pub value: T,
    /// For a conditional write.
    pub revision: u64,
}

/// Memory of the run's layer.
#[derive(Debug)]
pub struct StepMemory {
    context: StepContext,
}

impl StepMemory {
    pub(crate) fn new(context: StepContext) -> StepMemory {
        StepMemory { context }
    }

    /// The latest value that the run sees.
    ///
    /// # Errors
    /// A bad key, a value of another shape, or a cluster that does not answer (retried as a step).
    pub async fn get<T: DeserializeOwned>(&self, key: impl MemoryKey) -> StepResult<Option<T>> {
        Ok(self.get_entry(key).await?.map(|entry| entry.value))
    }

    /// The latest value with its revision.
    ///
    /// # Errors
    /// As for `get`.
    pub async fn get_entry<T: DeserializeOwned>(
        &self,
        key: impl MemoryKey,
    ) -> StepResult<Option<Entry<T>>> {
        let key = checked(key)?;
        let inner = self.context.inner();
        let request = v1::GetMemoryRequest {
            namespace: inner.namespace.clone(),
            agent_id: inner.agent.clone(),
            scope: Some(self.scope()),
            key,
            ..Default::default()
        };
        let span = trace::memory(&self.context, SEARCH, &request.key);
        let read = async { inner.client.memory().get(request).await.map_err(read_error) };
        let answer = trace::under(span, read).await?;
        answer.version.filter(|_| answer.found).map(entry).transpose()
    }

    /// The values under a prefix, in key order, all pages.
    ///
    /// # Errors
    /// As for `get`.
    pub async fn list<T: DeserializeOwned>(&self, prefix: &str) -> StepResult<Vec<Entry<T>>> {
        let inner = self.context.inner();
        let mut request = v1::ListMemoryRequest {
            namespace: inner.namespace.clone(),
            agent_id: inner.agent.clone(),
            scope: Some(self.scope()),
            prefix: prefix.to_owned(),
            ..Default::default()
        };
        let read = async {
            let mut entries = Vec::new();
            loop {
                let page = inner.client.memory().list(request.clone()).await.map_err(read_error)?;
                for version in page.versions {
                    entries.push(entry(version)?);
                }
                if page.next_page_token.is_empty() {
                    return Ok(entries);
                }
                request.page_token = page.next_page_token;
            }
        };
        trace::under(trace::memory(&self.context, SEARCH, prefix), read).await
    }

    /// Writes; gives the revision.
    ///
    /// # Errors
    /// A bad key or value, or a lost lease.
    pub async fn put<T: Serialize + ?Sized>(
        &self,
        key: impl MemoryKey,
        value: &T,
    ) -> StepResult<u64> {
        self.write(key, Some(value), None, None).await
    }

    /// Writes a value that ends after `ttl`.
    ///
    /// # Errors
    /// As for `put`.
    pub async fn put_for<T: Serialize + ?Sized>(
        &self,
        key: impl MemoryKey,
        value: &T,
        ttl: Duration,
    ) -> StepResult<u64> {
        self.write(key, Some(value), None, Some(ttl)).await
    }

    /// Writes if the key's revision is still this one; 0: if there is no such key.
    ///
    /// # Errors
    /// As for `put`; `REVISION_MISMATCH`, and `OUTCOME_UNKNOWN` when a repeat cannot tell. Both are retried as a step.
    pub async fn put_if<T: Serialize + ?Sized>(
        &self,
        key: impl MemoryKey,
        value: &T,
        revision: u64,
    ) -> StepResult<u64> {
        self.write(key, Some(value), Some(revision), None).await
    }

    /// Deletes.
    ///
    /// # Errors
    /// As for `put`.
    pub async fn delete(&self, key: impl MemoryKey) -> StepResult<u64> {
        self.write::<()>(key, None, None, None).await
    }

    /// Writes with the step's completion: in the same command or, when the step fails, not at all. A retried step
    /// does not write twice, and nobody sees the value before the step is done. The last write of a key counts.
    ///
    /// # Errors
    /// A bad key or value, or more than a completion carries (100 keys, 2 MiB together).
    pub fn put_on_complete<T: Serialize + ?Sized>(
        &self,
        key: impl MemoryKey,
        value: &T,
    ) -> StepResult<()> {
        self.on_complete(key, Some(value), None, None)
    }

    /// As [`Self::put_on_complete`], of a value that ends after `ttl`.
    ///
    /// # Errors
    /// As for `put_on_complete`.
    pub fn put_on_complete_for<T: Serialize + ?Sized>(
        &self,
        key: impl MemoryKey,
        value: &T,
        ttl: Duration,
    ) -> StepResult<()> {
        self.on_complete(key, Some(value), None, Some(ttl))
    }

    /// As [`Self::put_on_complete`], if the key's revision is still this one then; 0: if there is no such key. Else the
    /// completion is refused and the step is tried again.
    ///
    /// # Errors
    /// As for `put_on_complete`.
    pub fn put_on_complete_if<T: Serialize + ?Sized>(
        &self,
        key: impl MemoryKey,
        value: &T,
        revision: u64,
    ) -> StepResult<()> {
        self.on_complete(key, Some(value), Some(revision), None)
    }

    /// Deletes with the step's completion.
    ///
    /// # Errors
    /// As for `put_on_complete`.
    pub fn delete_on_complete(&self, key: impl MemoryKey) -> StepResult<()> {
        self.on_complete::<()>(key, None, None, None)
    }

    fn on_complete<T: Serialize + ?Sized>(
        &self,
        key: impl MemoryKey,
        value: Option<&T>,
        expected_revision: Option<u64>,
        ttl: Option<Duration>,
    ) -> StepResult<()> {
        let key = checked(key)?;
        let write = v1::CompletionWrite {
            value: encoded(value)?,
            expected_revision,
            ttl: ttl.map(api_ttl),
            key: key.clone(),
        };
        let mut writes = self.context.inner().on_complete.lock();
        let before = writes.insert(key.clone(), write);
        let bytes: usize = writes.values().map(size).sum();
        if writes.len() <= limits::COMPLETION_WRITES && bytes <= limits::PAYLOAD_BYTES {
            return Ok(());
        }
        let message = format!("{} writes of {bytes} bytes with one completion", writes.len());
        match before {
            Some(before) => writes.insert(key, before),
            None => writes.remove(&key),
        };
        Err(StepError::fatal(reason::LIMIT_EXCEEDED.name, message))
    }

    async fn write<T: Serialize + ?Sized>(
        &self,
        key: impl MemoryKey,
        value: Option<&T>,
        expected_revision: Option<u64>,
        ttl: Option<Duration>,
    ) -> StepResult<u64> {
        let key = checked(key)?;
        let value = encoded(value)?;
        let ttl = ttl.map(api_ttl);
        let inner = self.context.inner();
        let operation = if value.is_some() { UPSERT } else { DELETE };
        let span = trace::memory(&self.context, operation, &key);
        let put = Message::MemoryPut(v1::WorkerMemoryPut {
            run_id: inner.run_id.clone(),
            step: inner.step,
            token: Some(inner.token.into()),
            key,
            value,
            expected_revision,
            ttl,
        });
        trace::under(span, self.context.send(put)).await
    }

    fn scope(&self) -> v1::MemoryScope {
        let run_id = self.context.inner().run_id.clone();
        v1::MemoryScope { scope: Some(v1::memory_scope::Scope::RunId(run_id)) }
    }
}

fn encoded<T: Serialize + ?Sized>(value: Option<&T>) -> StepResult<Option<v1::Payload>> {
    let value = value.map(payload::encode).transpose();
    value.map_err(|error| StepError::fatal("INVALID_VALUE", error))
}

fn api_ttl(ttl: Duration) -> prost_types::Duration {
    time::duration(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

fn size(write: &v1::CompletionWrite) -> usize {
    write.value.as_ref().map_or(0, |value| value.data.len())
}

fn checked(key: impl MemoryKey) -> StepResult<String> {
    let key = key.path();
    id::check_memory_key(&key).map_err(|error| StepError::fatal("INVALID_ID", error))?;
    Ok(key)
}

fn entry<T: DeserializeOwned>(version: v1::MemoryVersion) -> StepResult<Entry<T>> {
    let value = payload::decode(version.value.as_ref())
        .map_err(|error| StepError::fatal("INVALID_VALUE", format!("{}: {error}", version.key)))?;
    Ok(Entry { key: version.key, value, revision: version.revision })
}

fn read_error(error: Error) -> StepError {
    match error {
        Error::Rejected { reason, message, .. } => StepError::fatal(reason, message),
        error @ (Error::Unavailable { .. }
        | Error::Unknown { .. }
        | Error::Invalid { .. }
        | Error::RunEnded { .. }) => {
            let reason = error.reason().to_owned();
            StepError::retry(error).with_reason(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_paths_however_they_are_given() {
        let user = "77".to_owned();
        assert_eq!(["user", &user].path(), "user/77");
        assert_eq!("user/77".path(), "user/77");
        assert!(checked(["user", ""]).is_err());
    }
}

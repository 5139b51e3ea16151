//! Tenants.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    CreateNamespace, DeleteNamespace, Empty, NamespaceRecord, NamespaceResult,
};
use pinrail_proto::{id, limits, reason, time, v1};

use crate::key::{Key, Kind};
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, event, nearest};

/// Exists from the start, and is meant when a request names none.
pub(crate) const DEFAULT: &str = "default";

/// The namespace that a request means.
/// What a command line needs to name an agent of it: nothing for the default one.
pub(crate) fn flag(namespace: &str) -> String {
    match namespace {
        DEFAULT => String::new(),
        other => format!(" --namespace {other}"),
    }
}

pub(crate) fn or_default(name: &str) -> &str {
    if name.is_empty() { DEFAULT } else { name }
}

pub(crate) fn create(txn: &mut Txn<'_>, it: &CreateNamespace) -> Result<Answer, Stop> {
    id::check_name("namespace", &it.namespace)
        .map_err(|e| reject(reason::INVALID_ID, e.to_string()))?;
    if txn.exists(&key(&it.namespace))? {
        return Err(reject(reason::NAMESPACE_EXISTS, format!("namespace {} exists", it.namespace)));
    }
    let count = txn.scan(&Key::new(Kind::Namespace).range(), limits::NAMESPACES)?.len();
    if count >= limits::NAMESPACES {
        let message = format!("the cluster has {count} namespaces");
        return Err(reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::NAMESPACES));
    }
    let record = insert(txn, &it.namespace);
    let mut event = event::of("namespace.created");
    event.namespace.clone_from(&it.namespace);
    txn.event(event);
    Ok(Answer::Namespace(NamespaceResult { namespace: Some(message(&it.namespace, &record)) }))
}

pub(crate) fn delete(txn: &mut Txn<'_>, it: &DeleteNamespace) -> Result<Answer, Stop> {
    let record = load(txn, &it.namespace)?;
    agent::expect_revision(txn, record.revision)?;
    if it.namespace == DEFAULT {
        return Err(reject(reason::INVALID_REQUEST, "the namespace default stays"));
    }
    if record.agents > 0 {
        let why = format!("namespace {} has {} agents", it.namespace, record.agents);
        return Err(reject(reason::NAMESPACE_NOT_EMPTY, why).with("agents", record.agents));
    }
    txn.delete(key(&it.namespace));
    let mut event = event::of("namespace.deleted");
    event.namespace.clone_from(&it.namespace);
    txn.event(event);
    Ok(Answer::Done(Empty {}))
}

pub(crate) fn insert(txn: &mut Txn<'_>, namespace: &str) -> NamespaceRecord {
    let record = NamespaceRecord { created_ms: txn.now, agents: 0, revision: txn.revision };
    txn.put(key(namespace), &record);
    record
}

pub(crate) fn load(txn: &Txn<'_>, namespace: &str) -> Result<NamespaceRecord, Stop> {
    if let Some(record) = txn.get(&key(namespace))? {
        return Ok(record);
    }
    let rows = txn.scan(&Key::new(Kind::Namespace).range(), limits::NAMESPACES)?;
    let names: Vec<_> = rows.iter().map(|(key, _)| String::from_utf8_lossy(&key[1..])).collect();
    let message = format!("there is no namespace {namespace:?}");
    let stop = reject(reason::NAMESPACE_NOT_FOUND, message);
    Err(match nearest::nearest(namespace, names.iter().map(AsRef::as_ref)) {
        Some(near) => stop.with("suggestion", near),
        None => stop,
    })
}

/// Counts an agent in or out.
///
/// # Errors
/// `LIMIT_EXCEEDED` when there is no room for one more.
pub(crate) fn count_agents(txn: &mut Txn<'_>, namespace: &str, more: bool) -> Result<(), Stop> {
    let mut record = load(txn, namespace)?;
    if more && record.agents >= limits::AGENTS_PER_NAMESPACE {
        let message = format!("namespace {namespace} has {} agents", record.agents);
        return Err(
            reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::AGENTS_PER_NAMESPACE)
        );
    }
    record.agents = if more { record.agents + 1 } else { record.agents.saturating_sub(1) };
    txn.put(key(namespace), &record);
    Ok(())
}

pub(crate) fn message(namespace: &str, record: &NamespaceRecord) -> v1::Namespace {
    v1::Namespace {
        namespace: namespace.to_owned(),
        created_at: time::timestamp(record.created_ms),
        agents: record.agents,
        revision: record.revision,
    }
}

fn key(namespace: &str) -> Vec<u8> {
    Key::new(Kind::Namespace).last(namespace)
}

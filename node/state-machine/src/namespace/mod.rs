//! Tenants.

pub(crate) mod quota;

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentRecord, CreateNamespace, DeleteNamespace, Empty, NamespaceRecord, NamespaceResult,
    UpdateNamespace,
};
use pinrail_proto::{id, limits, reason, time, v1};

use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Stop, reject};
use crate::shared::Shared;
use crate::store::{Fault, Order, Read};
use crate::txn::{Txn, shared};
use crate::{agent, event, nearest};

use quota::Quota;

/// Exists from the start, and is meant when a request names none.
pub(crate) const DEFAULT: &str = "default";

/// What a command line needs to name an agent of it: nothing for the default one.
pub(crate) fn flag(namespace: &str) -> String {
    match namespace {
        DEFAULT => String::new(),
        other => format!(" --namespace {other}"),
    }
}

/// The namespace that a request means.
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
    let mut record = insert(txn, &it.namespace);
    note(txn, "namespace.created", &it.namespace);
    if let Some(quotas) = it.quotas {
        record.quotas = Some(quotas);
        quota::settle(txn, &it.namespace, &mut record)?;
        save(txn, &it.namespace, &record);
    }
    Ok(answer(&it.namespace, &record, false))
}

/// Changes quotas. One that is less than what is used takes nothing away; it only refuses more.
pub(crate) fn update(txn: &mut Txn<'_>, it: &UpdateNamespace) -> Result<Answer, Stop> {
    let mut record = load(txn, &it.namespace)?;
    agent::expect_revision(txn, record.revision)?;
    let before = record.quotas.unwrap_or_default();
    let mut quotas = before;
    for quota in quota::ALL {
        if let Some(limit) = quota.of(it.quotas.as_ref()) {
            *quota.slot(&mut quotas) = Some(limit);
        }
    }
    for number in &it.unlimited {
        let quota = Quota::parse(*number)
            .ok_or_else(|| reject(reason::INVALID_REQUEST, "unlimited names no quota"))?;
        if quota.of(it.quotas.as_ref()).is_some() {
            let message = "a quota is either set or taken away";
            return Err(reject(reason::INVALID_REQUEST, message));
        }
        *quota.slot(&mut quotas) = None;
    }
    if quotas == before {
        return Ok(answer(&it.namespace, &record, true));
    }
    record.quotas = Some(quotas);
    record.revision = txn.revision;
    note(txn, "namespace.updated", &it.namespace);
    quota::settle(txn, &it.namespace, &mut record)?;
    save(txn, &it.namespace, &record);
    Ok(answer(&it.namespace, &record, false))
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
    note(txn, "namespace.deleted", &it.namespace);
    Ok(Answer::Done(Empty {}))
}

pub(crate) fn insert(txn: &mut Txn<'_>, namespace: &str) -> NamespaceRecord {
    let record = NamespaceRecord {
        created_ms: txn.now,
        revision: txn.revision,
        ..NamespaceRecord::default()
    };
    save(txn, namespace, &record);
    record
}

fn note(txn: &mut Txn<'_>, kind: &str, namespace: &str) {
    let mut event = event::of(kind);
    namespace.clone_into(&mut event.namespace);
    txn.event(event);
}

fn answer(namespace: &str, record: &NamespaceRecord, already: bool) -> Answer {
    Answer::Namespace(NamespaceResult { namespace: Some(message(namespace, record)), already })
}

pub(crate) fn load(txn: &Txn<'_>, namespace: &str) -> Result<NamespaceRecord, Stop> {
    existing(txn.read(), namespace)
}

/// The same of any moment, copied only if it is changed.
///
/// # Errors
/// `NAMESPACE_NOT_FOUND` suggests the nearest name.
fn lend(read: &dyn Read, namespace: &str) -> Result<Shared<NamespaceRecord>, Stop> {
    if let Some(record) = shared(read, &key(namespace))? {
        return Ok(record);
    }
    let names = names(read)?;
    let message = format!("there is no namespace {namespace:?}");
    let stop = reject(reason::NAMESPACE_NOT_FOUND, message);
    Err(match nearest::nearest(namespace, names.iter().map(String::as_str)) {
        Some(near) => stop.with("suggestion", near),
        None => stop,
    })
}

/// # Errors
/// `NAMESPACE_NOT_FOUND` suggests the nearest name.
pub(crate) fn existing(read: &dyn Read, namespace: &str) -> Result<NamespaceRecord, Stop> {
    lend(read, namespace).map(Shared::into_inner)
}

fn names(read: &dyn Read) -> Result<Vec<String>, Fault> {
    let range = Key::new(Kind::Namespace).range();
    let rows = read.scan(&range, Order::Ascending, limits::NAMESPACES)?;
    Ok(rows.iter().map(|(key, _)| String::from_utf8_lossy(&key[1..]).into_owned()).collect())
}

fn save(txn: &mut Txn<'_>, namespace: &str, record: &NamespaceRecord) {
    txn.put(key(namespace), record);
}

/// Counts an agent in.
///
/// # Errors
/// `LIMIT_EXCEEDED`, `QUOTA_EXCEEDED` when there is no room for one more.
pub(crate) fn agent_created(txn: &mut Txn<'_>, namespace: &str) -> Result<(), Stop> {
    let mut record = load(txn, namespace)?;
    if record.agents >= limits::AGENTS_PER_NAMESPACE {
        let message = format!("namespace {namespace} has {} agents", record.agents);
        return Err(
            reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::AGENTS_PER_NAMESPACE)
        );
    }
    quota::fits(&record, namespace, Quota::Agents, 1)?;
    record.agents += 1;
    quota::watch(txn, namespace, &mut record, Quota::Agents);
    save(txn, namespace, &record);
    Ok(())
}

/// Counts an agent out that held nothing but bundles.
pub(crate) fn agent_deleted(txn: &mut Txn<'_>, agent: &AgentRecord) -> Result<(), Stop> {
    let namespace = agent.namespace.as_str();
    quota::take(txn, namespace, Quota::Bundles, agent.bundles)?;
    let mut record = load(txn, namespace)?;
    record.agents = record.agents.saturating_sub(1);
    quota::watch(txn, namespace, &mut record, Quota::Agents);
    save(txn, namespace, &record);
    Ok(())
}

/// Gives back the room that the route of a drill took; its rows go with it.
pub(crate) fn route_removed(txn: &mut Txn<'_>, route: &AgentRecord) -> Result<(), Stop> {
    for quota in [Quota::OpenRuns, Quota::MemoryBytes, Quota::Bundles] {
        quota::take(txn, &route.namespace, quota, quota.of_agent(route))?;
    }
    Ok(())
}

/// The API's view, with what is counted.
pub(crate) fn message(namespace: &str, record: &NamespaceRecord) -> v1::Namespace {
    let used = record.used.unwrap_or_default();
    v1::Namespace {
        namespace: namespace.to_owned(),
        created_at: time::timestamp(record.created_ms),
        agents: record.agents,
        revision: record.revision,
        quotas: Some(record.quotas.unwrap_or_default()),
        used: Some(v1::NamespaceAmounts { agents: Some(record.agents), ..used }),
    }
}

fn key(namespace: &str) -> RowKey {
    Key::new(Kind::Namespace).last(namespace)
}

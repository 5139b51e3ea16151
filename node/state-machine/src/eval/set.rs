//! Eval sets: registered once, and never changed.

use std::collections::BTreeMap;

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentRecord, CreateEvalSet, EvalBodyRecord, EvalSetRecord, EvalSetResult,
};
use pinrail_proto::{id, limits, reason, time, v1};
use prost::Message as _;

use crate::agent::policy::too_large;
use crate::event::With as _;
use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::{Txn, decode, get};
use crate::{agent, bundle, event, nearest};

use super::{check_metrics, digest, parse, too_many};

pub(crate) fn create(txn: &mut Txn<'_>, it: &CreateEvalSet) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut set = complete(it.set.clone().unwrap_or_default())?;
    let key = key(agent.number, &set.name, &set.version);
    if let Some(row) = txn.get::<EvalSetRecord>(&key)? {
        return create_again(row.set.unwrap_or_default(), &set);
    }
    if agent.eval_sets >= limits::EVAL_SETS {
        let message = format!("agent {} has {} eval sets", agent.agent_id, agent.eval_sets);
        return Err(reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::EVAL_SETS));
    }
    set.agent_id.clone_from(&agent.agent_id);
    set.created_at = time::timestamp(txn.now);
    set.created_revision = txn.revision;
    let body = EvalBodyRecord { examples: std::mem::take(&mut set.examples), results: vec![] };
    txn.put(body_key(agent.number, &set.digest)?, &body);
    txn.put(key, &EvalSetRecord { set: Some(set.clone()) });
    agent.eval_sets += 1;
    agent::save(txn, &agent);
    txn.event(
        event::of_agent("eval.set_created", &agent)
            .with("set", &set.set)
            .with("digest", &set.digest)
            .with("examples", set.example_count),
    );
    Ok(Answer::EvalSet(EvalSetResult { set: Some(set), already: false }))
}

fn create_again(existing: v1::EvalSet, asked: &v1::EvalSet) -> Result<Answer, Stop> {
    if existing.digest != asked.digest {
        let message = format!(
            "eval set {} exists with other content: its digest is {}, yours {}; register the changed examples under \
             another version",
            existing.set, existing.digest, asked.digest
        );
        return Err(reject(reason::EVAL_SET_CONFLICT, message)
            .with("existing_digest", &existing.digest)
            .with("digest", &asked.digest));
    }
    Ok(Answer::EvalSet(EvalSetResult { set: Some(existing), already: true }))
}

/// Checks every rule, sorts what has an order, and fills in what follows from the rest.
fn complete(mut set: v1::EvalSet) -> Result<v1::EvalSet, Stop> {
    set.set = format!("{}@{}", set.name, set.version);
    parse(&set.set)?;
    if set.description.len() > limits::TEXT_BYTES {
        return Err(too_large("description bytes", set.description.len(), limits::TEXT_BYTES));
    }
    check_metrics(&mut set.metrics, invalid)?;
    if set.examples.is_empty() {
        return Err(invalid("the set has no examples".to_owned()));
    }
    if set.examples.len() > limits::EVAL_EXAMPLES {
        return Err(too_many("examples", set.examples.len(), limits::EVAL_EXAMPLES));
    }
    set.examples.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(pair) = set.examples.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(invalid(format!("example {:?} is there twice", pair[0].id)));
    }
    for example in &mut set.examples {
        check_example(example)?;
        example.digest = digest::of_example(example);
    }
    let size: usize = set.examples.iter().map(|example| example.encoded_len() + 8).sum();
    if size > limits::EVAL_BODY_BYTES {
        return Err(too_large("bytes of examples", size, limits::EVAL_BODY_BYTES));
    }
    set.categories = categories(&set.examples)?;
    set.example_count = u32::try_from(set.examples.len()).unwrap_or(u32::MAX);
    let with_input = set.examples.iter().filter(|example| example.input.is_some()).count();
    set.with_input = u32::try_from(with_input).unwrap_or(u32::MAX);
    set.digest = digest::of_set(&set);
    Ok(set)
}

fn check_example(example: &v1::EvalExample) -> Result<(), Stop> {
    let said = |rule: &str| invalid(format!("example {:?} {rule}", example.id));
    id::check_token("example id", &example.id).map_err(|error| invalid(error.to_string()))?;
    if example.category.len() > limits::LABEL_VALUE_BYTES
        || example.category.chars().any(char::is_control)
    {
        return Err(said("has a category of more than 256 bytes, or with control characters"));
    }
    if example.input.is_none() && example.content_digest.is_empty() {
        return Err(said(
            "has neither an input nor a content_digest: nothing tells when it changes",
        ));
    }
    if !example.content_digest.is_empty() && !bundle::is_digest(&example.content_digest) {
        return Err(said("has a content_digest that is no SHA-256 in lower-case hex"));
    }
    if !example.entry.is_empty() {
        id::check_name("entry step", &example.entry)
            .map_err(|error| said(&format!("has another entry: {error}")))?;
    }
    let size = example.input.as_ref().map_or(0, |input| input.data.len());
    if size > limits::PAYLOAD_BYTES {
        return Err(too_large("input bytes", size, limits::PAYLOAD_BYTES));
    }
    let contains = example.expect.as_ref().map_or(0, |expect| expect.contains.len());
    if contains > limits::EVAL_CONTAINS {
        return Err(too_many("texts of `contains`", contains, limits::EVAL_CONTAINS));
    }
    Ok(())
}

fn categories(examples: &[v1::EvalExample]) -> Result<Vec<v1::CategoryCount>, Stop> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for example in examples {
        *counts.entry(&example.category).or_default() += 1;
    }
    if counts.len() > limits::EVAL_CATEGORIES {
        return Err(too_many("categories", counts.len(), limits::EVAL_CATEGORIES));
    }
    let count =
        |(category, count): (&str, u64)| v1::CategoryCount { category: category.into(), count };
    Ok(counts.into_iter().map(count).collect())
}

fn invalid(message: String) -> Stop {
    reject(reason::INVALID_EVAL_SET, message)
}

/// A registered version, without its examples.
///
/// # Errors
/// `EVAL_SET_NOT_FOUND` suggests the nearest one; `INVALID_ID`.
pub(crate) fn existing(read: &dyn Read, agent: u32, set: &str) -> Result<v1::EvalSet, Stop> {
    let (name, version) = parse(set)?;
    let row: Option<EvalSetRecord> = get(read, &key(agent, name, version))?;
    if let Some(found) = row.and_then(|row| row.set) {
        return Ok(found);
    }
    let all = sets_of(read, agent)?;
    let message = format!("the agent has no eval set {set:?}");
    let stop = reject(reason::EVAL_SET_NOT_FOUND, message);
    Err(match nearest::nearest(set, all.iter().map(|set| set.set.as_str())) {
        Some(near) => stop.with("suggestion", near),
        None => stop,
    })
}

/// Every version of every set of an agent, by name; at most [`limits::EVAL_SETS`].
pub(crate) fn sets_of(read: &dyn Read, agent: u32) -> Result<Vec<v1::EvalSet>, Fault> {
    let rows = read.scan(&Key::of(Kind::EvalSet, agent).range(), Order::Ascending, usize::MAX)?;
    let set = |(key, value): crate::store::Row| {
        Ok(decode::<EvalSetRecord>(&key, &value)?.set.unwrap_or_default())
    };
    rows.into_iter().map(set).collect()
}

/// The examples of a set, in the order of their ids.
pub(crate) fn examples(
    read: &dyn Read,
    agent: u32,
    set: &v1::EvalSet,
) -> Result<Vec<v1::EvalExample>, Fault> {
    Ok(body(read, agent, &set.digest)?.examples)
}

/// What a digest stands for.
pub(super) fn body(read: &dyn Read, agent: u32, digest: &str) -> Result<EvalBodyRecord, Fault> {
    get(read, &body_key(agent, digest)?)?.ok_or_else(|| {
        Fault(format!("agent {agent} has lost what eval digest {digest} stands for"))
    })
}

pub(super) fn body_key(agent: u32, digest: &str) -> Result<RowKey, Fault> {
    let bytes = hex::decode(digest)
        .map_err(|_| Fault(format!("{digest:?} is no digest of an eval set or report")))?;
    Ok(Key::of(Kind::EvalBody, agent).bytes(&bytes).build())
}

fn key(agent: u32, name: &str, version: &str) -> RowKey {
    Key::of(Kind::EvalSet, agent).text(name).last(version)
}

/// The set that an agent's policy names; empty: none.
pub(super) fn of_policy(read: &dyn Read, agent: &AgentRecord) -> Result<String, Fault> {
    let gates = agent::policy(read, agent.number)?.gates;
    Ok(gates.and_then(|gates| gates.evals).map_or_else(String::new, |evals| evals.set))
}

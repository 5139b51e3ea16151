//! What an agent's runs used and cost.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pinrail_proto::log::{AgentRecord, CostRecord};
use pinrail_proto::v1::{self, CostBy, RunKind};
use pinrail_proto::{id, reason};

use crate::agent;
use crate::key::{Key, Kind, Parts};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Order, Read};
use crate::txn::decode;

use super::page::size_of;
use super::run_list::{RunFilter, runs};

/// What is asked of costs.
#[derive(Debug, Clone, Default)]
pub struct CostFilter {
    pub by: CostBy,
    /// Empty: of all bundles.
    pub bundle_id: String,
}

/// Costs by what is asked, the dearest first; by run: a page of the runs that are kept, newest first. The currency is
/// for the caller to fill in.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `INVALID_ID`; `INVALID_REQUEST` for a forged token.
pub fn costs(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    filter: &CostFilter,
    page_size: u32,
    token: &str,
) -> Result<v1::GetCostsResponse, Stop> {
    if !filter.bundle_id.is_empty() {
        id::check_name("bundle", &filter.bundle_id)
            .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    }
    if filter.by == CostBy::Run {
        return by_run(read, namespace, agent, filter, page_size, token);
    }
    let agent = agent::find(read, namespace, agent)?;
    let mut costs = sums(read, &agent, filter)?;
    costs.sort_by_key(|cost| Reverse(cost.cost_micros));
    let mut total = v1::Cost { agent_id: agent.agent_id.clone(), ..v1::Cost::default() };
    for cost in &mut costs {
        cost.agent_id.clone_from(&agent.agent_id);
        add(&mut total, cost);
    }
    let size = size_of(page_size) as usize;
    let omitted = costs.len().saturating_sub(size) as u64;
    costs.truncate(size);
    Ok(v1::GetCostsResponse {
        costs,
        total: Some(total),
        omitted,
        currency: String::new(),
        next_page_token: String::new(),
        revision: super::position(read)?.revision,
    })
}

/// One sum for each heading; an agent has a bounded number of rows.
fn sums(read: &dyn Read, agent: &AgentRecord, filter: &CostFilter) -> Result<Vec<v1::Cost>, Fault> {
    let all = Key::of(Kind::Cost, agent.number);
    let range = if filter.bundle_id.is_empty() { all } else { all.text(&filter.bundle_id) }.range();
    let mut sums: BTreeMap<(String, i32, String, String, String), v1::Cost> = BTreeMap::new();
    for (key, value) in read.scan(&range, Order::Ascending, usize::MAX)? {
        let record: CostRecord = decode(&key, &value)?;
        let heading = heading(&key, filter.by)?;
        let place = (
            heading.bundle_id.clone(),
            heading.kind,
            heading.step.clone(),
            heading.model.clone(),
            heading.served_model.clone(),
        );
        let booked = v1::Cost {
            input_tokens: record.input_tokens,
            output_tokens: record.output_tokens,
            cost_micros: record.cost_micros,
            calls: record.calls,
            ..v1::Cost::default()
        };
        add(sums.entry(place).or_insert(heading), &booked);
    }
    Ok(sums.into_values().collect())
}

/// What a row counts for.
fn heading(key: &[u8], by: CostBy) -> Result<v1::Cost, Fault> {
    let mut parts = Parts::new(key);
    let (_, bundle, kind, step, model) =
        (parts.u32(), parts.text(), parts.u8(), parts.text(), parts.text());
    let (Some(bundle), Some(kind), Some(step), Some(model), Some(served)) =
        (bundle, kind, step, model, parts.last())
    else {
        return Err(Fault(format!("row {} of costs does not come apart", hex::encode(key))));
    };
    let mut cost = v1::Cost::default();
    match by {
        CostBy::Unspecified | CostBy::Bundle => bundle.clone_into(&mut cost.bundle_id),
        CostBy::Step => step.clone_into(&mut cost.step),
        CostBy::Model => {
            model.clone_into(&mut cost.model);
            served.clone_into(&mut cost.served_model);
        }
        CostBy::Kind => cost.set_kind(RunKind::try_from(i32::from(kind)).unwrap_or_default()),
        CostBy::Run => {}
    }
    Ok(cost)
}

fn add(sum: &mut v1::Cost, more: &v1::Cost) {
    sum.input_tokens = sum.input_tokens.saturating_add(more.input_tokens);
    sum.output_tokens = sum.output_tokens.saturating_add(more.output_tokens);
    sum.cost_micros = sum.cost_micros.saturating_add(more.cost_micros);
    sum.calls = sum.calls.saturating_add(more.calls);
}

fn by_run(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    filter: &CostFilter,
    page_size: u32,
    token: &str,
) -> Result<v1::GetCostsResponse, Stop> {
    let wanted = RunFilter { bundle_id: filter.bundle_id.clone(), ..RunFilter::default() };
    let (page, next_page_token) = runs(read, namespace, agent, &wanted, page_size, token)?;
    let mut total = v1::Cost { agent_id: agent.to_owned(), ..v1::Cost::default() };
    let costs: Vec<v1::Cost> = page.iter().map(of_run).collect();
    for cost in &costs {
        add(&mut total, cost);
    }
    Ok(v1::GetCostsResponse {
        costs,
        total: Some(total),
        omitted: 0,
        currency: String::new(),
        next_page_token,
        revision: super::position(read)?.revision,
    })
}

fn of_run(run: &v1::Run) -> v1::Cost {
    let mut cost = v1::Cost {
        agent_id: run.agent_id.clone(),
        run_id: run.run_id.clone(),
        bundle_id: run.pin.as_ref().map_or_else(String::new, |pin| pin.bundle_id.clone()),
        kind: run.kind,
        ..v1::Cost::default()
    };
    for model in run.usage.iter().flat_map(|usage| &usage.models) {
        let used = v1::Cost {
            input_tokens: model.input_tokens,
            output_tokens: model.output_tokens,
            cost_micros: model.cost_micros,
            calls: model.calls,
            ..v1::Cost::default()
        };
        add(&mut cost, &used);
    }
    cost
}

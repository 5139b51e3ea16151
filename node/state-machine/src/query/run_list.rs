//! Lists of runs, newest first, from the indexes that end in start and id.
//!
//! | filter | index |
//! |---|---|
//! | none, `older_than`, kind `live` | `RunByStart` |
//! | `state`, `open`, each with or without `bundle` | `RunByState`: one range for each state and bundle |
//! | `bundle` | `RunByState`: one range for each state |
//! | kind, other than `live` | `RunByKind` |
//! | a label | `RunByLabel` |
//!
//! A combination reads the index whose next rows reach furthest back, that is the sparsest one around here, and
//! checks the rest on the run itself. One page looks at a bounded number of rows: when that is reached before the
//! page is full, the answer is short (perhaps empty) and its token goes on. A token is a start and an id, a place in
//! every index: the next page may read another one.

use std::collections::{BTreeMap, BinaryHeap};

use pinrail_proto::log::{AgentRecord, RunRecord};
use pinrail_proto::v1::{self, RunKind, RunState};
use pinrail_proto::{id, limits, reason};

use crate::agent;
use crate::key::{Key, Kind, Parts, RowKey};
use crate::outcome::{Stop, reject};
use crate::run::{find, is_over, kind_prefix, label_prefix, state_prefix};
use crate::store::{Fault, KeyRange, Order, Read};

use super::page::size_of;
use super::run::message;
use super::step::waits_for;

/// Rows by which the candidates for an index are compared.
const PROBE: usize = 64;
/// Rows that one range is read ahead by.
const AHEAD: usize = 64;

/// Which runs are meant. Empty fields mean all.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub state: RunState,
    pub bundle_id: String,
    /// Only runs that are not over.
    pub open: bool,
    pub kind: RunKind,
    /// All of them.
    pub labels: BTreeMap<String, String>,
    /// Started at least so long ago, by cluster time; 0: all.
    pub older_than_ms: u64,
    /// Of which a step waits for the signal of this name.
    pub waiting_for: String,
}

impl RunFilter {
    fn wants(&self, run: &RunRecord) -> bool {
        (self.state == RunState::Unspecified || self.state == run.state())
            && (self.bundle_id.is_empty() || self.bundle_id == run.bundle_id)
            && (!self.is_of_open() || !is_over(run.state()))
            && (self.kind == RunKind::Unspecified || self.kind == run.kind())
            && self.labels.iter().all(|(key, value)| run.labels.get(key) == Some(value))
    }

    /// What is over waits for nothing.
    fn is_of_open(&self) -> bool {
        self.open || !self.waiting_for.is_empty()
    }

    fn states(&self) -> Vec<RunState> {
        let all = (1..).map_while(|number| RunState::try_from(number).ok());
        all.filter(|state| {
            (self.state == RunState::Unspecified || self.state == *state)
                && (!self.is_of_open() || !is_over(*state))
        })
        .collect()
    }
}

/// A page of an agent's runs without inputs and outputs, newest first, and the token of the next page; at most
/// [`limits::RUNS_EXAMINED`] runs are looked at for it, so that a page may be short although more follow.
///
/// # Errors
/// `AGENT_NOT_FOUND`, `INVALID_ID`; `INVALID_REQUEST` for a forged token; `LIMIT_EXCEEDED` for too many labels.
pub fn runs(
    read: &dyn Read,
    namespace: &str,
    agent: &str,
    filter: &RunFilter,
    page_size: u32,
    token: &str,
) -> Result<(Vec<v1::Run>, String), Stop> {
    if !filter.bundle_id.is_empty() {
        id::check_name("bundle", &filter.bundle_id)
            .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    }
    agent::policy::check_labels(&filter.labels)?;
    if !filter.waiting_for.is_empty() {
        id::check_name("signal", &filter.waiting_for)
            .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    }
    let agent = agent::find(read, namespace, agent)?;
    let before = match token {
        "" => before_age(read, filter)?,
        token => parse(token)?.min(before_age(read, filter)?),
    };
    let mut list = sparsest(read, &agent, filter, &before)?;
    let size = size_of(page_size) as usize;
    let mut page: Vec<v1::Run> = Vec::new();
    let mut last: Option<Place> = None;
    for _ in 0..limits::RUNS_EXAMINED {
        if page.len() == size {
            break;
        }
        let Some(place) = list.next(read)? else { return Ok((page, String::new())) };
        if let Some(record) = find(read, agent.number, &place.run_id)?
            && filter.wants(&record)
            && (filter.waiting_for.is_empty()
                || waits_for(read, agent.number, &record, &filter.waiting_for)?)
        {
            page.push(message(read, &agent, &record)?);
        }
        last = Some(place);
    }
    let more = list.next(read)?.is_some();
    Ok((page, last.filter(|_| more).map_or_else(String::new, |place| place.token())))
}

/// Where a run stands in every index: later ones are newer.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    started_ms: u64,
    run_id: String,
}

impl Place {
    fn token(&self) -> String {
        let mut token = self.started_ms.to_be_bytes().to_vec();
        token.extend_from_slice(self.run_id.as_bytes());
        hex::encode(token)
    }
}

fn parse(token: &str) -> Result<Place, Stop> {
    let forged = || reject(reason::INVALID_REQUEST, "the page token is not one of this list");
    let bytes = hex::decode(token).map_err(|_| forged())?;
    let (started, run_id) = bytes.split_first_chunk::<8>().ok_or_else(forged)?;
    let run_id = String::from_utf8(run_id.to_vec()).map_err(|_| forged())?;
    id::check_token("run id", &run_id).map_err(|_| forged())?;
    Ok(Place { started_ms: u64::from_be_bytes(*started), run_id })
}

/// The place before which every run is old enough.
fn before_age(read: &dyn Read, filter: &RunFilter) -> Result<Place, Fault> {
    let started_ms = match filter.older_than_ms {
        0 => u64::MAX,
        age => super::position(read)?.now_ms.saturating_sub(age).saturating_add(1),
    };
    Ok(Place { started_ms, run_id: String::new() })
}

/// The list to read: of those that a filter leads to the one whose next rows reach furthest back.
fn sparsest(
    read: &dyn Read,
    agent: &AgentRecord,
    filter: &RunFilter,
    before: &Place,
) -> Result<Descent, Stop> {
    let mut lists = candidates(read, agent, filter)?;
    if let [only] = lists.as_mut_slice() {
        return Ok(Descent::new(std::mem::take(only), before));
    }
    let mut best: Option<(Place, Descent)> = None;
    for prefixes in lists {
        let mut probe = Descent::new(prefixes, before);
        let fresh = probe.clone();
        let mut reach = None;
        for _ in 0..PROBE {
            // A list that ends within the probe is as good as any, and rows of runs that left a longer one may lie long
            // in the store: those are not looked at.
            reach = probe.next(read)?;
            if reach.is_none() {
                return Ok(fresh);
            }
        }
        if let Some(reach) = reach
            && best.as_ref().is_none_or(|(furthest, _)| reach < *furthest)
        {
            best = Some((reach, fresh));
        }
    }
    Ok(best.map_or_else(|| Descent::new(Vec::new(), before), |(_, list)| list))
}

/// Every list that holds all the runs that the filter wants: each a set of ranges of one index.
fn candidates(
    read: &dyn Read,
    agent: &AgentRecord,
    filter: &RunFilter,
) -> Result<Vec<Vec<Key>>, Fault> {
    let number = agent.number;
    let mut lists: Vec<Vec<Key>> =
        filter.labels.iter().map(|(key, value)| vec![label_prefix(number, key, value)]).collect();
    lists.extend(kind_prefix(number, filter.kind).map(|prefix| vec![prefix]));
    if !filter.bundle_id.is_empty() {
        let states = filter.states();
        let of_bundle = |state| state_prefix(number, state).text(&filter.bundle_id);
        lists.push(states.into_iter().map(of_bundle).collect());
    } else if filter.is_of_open() || filter.state != RunState::Unspecified {
        let mut ranges = Vec::new();
        for state in filter.states() {
            ranges.extend(bundles_with(read, number, state)?);
        }
        lists.push(ranges);
    }
    if lists.is_empty() {
        lists.push(vec![Key::of(Kind::RunByStart, number)]);
    }
    Ok(lists)
}

/// The ranges of the bundles that have runs in a state: one seek for each.
fn bundles_with(read: &dyn Read, agent: u32, state: RunState) -> Result<Vec<Key>, Fault> {
    let mut ranges = Vec::new();
    let mut rest = state_prefix(agent, state).range();
    while let Some((key, _)) = read.scan(&rest, Order::Ascending, 1)?.first() {
        let mut parts = Parts::new(key);
        let (_, _, Some(bundle_id)) = (parts.u32(), parts.u8(), parts.text()) else {
            return Err(Fault(format!("row {} of runs has no bundle", hex::encode(key))));
        };
        let range = state_prefix(agent, state).text(bundle_id);
        rest.start = range.clone().range().end;
        ranges.push(range);
    }
    Ok(ranges)
}

/// Several ranges that end in start and id, merged: the newest first.
#[derive(Debug, Clone)]
struct Descent {
    ranges: Vec<Range>,
    /// The newest unread place of each range that has one.
    heads: BinaryHeap<(Place, usize)>,
    opened: bool,
}

/// One range, read from its end.
#[derive(Debug, Clone)]
struct Range {
    prefix: RowKey,
    rest: KeyRange,
    /// Read ahead, the newest last.
    ahead: Vec<Place>,
    /// Rows of the next read: few at first, for most ranges give little.
    chunk: usize,
    done: bool,
}

impl Descent {
    fn new(prefixes: Vec<Key>, before: &Place) -> Self {
        let range = |prefix: Key| {
            let end = prefix.clone().u64(before.started_ms).last(&before.run_id);
            let (rest, prefix) = (prefix.clone().range().before(&end), prefix.build());
            Range { prefix, rest, ahead: Vec::new(), chunk: 1, done: false }
        };
        let ranges = prefixes.into_iter().map(range).collect();
        Self { ranges, heads: BinaryHeap::new(), opened: false }
    }

    fn next(&mut self, read: &dyn Read) -> Result<Option<Place>, Fault> {
        if !self.opened {
            self.opened = true;
            for at in 0..self.ranges.len() {
                self.advance(read, at)?;
            }
        }
        let Some((place, at)) = self.heads.pop() else { return Ok(None) };
        self.advance(read, at)?;
        Ok(Some(place))
    }

    fn advance(&mut self, read: &dyn Read, at: usize) -> Result<(), Fault> {
        if let Some(place) = self.ranges[at].next(read)? {
            self.heads.push((place, at));
        }
        Ok(())
    }
}

impl Range {
    fn next(&mut self, read: &dyn Read) -> Result<Option<Place>, Fault> {
        if self.ahead.is_empty() && !self.done {
            let rows = read.scan(&self.rest, Order::Descending, self.chunk)?;
            self.done = rows.len() < self.chunk;
            self.chunk = (self.chunk * 4).min(AHEAD);
            if let Some((last, _)) = rows.last() {
                self.rest = self.rest.clone().before(last);
            }
            for (key, _) in rows.iter().rev() {
                self.ahead.push(place(&self.prefix, key)?);
            }
        }
        Ok(self.ahead.pop())
    }
}

fn place(prefix: &[u8], key: &[u8]) -> Result<Place, Fault> {
    let broken = || Fault(format!("row {} of runs does not come apart", hex::encode(key)));
    let tail = key.strip_prefix(prefix).ok_or_else(broken)?;
    let (started, run_id) = tail.split_first_chunk::<8>().ok_or_else(broken)?;
    let run_id = std::str::from_utf8(run_id).map_err(|_| broken())?.to_owned();
    Ok(Place { started_ms: u64::from_be_bytes(*started), run_id })
}

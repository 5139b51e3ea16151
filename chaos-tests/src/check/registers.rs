//! The second opinion: each key of each memory layer, and the pin of each run, is a register, and there must be an order of the
//! calls on it that explains every answer. No revision takes part in that order; a revision only names a version.
//!
//! A layer shows what its base showed when it was opened until something is written to it, so that its own part is a register of
//! its own, and what shines through is one constant. A write whose layer nobody learned may have happened in any of them.

use std::collections::{BTreeMap, BTreeSet};

use super::linearizable::{Found, Operation, State, search};
use super::{Case, Findings, Promise};
use crate::history::{Answer, Call, Entry, Outcome, Pin, RunFinal, WorkerEvent};

/// Operations of a register that are looked at; with more it is not decided.
const OPERATIONS: usize = 2_000;
/// Operations that are tried for one register, counting every time.
const TRIED: usize = 400_000;

/// Nothing was written to this layer, or no such run was started.
const UNTOUCHED: State = 0;
/// The layer's own part is a tombstone.
const DELETED: State = 1;
/// The first of the states that stand for a version or a pin.
const FIRST: State = 2;

/// What the search came to, and on how many registers it was given up.
pub(super) fn check(case: &Case<'_>) -> (Findings, u64) {
    let mut findings = Findings::new(Promise::P2);
    let mut undecided = 0;
    let asked = operations(case);
    let mut judge = |operations: &[Operation], what: &dyn Fn() -> String| {
        let found = match operations.len() {
            0..=OPERATIONS => search(operations, UNTOUCHED, TRIED),
            _ => Found::Undecided,
        };
        match found {
            Found::Undecided => undecided += 1,
            Found::Order | Found::Nothing => findings.expect(found == Found::Order, || {
                format!(
                    "no order of its {} calls explains what they answered: {}",
                    operations.len(),
                    what()
                )
            }),
        }
    };
    for ((layer, key), register) in memory(case, &asked) {
        judge(&register.operations(), &|| format!("memory key {key} of layer {layer}"));
    }
    for (run_id, operations) in runs(case, &asked) {
        judge(&operations, &|| format!("the pin of {run_id}"));
    }
    (findings, undecided)
}

/// An operation with all of its attempts.
struct Asked<'a> {
    invoked_us: u64,
    attempts: usize,
    call: &'a Call,
    /// Of the attempt that was answered; none: nobody knows whether it happened.
    answered: Option<(u64, u64, &'a Answer)>,
}

/// Every operation that may have changed something.
fn operations<'a>(case: &Case<'a>) -> Vec<Asked<'a>> {
    let mut attempts: BTreeMap<u64, Vec<&'a Entry>> = BTreeMap::new();
    for entry in case.history.iter().filter(|entry| entry.call.is_write()) {
        attempts.entry(entry.operation).or_default().push(entry);
    }
    let asked = attempts.into_values().filter(|all| all.iter().any(|one| one.may_have_happened()));
    asked
        .filter_map(|all| {
            let answered = all.iter().find_map(|one| {
                let (revision, answer) = one.ok()?;
                Some((one.returned_us, revision, answer))
            });
            let invoked_us = all.iter().map(|one| one.invoked_us).min()?;
            Some(Asked { invoked_us, attempts: all.len(), call: &all.first()?.call, answered })
        })
        .collect()
}

/// A version by its value and the revision that names it.
type Named<'a> = (&'a str, u64);

/// A key of a layer.
#[derive(Default)]
struct Register<'a> {
    /// Versions that lie in this layer, by whoever saw them.
    own: BTreeSet<Named<'a>>,
    /// Versions of other layers that were seen here: the layer's base, as it was when the layer was opened.
    inherited: BTreeSet<Named<'a>>,
    writes: Vec<Write<'a>>,
    reads: Vec<Seen<'a>>,
}

struct Write<'a> {
    invoked_us: u64,
    returned_us: Option<u64>,
    /// None: a tombstone.
    version: Option<Named<'a>>,
    expected: Option<u64>,
}

struct Seen<'a> {
    invoked_us: u64,
    returned_us: u64,
    what: Sight<'a>,
}

enum Sight<'a> {
    Own(Named<'a>),
    Inherited(Named<'a>),
    Nothing,
    /// Read as the layer's own part alone.
    Tombstone,
}

impl<'a> Register<'a> {
    fn operations(&self) -> Vec<Operation> {
        let states: BTreeMap<Named<'_>, State> = self.own.iter().copied().zip(FIRST..).collect();
        // Two that shine through one after the other: the base was not frozen. No state shows the second one.
        let shines = self.inherited.first().copied();
        let empty = || {
            let untouched = shines.is_none().then_some(UNTOUCHED);
            untouched.into_iter().chain([DELETED]).collect::<Vec<_>>()
        };
        let of_revision = |expected: u64| {
            if expected == 0 {
                return empty();
            }
            let named = states.iter().filter(|((_, revision), _)| *revision == expected);
            let mut fitting: Vec<State> = named.map(|(_, state)| *state).collect();
            // What nobody read may be what shines through.
            let unseen = shines.is_none() && fitting.is_empty();
            if unseen || shines.is_some_and(|(_, revision)| revision == expected) {
                fitting.push(UNTOUCHED);
            }
            fitting
        };
        let writes = self.writes.iter().map(|write| Operation {
            invoked: write.invoked_us,
            returned: write.returned_us,
            needs: write.expected.map(of_revision),
            sets: write.version.map_or(Some(DELETED), |named| states.get(&named).copied()),
        });
        let reads = self.reads.iter().map(|read| Operation {
            invoked: read.invoked_us,
            returned: Some(read.returned_us),
            needs: Some(match read.what {
                Sight::Own(named) => states.get(&named).copied().into_iter().collect(),
                Sight::Inherited(named) if shines == Some(named) => vec![UNTOUCHED],
                Sight::Inherited(_) => Vec::new(),
                Sight::Nothing => empty(),
                Sight::Tombstone => vec![DELETED],
            }),
            sets: None,
        });
        writes.chain(reads).collect()
    }
}

type Registers<'a> = BTreeMap<(u64, &'a str), Register<'a>>;

fn memory<'a>(case: &'a Case<'_>, asked: &[Asked<'a>]) -> Registers<'a> {
    let mut registers: Registers<'a> = BTreeMap::new();
    see(case, &mut registers);
    let mut vague = Vec::new();
    for one in asked {
        let Call::PutMemory { key, value, expected, .. } = one.call else { continue };
        let (invoked_us, expected) = (one.invoked_us, *expected);
        let returned_us = one.answered.map(|(at, ..)| at);
        let mut write = Write { invoked_us, returned_us, version: None, expected };
        match (value, one.answered) {
            (Some(value), Some((_, _, Answer::Wrote { key_revision, layer }))) => {
                write.version = Some((value, *key_revision));
                let register = registers.entry((*layer, key)).or_default();
                register.own.insert((value, *key_revision));
                register.writes.push(write);
            }
            (None, Some((_, revision, Answer::Deleted { deleted: true }))) => {
                let known = buried(case, key, revision).filter(|_| one.attempts == 1);
                vague.push((key.as_str(), None, write, known));
            }
            // It found nothing, in a layer that it does not name.
            (None, Some(_)) => {}
            (value, _) => vague.push((key.as_str(), value.as_deref(), write, None)),
        }
    }
    // Every register is known by now.
    for (key, value, write, layer) in vague {
        match value {
            Some(value) => may_write(&mut registers, key, value, &write),
            None => may_delete(&mut registers, key, &write, layer),
        }
    }
    by_workers(case, &mut registers);
    registers
}

/// What reads saw, and what is there in the end.
fn see<'a>(case: &'a Case<'_>, registers: &mut Registers<'a>) {
    for entry in &case.history {
        let (
            Call::GetMemory { key, at_revision, local, .. },
            Some((_, Answer::Read { version, layer })),
        ) = (&entry.call, entry.ok())
        else {
            continue;
        };
        let named = version.as_ref().map(|it| (it.value.as_str(), it.revision));
        if let (Some(it), Some(named)) = (version, named) {
            registers.entry((it.layer, key)).or_default().own.insert(named);
        }
        // An older state than the newest may be shown: nothing follows for the order.
        if *local || *at_revision != 0 || *layer == 0 {
            continue;
        }
        let register = registers.entry((*layer, key)).or_default();
        let what = match (version, named) {
            (Some(it), Some(named)) if it.layer == *layer => Sight::Own(named),
            (Some(_), Some(named)) => {
                register.inherited.insert(named);
                Sight::Inherited(named)
            }
            (_, _) => Sight::Nothing,
        };
        let (invoked_us, returned_us) = (entry.invoked_us, entry.returned_us);
        register.reads.push(Seen { invoked_us, returned_us, what });
    }
    let mut last: BTreeMap<(u64, &str), (u64, Option<&str>)> = BTreeMap::new();
    for version in &case.agent.versions {
        let place = (version.layer, version.key.as_str());
        let it = (version.revision, version.value.as_deref());
        let known = last.entry(place).or_insert(it);
        *known = it.max(*known);
        if let Some(value) = &version.value {
            registers.entry(place).or_default().own.insert((value, version.revision));
        }
    }
    for (place, (revision, value)) in last {
        let what = value.map_or(Sight::Tombstone, |value| Sight::Own((value, revision)));
        let end = Seen { invoked_us: u64::MAX, returned_us: u64::MAX, what };
        registers.entry(place).or_default().reads.push(end);
    }
}

/// The layer in which a delete of this revision left its tombstone.
fn buried(case: &Case<'_>, key: &str, revision: u64) -> Option<u64> {
    let is_it = |it: &&crate::history::VersionFinal| {
        it.key == key && it.revision == revision && it.value.is_none()
    };
    case.agent.versions.iter().find(is_it).map(|it| it.layer)
}

/// A write whose answer nobody has: values are used once, so who saw this one says where it is.
fn may_write<'a>(registers: &mut Registers<'a>, key: &str, value: &str, write: &Write<'a>) {
    for (_, register) in registers.iter_mut().filter(|((_, of), _)| *of == key) {
        let seen: Vec<Named<'a>> =
            register.own.iter().filter(|(seen, _)| *seen == value).copied().collect();
        for named in seen {
            let Write { invoked_us, expected, .. } = *write;
            let version = Some(named);
            register.writes.push(Write { invoked_us, returned_us: None, version, expected });
        }
    }
}

/// A delete, in the layer that is known or else perhaps in each.
fn may_delete<'a>(registers: &mut Registers<'a>, key: &str, write: &Write<'a>, known: Option<u64>) {
    let here = |layer: u64| known.is_none_or(|known| known == layer);
    for (_, register) in registers.iter_mut().filter(|((layer, of), _)| *of == key && here(*layer))
    {
        let Write { invoked_us, expected, .. } = *write;
        let returned_us = write.returned_us.filter(|_| known.is_some());
        register.writes.push(Write { invoked_us, returned_us, version: None, expected });
    }
}

/// Workers write to the layers of their runs.
fn by_workers<'a>(case: &'a Case<'_>, registers: &mut Registers<'a>) {
    let mut acked: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut asked: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for line in case.evidence.worker_log.iter().filter(|line| line.agent == case.agent.agent) {
        match &line.event {
            WorkerEvent::MemoryAsked { key, value } => {
                let at = asked.entry((key, value)).or_insert(line.at_us);
                *at = line.at_us.min(*at);
            }
            WorkerEvent::MemoryAcked { key, value, .. } => {
                acked.insert((key, value), line.at_us);
            }
            _ => {}
        }
    }
    for ((key, value), invoked_us) in asked {
        let is_it = |it: &(u64, Named<'a>)| it.1.0 == value;
        let places = registers.iter().filter(|((_, of), _)| *of == key);
        let seen: Vec<(u64, Named<'a>)> = places
            .flat_map(|((layer, _), register)| register.own.iter().map(|own| (*layer, *own)))
            .filter(is_it)
            .collect();
        // Two versions of one value: which of them was acknowledged does not show.
        let returned_us = acked.get(&(key, value)).copied().filter(|_| seen.len() == 1);
        for (layer, named) in seen {
            let version = Some(named);
            let write = Write { invoked_us, returned_us, version, expected: None };
            registers.entry((layer, key)).or_default().writes.push(write);
        }
    }
}

/// The pin of each run that somebody started and that kept its first one: set once, read by many.
fn runs<'a>(case: &'a Case<'_>, asked: &[Asked<'a>]) -> BTreeMap<&'a str, Vec<Operation>> {
    let kept = |run: &&RunFinal| run.restarts == 0 && run.first_run_id.is_empty();
    let kept = case.agent.runs.iter().filter(kept);
    let mut pins: BTreeMap<&str, Vec<&Pin>> =
        kept.clone().map(|run| (run.run_id.as_str(), vec![&run.pin])).collect();
    let mut all: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    let mut state_of = |run_id: &str, pin: &'a Pin| -> Option<State> {
        let known = pins.get_mut(run_id)?;
        let place = known.iter().position(|it| *it == pin).unwrap_or_else(|| {
            known.push(pin);
            known.len() - 1
        });
        (FIRST..).nth(place)
    };
    for run in kept {
        let needs = state_of(&run.run_id, &run.pin).map(|state| vec![state]);
        let end = Operation { invoked: u64::MAX, returned: Some(u64::MAX), needs, sets: None };
        all.entry(&run.run_id).or_default().push(end);
    }
    for entry in &case.history {
        let Call::LookupPin { run_id } = &entry.call else { continue };
        let needs = match &entry.outcome {
            Outcome::Ok { answer: Answer::Pinned { pin, .. }, .. } => state_of(run_id, pin),
            Outcome::Rejected { reason, .. } if reason == "RUN_NOT_FOUND" => Some(UNTOUCHED),
            _ => None,
        };
        if let (Some(needs), Some(run)) = (needs, all.get_mut(run_id.as_str())) {
            let (invoked, returned) = (entry.invoked_us, Some(entry.returned_us));
            run.push(Operation { invoked, returned, needs: Some(vec![needs]), sets: None });
        }
    }
    for one in asked {
        let Call::StartRun { run_id, .. } = one.call else { continue };
        let pin = match one.answered {
            Some((_, _, Answer::Started { pin, already })) => {
                state_of(run_id, pin).map(|state| (state, *already))
            }
            _ => None,
        };
        let Some(run) = all.get_mut(run_id.as_str()) else { continue };
        match pin {
            Some((state, already)) => {
                // One that was asked again, by us or by the node, may be told of its own first attempt.
                let needs = if already { vec![UNTOUCHED, state] } else { vec![UNTOUCHED] };
                let returned = one.answered.map(|(at, ..)| at);
                let (invoked, needs, sets) = (one.invoked_us, Some(needs), Some(state));
                run.push(Operation { invoked, returned, needs, sets });
            }
            // The pin that it got, if it got one, is the one that is there in the end.
            None => run.push(Operation {
                invoked: one.invoked_us,
                returned: None,
                needs: Some(vec![UNTOUCHED]),
                sets: Some(FIRST),
            }),
        }
    }
    all
}

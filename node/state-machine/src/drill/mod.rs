//! Drills: the rollback, practised and timed, part by part.
//!
//! ```text
//!  prepare ──> rollback ──> starts ──> memory ──> in_flight ──> probes ──> return ──> passed
//!      └──────────┴───────────┴──────────┴────────────┴───────────┴──────────┤  a part failed, or all took too long: failed
//!                                                                            │  by a person, or another route change: aborted
//! ```
//! A drill on a *route of its own* serves no user: it is an agent beside the real one, under a name that no user can
//! give, with two clones of the live bundle. The commands that it practises are the real ones, carried out on that agent
//! by the same code; at its end every row of it is gone. A drill on the *live route* hands the traffic to the standby as
//! a rollback does, and back; release, quarantine and signals stay what they were.
//!
//! The leader tries each part and says how it went (`RecordDrill`); apply checks that it still is the present one. It must
//! not know how anything is tried.

mod record;
mod route;
mod schedule;
mod start;

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AgentRecord, DrillPartRecord, DrillRecord, DrillResult};
use pinrail_proto::reason;
use pinrail_proto::time::{duration, timestamp};
use pinrail_proto::v1::{self, DrillPart, DrillState, Verdict};

use crate::event;
use crate::key::{Key, Kind, RowKey};
use crate::outcome::{Stop, reject};
use crate::store::{Fault, Read};
use crate::txn::{Txn, get};

pub(crate) use record::{abort, give_up, record};
pub(crate) use route::turn_route;
pub use route::{LIVE, STANDBY};
pub(crate) use schedule::schedule;
pub(crate) use start::{is_active, start};

/// The parts in their order.
pub(crate) const PARTS: [DrillPart; 7] = [
    DrillPart::Prepare,
    DrillPart::Rollback,
    DrillPart::Starts,
    DrillPart::Memory,
    DrillPart::InFlight,
    DrillPart::Probes,
    DrillPart::Return,
];

/// The id of a drill: `d3`.
pub(crate) fn id(number: u32) -> String {
    format!("d{number}")
}

/// The number of a drill by its id.
pub(crate) fn number(id: &str) -> Option<u32> {
    id.strip_prefix('d')?.parse().ok()
}

pub(crate) fn find(read: &dyn Read, agent: u32, number: u32) -> Result<Option<DrillRecord>, Fault> {
    get(read, &row(agent, number))
}

fn save(txn: &mut Txn<'_>, agent: u32, drill: &mut DrillRecord) {
    drill.revision = txn.revision;
    txn.put(row(agent, drill.number), drill);
}

fn row(agent: u32, number: u32) -> RowKey {
    Key::of(Kind::Drill, agent).u32(number).build()
}

/// The drill, if it still is under way.
fn present(txn: &Txn<'_>, agent: &AgentRecord, number: u32) -> Result<DrillRecord, Stop> {
    if number == 0 || agent.active_drill != number {
        return Err(stale(&format!("drill {} is not under way", id(number))));
    }
    let found = find(txn.read(), agent.number, number)?;
    Ok(found.ok_or_else(|| Fault(format!("agent {} has no drill {number}", agent.number)))?)
}

fn stale(why: &str) -> Stop {
    reject(reason::DRILL_STALE, why)
}

fn answer(txn: &Txn<'_>, agent: &AgentRecord, drill: &DrillRecord) -> Answer {
    Answer::Drill(Box::new(DrillResult { drill: Some(message(agent, drill, txn.now)) }))
}

/// `in_flight`, not `DRILL_PART_IN_FLIGHT`.
pub(crate) fn word(part: DrillPart) -> String {
    event::word(part.as_str_name(), "DRILL_PART_")
}

/// The API's view of a drill.
pub(crate) fn message(agent: &AgentRecord, drill: &DrillRecord, now_ms: u64) -> v1::Drill {
    let until_ms = if drill.ended_ms == 0 { now_ms } else { drill.ended_ms };
    let mut parts: Vec<v1::DrillTime> = drill.parts.iter().map(time).collect();
    if drill.state() == DrillState::Running {
        parts.push(v1::DrillTime {
            part: drill.part,
            verdict: Verdict::Running.into(),
            started_at: timestamp(drill.part_ms),
            took: Some(duration(now_ms.saturating_sub(drill.part_ms))),
            ..v1::DrillTime::default()
        });
    }
    v1::Drill {
        agent_id: agent.agent_id.clone(),
        drill_id: id(drill.number),
        mode: drill.mode,
        state: drill.state,
        from_bundle_id: drill.from_bundle_id.clone(),
        to_bundle_id: drill.to_bundle_id.clone(),
        started_at: timestamp(drill.started_ms),
        ended_at: timestamp(drill.ended_ms),
        took: Some(duration(until_ms.saturating_sub(drill.started_ms))),
        limit: Some(duration(drill.limit_ms)),
        parts,
        end_reason: drill.end_reason.clone(),
        scheduled: drill.scheduled,
        actor: drill.actor.clone(),
        reason: drill.reason.clone(),
        in_flight: drill.in_flight,
        memory_keys_hidden: drill.memory_keys_hidden,
        late_writes: drill.late_writes,
        revision: drill.revision,
    }
}

fn time(part: &DrillPartRecord) -> v1::DrillTime {
    let micros = part.took_micros;
    let took = prost_types::Duration {
        seconds: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0),
    };
    v1::DrillTime {
        part: part.part,
        verdict: part.verdict,
        started_at: timestamp(part.started_ms),
        took: Some(took),
        reason: part.reason.clone(),
        evidence: part.evidence.clone(),
    }
}

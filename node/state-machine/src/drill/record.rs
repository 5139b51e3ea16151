//! From part to part of a drill, and its end.

use pinrail_proto::limits;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AbortDrill, AgentRecord, DrillPartRecord, DrillRecord, RecordDrill};
use pinrail_proto::reason;
use pinrail_proto::v1::{DrillMode, DrillPart, DrillState, Verdict};

use crate::agent::policy::too_large;
use crate::effect::Effect;
use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, event};

use super::{PARTS, answer, id, present, route, save, stale, word};

/// Records how the present part went, and goes on to the next one or ends the drill.
pub(crate) fn record(txn: &mut Txn<'_>, it: &RecordDrill) -> Result<Answer, Stop> {
    let mut agent = agent::load(txn, it.agent)?;
    let mut drill = present(txn, &agent, it.drill)?;
    if drill.part() != it.part() {
        return Err(stale("another part of the drill is under way"));
    }
    let size = it.evidence.len() + it.reason.len();
    if size > limits::EVIDENCE_BYTES {
        return Err(too_large("evidence bytes", size, limits::EVIDENCE_BYTES));
    }
    let failed = match it.verdict() {
        Verdict::Pass | Verdict::Skipped => false,
        Verdict::Fail => true,
        Verdict::Unspecified
        | Verdict::Pending
        | Verdict::Running
        | Verdict::InsufficientData
        | Verdict::Error => {
            return Err(reject(reason::INVALID_REQUEST, "this is no verdict of a drill's part"));
        }
    };
    if !failed {
        is_turned(&agent, &drill)?;
    }
    let took_micros = match it.took_micros {
        0 => txn.now.saturating_sub(drill.part_ms).saturating_mul(1_000),
        told => told,
    };
    drill.parts.push(DrillPartRecord {
        part: it.part,
        verdict: it.verdict,
        started_ms: drill.part_ms,
        took_micros,
        reason: it.reason.clone(),
        evidence: it.evidence.clone(),
    });
    let took_ms = txn.now.saturating_sub(drill.started_ms);
    let next = PARTS.iter().find(|part| i32::from(**part) > it.part);
    if failed {
        let why = format!("{}: {}", word(it.part()), it.reason);
        end(txn, &mut agent, &mut drill, DrillState::Failed, &why)?;
    } else if took_ms > drill.limit_ms {
        let why = too_long(&drill, took_ms);
        end(txn, &mut agent, &mut drill, DrillState::Failed, &why)?;
    } else if let Some(next) = next {
        drill.set_part(*next);
        drill.part_ms = txn.now;
    } else {
        end(txn, &mut agent, &mut drill, DrillState::Passed, "")?;
    }
    save(txn, agent.number, &mut drill);
    agent::save(txn, &agent);
    txn.effect(Effect::AgentChanged { agent: agent.number });
    Ok(answer(txn, &agent, &drill))
}

/// On the live route the rollback is done when the route was turned, and the return when it was turned back.
fn is_turned(agent: &AgentRecord, drill: &DrillRecord) -> Result<(), Stop> {
    let wanted = match drill.part() {
        DrillPart::Rollback => drill.mode() == DrillMode::Live,
        DrillPart::Return => false,
        DrillPart::Unspecified
        | DrillPart::Prepare
        | DrillPart::Starts
        | DrillPart::Memory
        | DrillPart::InFlight
        | DrillPart::Probes => return Ok(()),
    };
    if agent.drill_turned == wanted { Ok(()) } else { Err(stale("the route is elsewhere")) }
}

/// Names the part that took longest.
fn too_long(drill: &DrillRecord, took_ms: u64) -> String {
    let longest = drill.parts.iter().max_by_key(|part| part.took_micros);
    let part = longest.map_or_else(String::new, |part| {
        format!(": {} took {} ms", word(part.part()), part.took_micros / 1_000)
    });
    format!("took {took_ms} ms, limit {} ms{part}", drill.limit_ms)
}

pub(crate) fn abort(txn: &mut Txn<'_>, it: &AbortDrill) -> Result<Answer, Stop> {
    let mut agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    if agent.active_drill == 0 {
        let message = format!("no drill of agent {} is under way", agent.agent_id);
        return Err(reject(reason::DRILL_NOT_ACTIVE, message));
    }
    let number = agent.active_drill;
    let mut drill = present(txn, &agent, number)?;
    let why = match txn.header.reason.as_str() {
        "" => "somebody aborted it".to_owned(),
        said => said.to_owned(),
    };
    end(txn, &mut agent, &mut drill, DrillState::Aborted, &why)?;
    save(txn, agent.number, &mut drill);
    agent::save(txn, &agent);
    txn.effect(Effect::AgentChanged { agent: agent.number });
    Ok(answer(txn, &agent, &drill))
}

/// Something that is no exercise moves the live route: a drill that has turned it returns first, in the same command.
pub(crate) fn give_up(txn: &mut Txn<'_>, agent: &mut AgentRecord, why: &str) -> Result<(), Stop> {
    if !agent.drill_turned {
        return Ok(());
    }
    let mut drill = present(txn, agent, agent.active_drill)?;
    end(txn, agent, &mut drill, DrillState::Aborted, why)?;
    save(txn, agent.number, &mut drill);
    agent::save(txn, agent);
    Ok(())
}

/// Whatever the drill has moved goes back, in the same command. The caller saves agent and drill.
fn end(
    txn: &mut Txn<'_>,
    agent: &mut AgentRecord,
    drill: &mut DrillRecord,
    state: DrillState,
    why: &str,
) -> Result<(), Stop> {
    if agent.drill_turned {
        route::turn(txn, agent)?;
    }
    if drill.route != 0 {
        route::remove(txn, drill.route)?;
        drill.route = 0;
    }
    agent.active_drill = 0;
    drill.set_state(state);
    drill.ended_ms = txn.now;
    why.clone_into(&mut drill.end_reason);
    let what = match state {
        DrillState::Passed => "drill.passed",
        DrillState::Aborted => "drill.aborted",
        DrillState::Failed | DrillState::Running | DrillState::Unspecified => "drill.failed",
    };
    let mut told = event::of_bundle(what, agent, &drill.from_bundle_id)
        .with("drill", id(drill.number))
        .with("part", word(drill.part()))
        .with("took_ms", txn.now.saturating_sub(drill.started_ms));
    if !why.is_empty() {
        told = told.with("why", why);
    }
    txn.event(told);
    Ok(())
}

//! P7: a rollback is acknowledged within a second of reaching a serving leader, and holds for every later start and for the
//! runs that it finds open.

use super::{Case, Findings, Promise, route_order};
use crate::history::{Answer, Call, Entry, InFlight, RunFinal};

/// The longest that an acknowledgement may take with a serving leader.
const BOUND_US: u64 = 1_000_000;

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P7);
    let is_rollback = |call: &Call| matches!(call, Call::Rollback { .. });
    for entry in case.history.iter().filter(|entry| is_rollback(&entry.call)) {
        if let Some((_, Answer::Moved { from, to, .. })) = entry.ok()
            && !disturbed(case, entry)
        {
            let took_us = entry.returned_us - entry.invoked_us;
            findings.expect(took_us <= BOUND_US, || {
                format!("the rollback from {from} to {to} took {} ms", took_us / 1_000)
            });
        }
    }
    for entry in &case.history {
        open_runs(case, entry, &mut findings);
    }
    let acked = route_order::acknowledged(case, is_rollback);
    route_order::later_answers(case, &acked, "rollback", &mut findings);
    findings
}

/// What a rollback says of open runs holds from its own revision on, whatever touches them first.
fn open_runs(case: &Case<'_>, entry: &Entry, findings: &mut Findings) {
    let Call::Rollback { in_flight, .. } = &entry.call else { return };
    let Some((revision, Answer::Moved { from, already: false, .. })) = entry.ok() else { return };
    let is_cancelled = |run: &RunFinal| {
        let asks =
            |call: &Call| matches!(call, Call::CancelRun { run_id } if *run_id == run.run_id);
        case.history.iter().any(|entry| asks(&entry.call) && entry.may_have_happened())
    };
    let was_open = |run: &&RunFinal| {
        run.pin.bundle_id == *from && run.pin.revision < revision && run.revision > revision
    };
    for run in case.agent.runs.iter().filter(was_open) {
        let obeyed = match in_flight {
            InFlight::Keep => true,
            InFlight::Cancel => !run.is_over() || run.end_reason == "rollback",
            // Nobody would start an external run again: it goes on. One that was being cancelled does not begin anew.
            InFlight::Restart => {
                run.external || (run.end_reason == "rollback" && is_cancelled(run))
            }
        };
        findings.expect(obeyed, || {
            format!(
                "{} is {} ({}) on {from} at revision {}; the rollback at {revision} said {in_flight:?}",
                run.run_id, run.state, run.end_reason, run.revision
            )
        });
    }
}

/// Whether a fault was at work while the attempt was under way.
fn disturbed(case: &Case<'_>, entry: &Entry) -> bool {
    let overlaps = |from: u64, to: u64| from <= entry.returned_us && entry.invoked_us <= to;
    case.evidence.gaps().iter().any(|gap| overlaps(gap.from_us, gap.to_us))
        || case.evidence.faults.iter().any(|fault| overlaps(fault.injected_us, fault.healed_us))
}

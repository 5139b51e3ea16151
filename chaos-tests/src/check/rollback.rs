//! P7: a rollback is acknowledged within a second of reaching a serving leader, and holds for every later start.

use super::{Case, Findings, Promise, route_order};
use crate::history::{Answer, Call, Entry};

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
    let acked = route_order::acknowledged(case, is_rollback);
    route_order::later_answers(case, &acked, "rollback", &mut findings);
    findings
}

/// Whether a fault was at work while the attempt was under way.
fn disturbed(case: &Case<'_>, entry: &Entry) -> bool {
    let overlaps = |from: u64, to: u64| from <= entry.returned_us && entry.invoked_us <= to;
    case.evidence.gaps().iter().any(|gap| overlaps(gap.from_us, gap.to_us))
        || case.evidence.faults.iter().any(|fault| overlaps(fault.injected_us, fault.healed_us))
}

//! P4: for every bundle that lost its traffic the drain is over within its bound, and nothing ends early.

use super::{Case, Findings, Promise};
use crate::history::{Answer, Fault, RunFinal};

/// What a drain may take beyond `drained_by`, in time with a serving leader, for up to [`PINS_A_STEP`] pins …
const BOUND_MS: u64 = 2_000;
/// … and what each further so many pins add.
const STEP_MS: u64 = 1_000;
const PINS_A_STEP: u64 = 20_000;

/// Cluster time may run ahead of ours by so much: model.md allows caps to be a second early under clocks that disagree.
const JUMP_US: i128 = 1_000_000;
/// Answers after which the largest lead that was seen is known well enough.
const SAMPLES: usize = 5;

/// A route change that took a bundle's traffic.
struct Loss<'a> {
    bundle_id: &'a str,
    epoch: u64,
    deadline_ms: u64,
    drained_by_ms: u64,
}

pub(super) fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::new(Promise::P4);
    let losses = losses(case);
    for loss in &losses {
        findings.expect(loss.drained_by_ms == loss.deadline_ms + case.agent.grace_ms, || {
            format!(
                "drain of {} at epoch {}: deadline {} and grace {} do not make {}",
                loss.bundle_id,
                loss.epoch,
                loss.deadline_ms,
                case.agent.grace_ms,
                loss.drained_by_ms
            )
        });
    }
    time_goes_on(case, &mut findings);
    for run in &case.agent.runs {
        never_early(run, &losses, &mut findings);
        in_time(case, run, &losses, &mut findings);
    }
    findings
}

/// Caps count in cluster time: where that jumps ahead of ours, they come early. What an answer carries may lag behind, by as
/// long as nothing was written; it is never ahead.
fn time_goes_on(case: &Case<'_>, findings: &mut Findings) {
    let mut ahead: Option<i128> = None;
    let mut samples = 0;
    let mut last_us = 0;
    for entry in &case.history {
        let Some((_, Answer::Drain { cluster_time_ms: at @ 1.., .. })) = entry.ok() else {
            continue;
        };
        let now = i128::from(*at) * 1_000 - i128::from(entry.returned_us);
        // When all members begin anew, nobody remembers the cluster's time, and their wall clocks say what it is.
        let between = |it: &Fault| it.injected_us < entry.returned_us && it.healed_us > last_us;
        if case.evidence.faults.iter().any(|it| it.kind.stops_all() && between(it)) {
            (ahead, samples) = (None, 0);
        }
        last_us = entry.returned_us;
        if let Some(ahead) = ahead.filter(|_| samples >= SAMPLES) {
            findings.expect(now <= ahead + JUMP_US, || {
                format!("cluster time jumped ahead by {} ms, to {at}", (now - ahead) / 1_000)
            });
        }
        ahead = ahead.max(Some(now));
        samples += 1;
    }
}

fn losses<'a>(case: &'a Case<'_>) -> Vec<Loss<'a>> {
    let mut losses: Vec<Loss<'_>> = case
        .history
        .iter()
        .filter_map(|entry| match entry.ok()?.1 {
            Answer::Moved {
                from, epoch, drain_deadline_ms, drained_by_ms, already: false, ..
            } if *drain_deadline_ms != 0 => Some(Loss {
                bundle_id: from,
                epoch: *epoch,
                deadline_ms: *drain_deadline_ms,
                drained_by_ms: *drained_by_ms,
            }),
            _ => None,
        })
        .collect();
    losses.sort_by_key(|loss| loss.epoch);
    losses.dedup_by_key(|loss| loss.epoch);
    losses
}

fn never_early(run: &RunFinal, losses: &[Loss<'_>], findings: &mut Findings) {
    if !run.is_over() {
        return;
    }
    match run.end_reason.as_str() {
        "drain_cap" => {
            let due = losses
                .iter()
                .filter(|loss| loss.bundle_id == run.pin.bundle_id && loss.epoch > run.pin.epoch)
                .map(|loss| loss.deadline_ms)
                .min();
            findings.expect(due.is_some_and(|due| run.ended_at_ms >= due), || {
                format!(
                    "{} was ended by the drain cap at {} and not after {due:?}",
                    run.run_id, run.ended_at_ms
                )
            });
        }
        "max_age" => findings.expect(run.ended_at_ms >= run.pin.expires_at_ms, || {
            format!(
                "{} expired at {}, before its end {}",
                run.run_id, run.ended_at_ms, run.pin.expires_at_ms
            )
        }),
        _ => {}
    }
}

fn in_time(case: &Case<'_>, run: &RunFinal, losses: &[Loss<'_>], findings: &mut Findings) {
    // The last loss counts: a return before it cleared the earlier deadlines.
    let Some(loss) = losses
        .iter()
        .rev()
        .find(|loss| loss.bundle_id == run.pin.bundle_id && loss.epoch > run.pin.epoch)
    else {
        return;
    };
    if came_back(case, loss) {
        return; // The deadline was cleared.
    }
    let pins = case.agent.runs.iter().filter(|one| one.pin.bundle_id == loss.bundle_id).count();
    let extra = STEP_MS * ((pins as u64).saturating_sub(1) / PINS_A_STEP);
    let bound = loss.drained_by_ms + BOUND_MS + extra + leaderless_ms(case, loss.deadline_ms);
    let end = if run.is_over() { run.ended_at_ms } else { u64::MAX };
    if !run.is_over() && case.agent.cluster_time_ms <= bound {
        return; // It may still be in time.
    }
    findings.expect(end <= bound, || {
        format!(
            "{} ({}) on {} was open until {end}; its drain had to be over at {} and was allowed until {bound}",
            run.run_id, run.state, loss.bundle_id, loss.drained_by_ms
        )
    });
}

fn came_back(case: &Case<'_>, loss: &Loss<'_>) -> bool {
    case.history.iter().any(|entry| match entry.ok() {
        Some((_, Answer::Moved { to, epoch, already: false, .. })) => {
            to == loss.bundle_id && *epoch > loss.epoch
        }
        _ => false,
    })
}

/// Time without a serving leader from a cluster time on. Where the clocks cannot be joined, all of it counts.
fn leaderless_ms(case: &Case<'_>, since_ms: u64) -> u64 {
    let since_us = clock_offset_us(case).map_or(0, |offset| {
        u64::try_from(i128::from(since_ms) * 1_000 - offset).unwrap_or_default()
    });
    case.evidence
        .gaps()
        .iter()
        .filter(|gap| gap.to_us > since_us)
        .map(|gap| gap.to_us.saturating_sub(gap.from_us.max(since_us)) / 1_000)
        .fold(0, u64::saturating_add)
}

/// What to add to our clock to have the cluster's: the median over the answers that carry cluster time.
fn clock_offset_us(case: &Case<'_>) -> Option<i128> {
    let mut offsets: Vec<i128> = case
        .history
        .iter()
        .filter_map(|entry| match entry.ok()?.1 {
            Answer::Drain { cluster_time_ms, .. } if *cluster_time_ms != 0 => {
                Some(i128::from(*cluster_time_ms) * 1_000 - i128::from(entry.returned_us))
            }
            _ => None,
        })
        .collect();
    offsets.sort_unstable();
    offsets.get(offsets.len() / 2).copied()
}

//! Prepare: live workers of the candidate serve every step that it declares, with room.

use std::collections::BTreeSet;

use pinrail_proto::v1;
use pinrail_state_machine::query::Attended;
use serde_json::json;

use super::super::Dispatch;
use super::Finding;

pub(super) fn look(dispatch: &Dispatch, it: &Attended) -> Finding {
    let workers = dispatch.workers(&it.namespace, &it.agent_id, &it.release.bundle_id);
    let workers = workers.unwrap_or_default();
    let environment = it.policy.environment.as_ref();
    let min_slots = environment.map_or(1, v1::EnvironmentPolicy::min_slots);
    judge(&workers, &it.steps, u64::from(min_slots))
}

fn judge(workers: &[v1::Worker], steps: &[String], min_slots: u64) -> Finding {
    let live = || workers.iter().filter(|worker| worker.state() == v1::WorkerState::Live);
    let serves_any = live().any(|worker| worker.steps.is_empty());
    let served: BTreeSet<&String> = live().flat_map(|worker| &worker.steps).collect();
    let missing: Vec<&str> = steps
        .iter()
        .filter(|step| !serves_any && !served.contains(step))
        .map(String::as_str)
        .collect();
    let count = live().count();
    let free: u64 = live().map(|worker| u64::from(worker.free_slots)).sum();
    let evidence = json!({
        "workers": count, "free_slots": free, "min_slots": min_slots, "missing_steps": missing,
    });
    let blocked = workers.iter().find(|worker| worker.state() == v1::WorkerState::Blocked);
    if let Some(blocked) = blocked.filter(|_| count == 0 && min_slots > 0) {
        return Finding::Wait(format!("its workers are blocked: {}", blocked.blocked_by));
    }
    if count == 0 && min_slots > 0 {
        return Finding::Wait("no live worker of the candidate".to_owned());
    }
    if !missing.is_empty() {
        return Finding::Wait(format!("no live worker serves {}", missing.join(", ")));
    }
    if free < min_slots {
        return Finding::Wait(format!("{free} of {min_slots} free slots"));
    }
    Finding::pass(format!("{count} workers, {free} free slots"), evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(steps: &[&str], free_slots: u32) -> v1::Worker {
        v1::Worker {
            state: v1::WorkerState::Live.into(),
            steps: steps.iter().map(ToString::to_string).collect(),
            free_slots,
            ..v1::Worker::default()
        }
    }

    #[test]
    fn it_says_what_is_missing() {
        let steps = ["plan".to_owned(), "answer".to_owned()];
        let said = |workers: &[v1::Worker]| match judge(workers, &steps, 4) {
            Finding::Wait(reason) => reason,
            Finding::Judged { verdict, reason, .. } => format!("{verdict:?}: {reason}"),
            Finding::Advance { .. } => panic!("a canary"),
        };
        assert_eq!(said(&[]), "no live worker of the candidate");
        assert_eq!(said(&[worker(&["plan"], 9)]), "no live worker serves answer");
        assert_eq!(said(&[worker(&["plan", "answer"], 3)]), "3 of 4 free slots");
        let both = [worker(&["plan"], 3), worker(&["answer"], 1)];
        assert_eq!(said(&both), "Pass: 2 workers, 4 free slots");
        let blocked = v1::Worker {
            state: v1::WorkerState::Blocked.into(),
            blocked_by: "breaking drift of search".to_owned(),
            ..worker(&[], 9)
        };
        let why = "its workers are blocked: breaking drift of search";
        assert_eq!(said(std::slice::from_ref(&blocked)), why);
        assert_eq!(said(&[blocked, worker(&["plan"], 9)]), "no live worker serves answer");
        assert_eq!(said(&[worker(&[], 4)]), "Pass: 1 workers, 4 free slots");
    }
}

//! Prepare: on a route of its own the drill makes what a rollback finds. One entry of the log holds all of it, so it is there
//! as a whole or not at all.

use pinrail_proto::id;
use pinrail_proto::log::command::Kind;
use pinrail_proto::log::memory_target::Target;
use pinrail_proto::log::{DrillRecord, MemoryTarget, PutMemory, StartRun, Switch};
use pinrail_proto::v1::Payload;
use pinrail_state_machine::query::{DRILL_LIVE, DRILL_STANDBY, Drilled};
use serde_json::json;

use super::super::Dispatch;
use super::super::propose::{propose_all, refused};
use super::{Finding, is_live, live_on_route, route};

/// A key that both bundles write, and one that only the bundle writes that is left.
pub(super) const KEPT: &str = "drill/kept";
pub(super) const HIDDEN: &str = "drill/hidden";
/// What the good bundle wrote.
pub(super) const GOOD: &str = "good";
/// Runs in flight when the rollback comes.
const RUNS: usize = 3;

pub(super) async fn look(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord) -> Finding {
    if is_live(drill) {
        return workers(dispatch, it, drill);
    }
    match live_on_route(dispatch, it) {
        Err(error) => Finding::Wait(error),
        Ok(live) if live == DRILL_LIVE => {
            let runs = runs(it, drill);
            Finding::pass(
                format!("{} runs in flight, {} keys of memory", runs.len(), 2),
                json!({ "runs": runs, "keys": [KEPT, HIDDEN] }),
            )
        }
        Ok(_) => make(dispatch, it, drill).await,
    }
}

/// What a live drill stands on was checked when it began; here it is written down.
fn workers(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord) -> Finding {
    let agent = &it.agent;
    let capacity = dispatch
        .capacity(&agent.namespace, &agent.agent_id, &drill.to_bundle_id)
        .unwrap_or_default();
    Finding::pass(
        format!("{} workers, {} free slots", capacity.workers, capacity.free_slots),
        json!({
            "workers": capacity.workers, "free_slots": capacity.free_slots,
            "memory_keys_hidden": drill.memory_keys_hidden, "late_writes": drill.late_writes,
        }),
    )
}

async fn make(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord) -> Finding {
    let mut all = vec![switch(it, DRILL_STANDBY), put(it, KEPT, GOOD), switch(it, DRILL_LIVE)];
    all.extend([put(it, KEPT, "bad"), put(it, HIDDEN, "bad")]);
    all.extend(runs(it, drill).into_iter().map(|run_id| {
        Kind::StartRun(StartRun { agent: Some(route(it)), run_id, ..StartRun::default() })
    }));
    let Some(answers) = propose_all(dispatch, all, "drill").await else {
        return Finding::Wait("the route of the drill could not be made yet".to_owned());
    };
    match refused(&answers) {
        None => Finding::Wait("the route of the drill is being made".to_owned()),
        Some(refused) => Finding::fail(
            format!("{}: {}", refused.reason, refused.message),
            json!({ "reason": refused.reason }),
        ),
    }
}

fn switch(it: &Drilled, bundle_id: &str) -> Kind {
    Kind::Switch(Switch {
        agent: Some(route(it)),
        bundle_id: bundle_id.to_owned(),
        // What the policy asks of a release is not what is practised.
        force: true,
        ..Switch::default()
    })
}

/// To the bundle that is live on the route.
fn put(it: &Drilled, key: &str, value: &str) -> Kind {
    let value = Payload { content_type: "text/plain".to_owned(), data: value.to_owned().into() };
    Kind::PutMemory(PutMemory {
        agent: Some(route(it)),
        target: Some(MemoryTarget { target: Some(Target::BundleId(String::new())) }),
        key: key.to_owned(),
        value: Some(value),
        ..PutMemory::default()
    })
}

/// Ids of the runs in flight.
pub(super) fn runs(it: &Drilled, drill: &DrillRecord) -> Vec<String> {
    let hash = id::agent_hash(&it.agent.namespace, &it.route());
    (1..=RUNS).map(|run| format!("{hash}-d{}.run.{run}", drill.number)).collect()
}

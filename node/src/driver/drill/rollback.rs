//! The rollback itself, and the way back. The stopwatch runs from the command to its acknowledgement.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{DrillRecord, Rollback, TurnRoute};
use pinrail_proto::v1::Verdict;
use pinrail_state_machine::query::{DRILL_LIVE, Drilled};
use serde_json::json;
use tokio::time::Instant;

use super::super::Dispatch;
use super::super::propose::propose;
use super::{Finding, good, is_live, live_on_route, route};

pub(super) async fn look(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord) -> Finding {
    match live_on_route(dispatch, it) {
        Err(error) => return Finding::Wait(error),
        // A leader before this one was told so no more.
        Ok(live) if live == good(drill) => {
            return Finding::pass("by an earlier leader", json!({ "to": live }));
        }
        Ok(_) => {}
    }
    let command = if is_live(drill) {
        turn(it, drill, false)
    } else {
        Kind::Rollback(Rollback {
            agent: Some(route(it)),
            from_bundle_id: DRILL_LIVE.to_owned(),
            ..Rollback::default()
        })
    };
    timed(dispatch, command).await
}

/// Back to where the drill began. A route of its own goes with the drill.
pub(super) async fn back(dispatch: &Dispatch, it: &Drilled, drill: &DrillRecord) -> Finding {
    if !is_live(drill) {
        return Finding::pass("its own route goes with it", json!({}));
    }
    timed(dispatch, turn(it, drill, true)).await
}

fn turn(it: &Drilled, drill: &DrillRecord, back: bool) -> Kind {
    Kind::TurnRoute(TurnRoute { agent: it.agent.number, drill: drill.number, back })
}

async fn timed(dispatch: &Dispatch, command: Kind) -> Finding {
    let began = Instant::now();
    let answer = propose(dispatch, command, "drill").await;
    let took = began.elapsed();
    let evidence = match answer {
        None => return Finding::Wait("no acknowledgement yet".to_owned()),
        Some(Answer::Rejection(refused)) => {
            let reason = format!("{}: {}", refused.reason, refused.message);
            return Finding::fail(reason, json!({ "reason": refused.reason }));
        }
        Some(Answer::Rollback(done)) => json!({
            "from": done.from_bundle_id, "to": done.to_bundle_id, "epoch": done.epoch,
            "memory_keys_hidden": done.memory_keys_hidden,
        }),
        Some(_) => json!({}),
    };
    Finding::Done {
        verdict: Verdict::Pass,
        reason: "acknowledged".to_owned(),
        evidence,
        took: Some(took),
    }
}

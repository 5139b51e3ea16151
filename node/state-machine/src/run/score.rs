//! Scores: how good the answer of a run was, as a judge or a person says.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{RunRecord, ScoreRecord, ScoreRun};
use pinrail_proto::v1::{RunKind, ScoreRunResponse, ScoreSource};
use pinrail_proto::{limits, reason};

use crate::agent::policy::too_large;
use crate::event::With as _;
use crate::outcome::{Stop, reject};
use crate::txn::Txn;
use crate::{agent, event, signal};

use super::{Subject, is_over};

/// The best score.
const BEST_PERMILLE: u32 = 1_000;

pub(crate) fn score(txn: &mut Txn<'_>, it: &ScoreRun) -> Result<Answer, Stop> {
    check(it)?;
    let agent = agent::load_by_ref(txn, it.agent.as_ref())?;
    let mut subject = Subject::load(txn, &agent, &it.run_id)?;
    agent::expect_revision(txn, subject.run.revision)?;
    must_be_scorable(&subject.run)?;
    let said = ScoreRecord {
        source: it.source,
        score_permille: it.score_permille,
        comment: it.comment.clone(),
        actor: txn.header.actor.clone(),
        at_ms: txn.now,
    };
    let before = subject.run.scores.iter().find(|score| score.source == it.source);
    let already = before.is_some_and(|before| {
        before.score_permille == said.score_permille && before.comment == said.comment
    });
    if !already {
        let worth = counted(&subject.run);
        put(&mut subject.run, said);
        let now = counted(&subject.run);
        if let Some(now) = now.filter(|_| now != worth) {
            signal::scored(txn, &subject, worth, now)?;
        }
        subject.save(txn)?;
        let Subject { agent, run, .. } = &subject;
        txn.event(
            event::of_run("run.scored", agent, &run.bundle_id, &run.run_id)
                .with("score_permille", it.score_permille)
                .with("source", event::word(it.source().as_str_name(), "SCORE_SOURCE_")),
        );
    }
    Ok(Answer::ScoreRun(ScoreRunResponse {
        run_id: subject.run.run_id.clone(),
        bundle_id: subject.run.bundle_id.clone(),
        already,
        revision: txn.revision,
    }))
}

fn check(it: &ScoreRun) -> Result<(), Stop> {
    if it.score_permille > BEST_PERMILLE {
        let message = format!("a score is 0 to {BEST_PERMILLE} thousandths");
        return Err(reject(reason::INVALID_REQUEST, message).with("score", it.score_permille));
    }
    if it.source() == ScoreSource::Unspecified {
        return Err(reject(
            reason::INVALID_REQUEST,
            "a score says whether a judge or a person gave it",
        ));
    }
    if it.comment.len() > limits::TEXT_BYTES {
        return Err(too_large("comment bytes", it.comment.len(), limits::TEXT_BYTES));
    }
    Ok(())
}

fn must_be_scorable(run: &RunRecord) -> Result<(), Stop> {
    match run.kind() {
        RunKind::Live | RunKind::Canary | RunKind::Shadow => {}
        RunKind::Unspecified | RunKind::Eval | RunKind::Smoke | RunKind::Drill => {
            let message = "only live, canary and shadow runs are scored";
            return Err(reject(reason::INVALID_REQUEST, message));
        }
    }
    if !is_over(run.state()) {
        let message = format!("run {:?} is not over: it has no answer yet", run.run_id);
        return Err(
            reject(reason::INVALID_REQUEST, message).with("state", run.state().as_str_name())
        );
    }
    Ok(())
}

fn put(run: &mut RunRecord, said: ScoreRecord) {
    run.scores.retain(|score| score.source != said.source);
    run.scores.push(said);
    run.scores.sort_by_key(|score| score.source);
}

/// The score that counts, and when it was given: what a person says before what a judge says.
fn counted(run: &RunRecord) -> Option<signal::Scored> {
    let newest = run.scores.iter().max_by_key(|score| score.source);
    newest.map(|score| (score.score_permille, score.at_ms))
}

//! Page tokens and the texts beside them, as anybody can send them: an answer or a refusal, and pages come to an end.

use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query;

use crate::commands::Replica;

/// Nothing that a caller says may look like a store that is broken.
fn answered<T>(answer: Result<T, Stop>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(Stop::Rejected(_)) => None,
        Err(Stop::Fault(fault)) => panic!("{fault}"),
    }
}

pub(crate) fn pages(data: &[u8]) {
    let replica = Replica::formed();
    let text = String::from_utf8_lossy(data);
    // As it is, and as a key that somebody made up.
    for token in [text.as_ref(), &hex::encode(data)] {
        page(&replica, &text, token);
    }
}

fn page(replica: &Replica, text: &str, token: &str) {
    let (read, agent) = (&replica.store, "support");
    answered(query::agents(read, "", 1, token));
    answered(query::bundles(read, "", agent, 1, token));
    answered(query::pins(read, "", agent, "v1", 1, token));
    answered(query::pins(read, "", agent, text, 1, token));
    answered(query::sessions(read, "", agent, 1, token));
    answered(query::session(read, "", agent, text));
    answered(query::releases(read, "", agent, 1, token));
    answered(query::drills(read, "", agent, 1, token, u64::MAX));
    answered(query::eval_sets(read, "", agent, 1, token));
    answered(query::eval_set(read, "", agent, text));
    answered(query::eval_reports(read, "", agent, "v1", 1, token));
    answered(query::steps(read, "", agent, "r", 1, token));
    answered(query::branches(read, "", agent, "r", 1, 1, token));
    answered(query::memory_list(read, "", agent, None, "", 0, false, 1, token));
    answered(query::memory_list(read, "", agent, None, text, 0, false, 1, token));
    answered(query::memory_history(read, "", agent, None, "k", 1, token));
    answered(query::memory_history(read, "", agent, None, text, 1, token));
    answered(query::memory_diff(read, "", agent, &query::MemoryDiff::default(), 1, token));
    answered(query::audit(read, &query::AuditFilter::default(), 1, token));
    answered(query::run(read, "", agent, text));
    let filter = query::RunFilter::default();
    answered(query::runs(read, "", agent, &filter, 1, token));
    let filter = query::RunFilter { bundle_id: text.to_owned(), ..filter };
    answered(query::runs(read, "", agent, &filter, 1, token));
    let all = query::EventFilter { type_: text.to_owned(), ..query::EventFilter::default() };
    answered(query::events(read, &all, 10));
}

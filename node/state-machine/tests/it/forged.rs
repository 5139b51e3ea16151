//! Reads with whatever text somebody sends: an answer or a refusal, never a panic.

use pinrail_proto::v1;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query;

use crate::replica::{Replica, create_agent, create_bundle, switch};

fn reason<T>(answer: Result<T, Stop>) -> String {
    match answer {
        Ok(_) => "ok".to_owned(),
        Err(Stop::Rejected(rejection)) => rejection.reason,
        Err(Stop::Fault(fault)) => panic!("{fault}"),
    }
}

#[test]
fn reads_with_forged_text_are_answered() {
    let mut replica = Replica::formed();
    replica.must(create_agent("support", false));
    replica.must(create_bundle("support", "v1"));
    replica.must(switch("support", "v1"));
    let read = replica.read();
    let long = "x".repeat(1 << 16);
    for text in ["", "\0", "a\0b", "\u{7f}", "äöü", "../..", "zz", "7a7a", long.as_str()] {
        let filter = query::RunFilter { bundle_id: text.to_owned(), ..query::RunFilter::default() };
        let scope = v1::memory_scope::Scope::BundleId(text.to_owned());
        let scope = v1::MemoryScope { scope: Some(scope) };
        let all = query::RunFilter::default();
        for answer in [
            reason(query::run(read, "", text, text)),
            reason(query::run(read, "", "support", text)),
            reason(query::steps(read, "", "support", text, 0, "")),
            reason(query::pin(read, "", "", text)),
            reason(query::result(read, text, text, text)),
            reason(query::explain_run(read, "", "", text, 0)),
            reason(query::agent(read, text, text)),
            reason(query::pins(read, "", "support", text, 0, text)),
            reason(query::runs(read, "", "support", &filter, 0, "")),
            reason(query::runs(read, "", "support", &all, 0, text)),
            reason(query::memory_get(read, "", "support", Some(&scope), text, 0)),
            reason(query::memory_list(read, "", "support", None, text, 0, false, 0, text)),
            reason(query::memory_changes(
                read,
                &query::MemoryFilter {
                    agent_id: "support".to_owned(),
                    scope: Some(scope.clone()),
                    prefix: text.to_owned(),
                    ..query::MemoryFilter::default()
                },
                10,
            )),
            reason(query::memory_diff(
                read,
                "",
                "support",
                &query::MemoryDiff { prefix: text.to_owned(), ..query::MemoryDiff::default() },
                0,
                text,
            )),
            reason(query::eval_set(read, "", "support", text)),
            reason(query::eval_report(read, "", "support", text, text)),
            reason(query::eval_reports(read, "", "support", text, 0, text)),
            reason(query::eval_sets(read, "", "support", 0, text)),
            reason(query::eval_coverage(read, "", "support", text, text)),
            reason(query::memory_history(read, "", "support", None, "key", 0, text)),
        ] {
            let expected = [
                "ok",
                "AGENT_NOT_FOUND",
                "BUNDLE_NOT_FOUND",
                "RUN_NOT_FOUND",
                "EVAL_SET_NOT_FOUND",
                "EVAL_REPORT_NOT_FOUND",
                "NAMESPACE_NOT_FOUND",
                "INVALID_ID",
                "INVALID_REQUEST",
            ];
            assert!(expected.contains(&answer.as_str()), "{text:?}: {answer}");
        }
    }
}

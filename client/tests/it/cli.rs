//! The command line as the binary mounts it: what it sends, and the exit codes of what comes back.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use parking_lot::Mutex;
use pinrail_client::cli::{self, Command, Globals};
use pinrail_client::v1;
use tonic::Code;

use crate::member::{Member, status};

#[derive(Debug, Parser)]
struct Pinrail {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Runs a command line against a member.
async fn run(member: &Member, words: &[&str]) -> String {
    let endpoint = member.address.to_string();
    let everywhere = ["pinrail", "--endpoint", &endpoint, "--timeout", "700ms"];
    let words = everywhere.iter().chain(words);
    let Pinrail { globals, command } = Pinrail::try_parse_from(words).expect("it parses");
    format!("{:?}", cli::run(command, globals).await)
}

fn code(code: u8) -> String {
    format!("{:?}", ExitCode::from(code))
}

#[tokio::test]
async fn a_write_carries_what_its_flags_say_and_always_a_request_id() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&seen);
    let member = Member::switching(move |request| {
        asked.lock().push(request);
        Ok(v1::SwitchResponse::default())
    })
    .await;
    let plain = ["switch", "support", "v2", "-o", "json"];
    assert_eq!(run(&member, &plain).await, code(0));
    let flags = [
        "switch",
        "support",
        "v2",
        "--request-id",
        "q1",
        "--reason",
        "SUP-812",
        "--dry-run",
        "--expect-revision",
        "7",
        "--expect-epoch",
        "3",
        "--force",
        "--namespace",
        "team-a",
    ];
    assert_eq!(run(&member, &flags).await, code(0));
    let seen = seen.lock();
    let (plain, full) = (&seen[0], &seen[1]);
    assert_eq!((plain.namespace.as_str(), plain.bundle_id.as_str()), ("default", "v2"));
    assert_eq!(plain.options.as_ref().expect("options").request_id.len(), 32);
    assert_eq!((full.namespace.as_str(), full.expected_epoch, full.force), ("team-a", 3, true));
    let options = full.options.as_ref().expect("options");
    assert_eq!((options.request_id.as_str(), options.reason.as_str()), ("q1", "SUP-812"));
    assert_eq!((options.expected_revision, options.dry_run), (7, true));
}

#[tokio::test]
async fn refusals_give_the_exit_code_of_their_reason() {
    for (grpc, reason, exit) in [
        (Code::Aborted, "ROUTE_CHANGED", 7),
        (Code::NotFound, "BUNDLE_NOT_FOUND", 1),
        (Code::FailedPrecondition, "BUNDLE_REJECTED", 9),
        (Code::InvalidArgument, "INVALID_ID", 2),
        (Code::Unavailable, "NO_QUORUM", 6),
        (Code::DeadlineExceeded, "OUTCOME_UNKNOWN", 12),
    ] {
        let member = Member::switching(move |_| Err(status(grpc, reason))).await;
        assert_eq!(run(&member, &["switch", "support", "v2"]).await, code(exit), "{reason}");
    }
}

#[tokio::test]
async fn a_write_is_not_local_and_a_question_needs_a_terminal() {
    let member = Member::switching(|_| Ok(v1::SwitchResponse::default())).await;
    assert_eq!(run(&member, &["switch", "support", "v2", "--local"]).await, code(2));
    let delete = ["agent", "delete", "support", "-o", "json"];
    assert_eq!(run(&member, &delete).await, code(2));
}

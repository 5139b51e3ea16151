//! Whole runs of the agent with the files of both bundles, on a real stream; only the cluster's answers are the test's.

use std::path::Path;
use std::sync::Arc;

use pinrail_client::cli::file::bundle;
use pinrail_client::{Worker, payload, v1};
use tokio::sync::oneshot;
use v1::{work_request, work_response};

use crate::agent::{Agent, serve};
use crate::corpus::Library;
use crate::step_log::StepLog;

#[path = "../../tests/it/member.rs"]
#[expect(dead_code, reason = "these tests need a part of it")]
mod member;

use member::{Member, client};

fn manifest(name: &str) -> v1::BundleManifest {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/research").join(name);
    let around = bundle::Surroundings { variable: &|_| None, set: &[] };
    bundle::load(&path, &around).expect("the bundle of the example is valid")
}

struct Run {
    output: serde_json::Value,
    checkpoints: Vec<String>,
    steps: Vec<String>,
    tool_calls: u64,
    log: String,
}

/// One run from its input to its output, every step assigned by the test.
async fn run(file: &str, question: &str) -> Run {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("steps.jsonl");
    let log = StepLog::open(Some(&path), "v", Some("c0de")).expect("a file");
    let agent = Arc::new(Agent { library: Library::embedded(), chat: None, log });
    let mut member = Member::pulled().await;
    let worker = Worker::builder(client(&[&member])).agent("research").bundle("v");
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(serve(worker, &agent).run_until(async {
        drop(stopped.await);
    }));
    let (mut stream, _) = member.welcome_to(manifest(file)).await;

    let input = serde_json::json!({ "question": question });
    let mut assignment = v1::Assignment {
        run_id: "r".into(),
        step: 1,
        name: "plan".into(),
        attempt: 1,
        token: Some(v1::StepToken { incarnation: 1, revision: 1 }),
        bundle_id: "v".into(),
        input: Some(payload::encode(&input).expect("JSON")),
        ..Default::default()
    };
    let (mut checkpoints, mut steps, mut tool_calls) = (Vec::new(), Vec::new(), 0);
    let output = loop {
        steps.push(assignment.name.clone());
        stream.say(0, work_response::Message::Assignment(Box::new(assignment.clone()))).await;
        let (sequence, complete) = loop {
            let (sequence, message) = stream.next().await;
            match message {
                work_request::Message::Checkpoint(it) => {
                    checkpoints.push(it.checkpoint.expect("a checkpoint").name);
                    stream.done(sequence, false).await;
                }
                work_request::Message::Complete(complete) => break (sequence, complete),
                work_request::Message::Credit(_) => {}
                other => panic!("{other:?}"),
            }
        };
        let tools = complete.usage.expect("usage").tools;
        assert!(tools.iter().all(|tool| tool.schema_violations == 0), "{tools:?}");
        tool_calls += tools.iter().map(|tool| tool.calls).sum::<u64>();
        match complete.outcome.expect("an outcome") {
            v1::complete_step::Outcome::Next(next) => {
                stream.done(sequence, false).await;
                assignment.name = next.name;
                assignment.input = next.input;
                assignment.step += 1;
                assignment.token =
                    Some(v1::StepToken { incarnation: 1, revision: assignment.step.into() });
            }
            v1::complete_step::Outcome::Wait(wait) => panic!("it waits for nobody: {wait:?}"),
            other @ (v1::complete_step::Outcome::All(_)
            | v1::complete_step::Outcome::Child(_)
            | v1::complete_step::Outcome::ContinueAsNew(_)) => {
                panic!("it does one thing at a time, alone: {other:?}")
            }
            v1::complete_step::Outcome::Done(output) => {
                stream.done(sequence, true).await;
                break output;
            }
        }
    };
    drop(stop);
    ended.await.expect("no panic").expect("the worker ends well");
    let output = payload::decode(Some(&output)).expect("JSON");
    let log = std::fs::read_to_string(&path).expect("the log is there");
    Run { output, checkpoints, steps, tool_calls, log }
}

#[tokio::test]
async fn the_answers_of_both_bundles_show_what_differs() {
    let question = "Why must a failed fsync not be retried?";
    let (old, new) = (run("bundle-v1.toml", question).await, run("bundle-v2.toml", question).await);
    for run in [&old, &new] {
        assert_eq!(run.steps, ["plan", "retrieve", "read", "answer"]);
        assert_eq!(run.tool_calls, 1);
        assert_eq!(run.checkpoints[..3], ["queries", "tool:search", "read"]);
        assert_eq!(run.checkpoints.last().map(String::as_str), Some("reply"));
        assert!(run.output["answer"].as_str().expect("text").contains("fsync"), "{}", run.output);
    }
    assert_eq!(
        (&old.output["search_tool"], &old.output["index"]),
        (&"1".into(), &"1-paragraphs".into())
    );
    assert_eq!(
        (&new.output["search_tool"], &new.output["index"]),
        (&"2".into(), &"2-windows".into())
    );
    assert!(!old.output["answer"].as_str().expect("text").contains('['));
    assert!(new.output["answer"].as_str().expect("text").contains("[write-ahead-log]"));
    assert_eq!(old.output["sources"], serde_json::json!([]));
    assert!(new.output["sources"].to_string().contains("write-ahead-log"));
}

#[tokio::test]
async fn every_step_that_is_executed_leaves_a_line_with_the_own_code() {
    let run = run("bundle-v1.toml", "What is a lease?").await;
    let lines: Vec<serde_json::Value> =
        run.log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let steps: Vec<_> = lines.iter().map(|line| line["step"].as_str().expect("a name")).collect();
    assert_eq!(steps, run.steps);
    assert!(lines.iter().all(|line| line["code"] == "c0de" && line["run"] == "r"));
}

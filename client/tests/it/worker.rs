//! The worker's stream: what it does when answers are lost, leases are lost, and the end comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pinrail_client::worker::{
    CancelReason, Next, StepContext, StepError, StepResult, Wait, WorkerBuilder,
};
use pinrail_client::{Error, Worker, payload, v1};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};
use v1::{work_request, work_response};

use crate::member::{Member, SOON, WorkerStream, client, learning};

struct Started {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<pinrail_client::Result<()>>,
}

fn start(worker: WorkerBuilder) -> Started {
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(worker.run_until(async {
        // Dropping the sender stops it too.
        drop(stopped.await);
    }));
    Started { stop, ended }
}

impl Started {
    async fn stop(self) {
        drop(self.stop);
        ends_well(self.ended).await;
    }
}

async fn ends_well(ended: JoinHandle<pinrail_client::Result<()>>) {
    let ended = timeout(SOON, ended).await.expect("it ends");
    ended.expect("it does not panic").expect("it ends well");
}

fn worker(member: &Member) -> WorkerBuilder {
    Worker::builder(client(&[member])).agent("a").bundle("v1").worker_id("w").slots(2)
}

fn assignment(token: u64, name: &str, input: &str) -> v1::Assignment {
    v1::Assignment {
        run_id: "r".into(),
        step: 1,
        name: name.into(),
        attempt: 1,
        token: Some(v1::StepToken { incarnation: 1, revision: token }),
        bundle_id: "v1".into(),
        kind: v1::RunKind::Live.into(),
        input: Some(payload::encode(input).expect("text encodes")),
        ..Default::default()
    }
}

async fn assign(stream: &mut WorkerStream, assignment: v1::Assignment) {
    stream.say(0, work_response::Message::Assignment(Box::new(assignment))).await;
}

async fn expect_credit(stream: &mut WorkerStream, slots: u32) {
    let (_, message) = stream.next().await;
    assert_eq!(message, work_request::Message::Credit(v1::Credit { slots }));
}

async fn expect_complete(stream: &mut WorkerStream) -> (u64, v1::CompleteStep) {
    let (sequence, message) = stream.next().await;
    let work_request::Message::Complete(complete) = message else { panic!("{message:?}") };
    (sequence, complete)
}

/// Waits until the worker says that it holds a step, and once more: by then its handler runs.
async fn runs(stream: &mut WorkerStream) {
    let mut said = 0;
    while said < 2 {
        if let (_, work_request::Message::Heartbeat(beat)) = stream.next_of_all().await {
            said += beat.held.len();
        }
    }
}

fn output(complete: &v1::CompleteStep) -> String {
    match &complete.outcome {
        Some(v1::complete_step::Outcome::Done(output)) => {
            payload::decode(Some(output)).expect("the output is text")
        }
        other => panic!("{other:?}"),
    }
}

async fn echo(_: StepContext, input: String) -> StepResult<Next> {
    Ok(Next::done(input))
}

#[tokio::test]
async fn a_worker_goes_to_the_leader_and_not_to_the_member_that_it_was_told_of() {
    let mut leader = Member::pulled().await;
    let mut seed = Member::pulled().await;
    seed.status.lock().leader_grpc_address = leader.address.to_string();
    let worker = Worker::builder(learning(&seed)).agent("a").bundle("v1");
    let echo = |_: StepContext, input: String| async { Ok(Next::done(input)) };
    let started = start(worker.step("main", echo));
    leader.welcome().await;
    assert!(!seed.was_greeted(), "it passes everything on");
    started.stop().await;
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_is_sent_again_on_the_next_stream() {
    let mut member = Member::pulled().await;
    let worker = start(worker(&member).step("main", echo));
    let (mut stream, hello) = member.welcome().await;
    assert_eq!((hello.slots, hello.steps, hello.held.len()), (2, vec!["main".to_owned()], 0));
    expect_credit(&mut stream, 2).await;
    assign(&mut stream, assignment(7, "main", "hi")).await;
    let (first, complete) = expect_complete(&mut stream).await;
    assert_eq!(output(&complete), "hi");
    drop(stream);

    let (mut stream, hello) = member.welcome().await;
    assert_eq!(hello.worker_id, "w");
    assert_eq!(hello.held.len(), 1, "the lease is held until the cluster says otherwise");
    let (again, complete) = expect_complete(&mut stream).await;
    assert_eq!((again, complete.token.map(|token| token.revision)), (first, Some(7)));
    expect_credit(&mut stream, 1).await;
    stream.done(again, true).await;
    expect_credit(&mut stream, 1).await;
    worker.stop().await;
    assert!(stream.ends().await);
}

#[tokio::test]
async fn a_next_step_is_asked_for_without_a_new_credit() {
    async fn first(_: StepContext, input: String) -> StepResult<Next> {
        Ok(Next::step("main", input))
    }
    let mut member = Member::pulled().await;
    let worker = start(worker(&member).slots(1).step("first", first).step("main", echo));
    let (mut stream, _) = member.welcome().await;
    expect_credit(&mut stream, 1).await;
    assign(&mut stream, assignment(7, "first", "hi")).await;
    let (sequence, complete) = expect_complete(&mut stream).await;
    assert!(complete.lease_next);
    stream.done(sequence, false).await;
    assign(&mut stream, v1::Assignment { step: 2, ..assignment(8, "main", "hi") }).await;
    let (sequence, complete) = expect_complete(&mut stream).await;
    assert!(!complete.lease_next, "the run is done");
    stream.done(sequence, true).await;
    expect_credit(&mut stream, 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn checkpoints_and_tools_are_recorded_once_and_come_back_in_the_next_attempt() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let work = move |ctx: StepContext, _: String| {
        let count = Arc::clone(&count);
        async move {
            let one: u32 = ctx
                .checkpoint("n", async || StepResult::Ok(count.fetch_add(1, Ordering::Relaxed)))
                .await?;
            let two: u32 = ctx
                .tool("look")
                .call(serde_json::json!({"q": "x"}), async |_, key: String| {
                    assert_eq!(key.len(), 32);
                    StepResult::Ok(count.fetch_add(1, Ordering::Relaxed) + 40)
                })
                .await?;
            Ok(Next::done(format!("{one} {two} {}", ctx.attempt())))
        }
    };
    let mut member = Member::pulled().await;
    let worker = start(worker(&member).step("main", work));
    let (mut stream, _) = member.welcome().await;
    expect_credit(&mut stream, 2).await;
    assign(&mut stream, assignment(7, "main", "")).await;
    let mut recorded = Vec::new();
    for name in ["n", "tool:look"] {
        let (sequence, message) = stream.next().await;
        let work_request::Message::Checkpoint(record) = message else { panic!("{message:?}") };
        let checkpoint = record.checkpoint.expect("a checkpoint");
        assert_eq!((checkpoint.name.as_str(), checkpoint.order as usize), (name, recorded.len()));
        recorded.push(checkpoint);
        stream.done(sequence, false).await;
    }
    let (sequence, complete) = expect_complete(&mut stream).await;
    assert_eq!(output(&complete), "0 41 1");
    let tools = complete.usage.expect("usage").tools;
    assert_eq!((tools[0].calls, tools[0].side_effects.as_str()), (1, "read_only"));
    // As if the completion had been refused and another attempt were made.
    stream.done(sequence, false).await;
    let retry = v1::Assignment { attempt: 2, checkpoints: recorded, ..assignment(8, "main", "") };
    assign(&mut stream, retry).await;
    expect_credit(&mut stream, 1).await;
    let (sequence, complete) = expect_complete(&mut stream).await;
    assert_eq!(output(&complete), "0 41 2");
    assert_eq!(calls.load(Ordering::Relaxed), 2, "nothing was done again");
    stream.done(sequence, true).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_step_whose_lease_is_lost_is_dropped_and_its_result_too() {
    struct Dropped(Option<oneshot::Sender<()>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            if let Some(told) = self.0.take() {
                told.send(()).expect("the test waits for it");
            }
        }
    }
    let (told, dropped) = oneshot::channel();
    let told = Arc::new(parking_lot::Mutex::new(Some(told)));
    let hang = move |_: StepContext, _: String| {
        let guard = Dropped(told.lock().take());
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok(Next::done(()))
        }
    };
    let mut member = Member::pulled().await;
    let worker = start(worker(&member).step("main", hang));
    let (mut stream, _) = member.welcome().await;
    expect_credit(&mut stream, 2).await;
    assign(&mut stream, assignment(7, "main", "")).await;
    runs(&mut stream).await;
    let lost = v1::CancelStep {
        token: Some(v1::StepToken { incarnation: 1, revision: 7 }),
        lease_lost: true,
        ..Default::default()
    };
    stream.say(0, work_response::Message::Cancel(lost)).await;
    timeout(SOON, dropped).await.expect("soon").expect("it is dropped");
    expect_credit(&mut stream, 1).await;
    worker.stop().await;
    assert!(stream.ends().await, "nothing was reported");
}

#[tokio::test]
async fn a_cancelled_step_is_told_and_dropped_when_its_grace_is_over() {
    async fn listens(ctx: StepContext, _: String) -> StepResult<Next> {
        let reason = ctx.cancelled().await;
        assert_eq!(reason, CancelReason::MaxAge);
        Err(StepError::fatal("STOPPED", "as asked"))
    }
    async fn hangs(_: StepContext, _: String) -> StepResult<Next> {
        std::future::pending().await
    }
    let mut member = Member::pulled().await;
    let worker = start(worker(&member).step("listens", listens).step("hangs", hangs));
    let (mut stream, _) = member.welcome().await;
    expect_credit(&mut stream, 2).await;
    for (token, name, reason) in [(7, "listens", "STOPPED"), (8, "hangs", "CANCELLED")] {
        assign(&mut stream, assignment(token, name, "")).await;
        let cancel = v1::CancelStep {
            token: Some(v1::StepToken { incarnation: 1, revision: token }),
            reason: v1::EndReason::MaxAge.into(),
            grace: Some(pinrail_proto::time::duration(100)),
            ..Default::default()
        };
        stream.say(0, work_response::Message::Cancel(cancel)).await;
        let (sequence, message) = stream.next().await;
        let work_request::Message::Fail(fail) = message else { panic!("{message:?}") };
        let failure = fail.failure.expect("a failure");
        assert_eq!((failure.reason.as_str(), failure.non_retryable), (reason, true));
        stream.done(sequence, true).await;
        expect_credit(&mut stream, 1).await;
    }
    worker.stop().await;
}

#[tokio::test]
async fn what_is_not_finished_in_the_grace_of_a_shutdown_is_handed_back() {
    async fn hangs(_: StepContext, _: String) -> StepResult<Next> {
        std::future::pending().await
    }
    let mut member = Member::pulled().await;
    let grace = Duration::from_millis(100);
    let worker = start(worker(&member).shutdown_grace(grace).step("main", hangs));
    let (mut stream, _) = member.welcome().await;
    expect_credit(&mut stream, 2).await;
    assign(&mut stream, assignment(7, "main", "")).await;
    runs(&mut stream).await;
    drop(worker.stop);
    let (sequence, message) = stream.next().await;
    let work_request::Message::HandBack(back) = message else { panic!("{message:?}") };
    assert_eq!(back.token.map(|token| token.revision), Some(7));
    // What comes now is handed back at once.
    assign(&mut stream, assignment(8, "main", "")).await;
    let (next, message) = stream.next().await;
    assert!(matches!(message, work_request::Message::HandBack(_)), "{message:?}");
    stream.done(sequence, false).await;
    stream.done(next, false).await;
    ends_well(worker.ended).await;
}

#[tokio::test]
async fn tools_with_side_effects_are_not_called_in_runs_that_serve_no_user() {
    async fn wipes(ctx: StepContext, _: String) -> StepResult<Next> {
        let call = ctx.tool("wipe").call(serde_json::json!({"q": "all"}), async |_, _| {
            Err::<u32, _>(StepError::fatal("CALLED", "it must not be called"))
        });
        let gone: u32 = call.await?;
        Ok(Next::done(gone))
    }
    async fn wrong(ctx: StepContext, _: String) -> StepResult<Next> {
        let arguments = serde_json::json!({"q": 1});
        let found: u32 = ctx.tool("look").call(arguments, async |_, _| StepResult::Ok(1)).await?;
        Ok(Next::done(found))
    }
    async fn starts(ctx: StepContext, _: String) -> StepResult<Next> {
        Ok(Next::done(ctx.start_run("billing", "an invoice").await?))
    }
    async fn sends(ctx: StepContext, _: String) -> StepResult<Next> {
        let called = async |_, _| Err::<u32, _>(StepError::fatal("CALLED", "it has a stub"));
        let sent: u32 = ctx.tool("send").call(serde_json::json!({"q": "all"}), called).await?;
        let looked = async |_, _| StepResult::Ok(1);
        let found: u32 = ctx.tool("look").call(serde_json::json!({"q": "x"}), looked).await?;
        Ok(Next::done((sent + found).to_string()))
    }
    let mut member = Member::pulled().await;
    let worker = worker(&member).step("wipes", wipes).step("wrong", wrong);
    let worker = start(worker.step("starts", starts).step("sends", sends));
    let (mut stream, _) = member.welcome().await;
    expect_credit(&mut stream, 2).await;
    let of = |token, name, kind: v1::RunKind| v1::Assignment {
        suppress_side_effects: kind.suppresses_effects(),
        kind: kind.into(),
        ..assignment(token, name, "")
    };
    for (token, name, kind, expected, final_) in [
        (7, "wipes", v1::RunKind::Shadow, "TOOL_SUPPRESSED", true),
        (8, "wrong", v1::RunKind::Shadow, "TOOL_ARGUMENTS", false),
        (9, "starts", v1::RunKind::Shadow, "TOOL_SUPPRESSED", true),
        (10, "starts", v1::RunKind::Smoke, "TOOL_SUPPRESSED", true),
        (11, "wipes", v1::RunKind::Eval, "CALLED", true),
    ] {
        let shadow = of(token, name, kind);
        assign(&mut stream, shadow).await;
        let (sequence, message) = stream.next().await;
        let work_request::Message::Fail(fail) = message else { panic!("{message:?}") };
        let failure = fail.failure.expect("a failure");
        assert_eq!((failure.reason.as_str(), failure.non_retryable), (expected, final_));
        stream.done(sequence, false).await;
        expect_credit(&mut stream, 1).await;
    }
    // A stub answers in the tool's place, and is recorded as its reply would be; what only reads is called.
    assign(&mut stream, of(12, "sends", v1::RunKind::Drill)).await;
    for (name, reply) in [("tool:send", "4"), ("tool:look", "1")] {
        let (sequence, message) = stream.next().await;
        let work_request::Message::Checkpoint(it) = message else { panic!("{message:?}") };
        let it = it.checkpoint.expect("a checkpoint");
        assert_eq!((it.name.as_str(), &*it.value.expect("a reply").data), (name, reply.as_bytes()));
        stream.done(sequence, false).await;
    }
    let (sequence, complete) = expect_complete(&mut stream).await;
    assert_eq!(output(&complete), "5");
    let tools = complete.usage.unwrap_or_default().tools;
    assert_eq!(tools.iter().map(|used| used.tool.as_str()).collect::<Vec<_>>(), ["look"]);
    stream.done(sequence, true).await;
    expect_credit(&mut stream, 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_the_cluster_refuses_ends_with_the_reason() {
    let mut member = Member::pulled().await;
    let worker = tokio::spawn(worker(&member).step("main", echo).run());
    let mut stream = member.greeted().await;
    let refused = v1::Refused {
        code: 9,
        reason: "BUNDLE_MISMATCH".into(),
        message: "other code".into(),
        ..Default::default()
    };
    stream.next().await;
    stream.say(0, work_response::Message::Refused(refused)).await;
    let error = timeout(SOON, worker).await.expect("soon").expect("no panic").expect_err("refused");
    assert!(matches!(&error, Error::Rejected { reason, .. } if reason == "BUNDLE_MISMATCH"));
}

#[tokio::test]
async fn a_drained_worker_finishes_what_it_holds_and_ends() {
    let mut member = Member::pulled().await;
    let worker = start(worker(&member).step("main", echo));
    let (mut stream, _) = member.welcome().await;
    expect_credit(&mut stream, 2).await;
    assign(&mut stream, assignment(7, "main", "hi")).await;
    stream.say(0, work_response::Message::Drain(v1::DrainNotice {})).await;
    let (sequence, complete) = expect_complete(&mut stream).await;
    assert_eq!(output(&complete), "hi");
    stream.done(sequence, true).await;
    ends_well(worker.ended).await;
}

#[tokio::test]
async fn a_wait_is_reported_without_asking_for_more_and_its_end_is_told() {
    async fn ask(_: StepContext, input: String) -> StepResult<Next> {
        Ok(Next::wait("approved").timeout(Duration::from_secs(90)).then("resume", input))
    }
    async fn resume(ctx: StepContext, input: String) -> StepResult<Next> {
        Ok(Next::done(match ctx.woken::<String>()? {
            Some(Wait::Signal(value)) => format!("{input}: {value}"),
            Some(Wait::TimedOut) => format!("{input}: nobody came"),
            None => "it did not wait".to_owned(),
        }))
    }
    let mut member = Member::pulled().await;
    let worker = start(worker(&member).slots(1).step("ask", ask).step("resume", resume));
    let (mut stream, _) = member.welcome().await;
    expect_credit(&mut stream, 1).await;
    assign(&mut stream, assignment(7, "ask", "draft")).await;
    let (sequence, complete) = expect_complete(&mut stream).await;
    assert!(!complete.lease_next);
    let Some(v1::complete_step::Outcome::Wait(wait)) = complete.outcome else { panic!("no wait") };
    assert_eq!((wait.signal.as_str(), wait.timeout.map(|it| it.seconds)), ("approved", Some(90)));
    assert_eq!(wait.then.expect("it goes on").name, "resume");
    stream.done(sequence, false).await;
    // The slot is free while the run waits.
    expect_credit(&mut stream, 1).await;
    let value = Some(payload::encode("yes").expect("text encodes"));
    let none = v1::Woken::default();
    let signal = v1::Woken { signal: "approved".into(), value, child: None };
    let ends = [
        (Some(signal), "draft: yes"),
        (Some(none), "draft: nobody came"),
        (None, "it did not wait"),
    ];
    for (token, (woken, told)) in (8..).zip(ends) {
        assign(&mut stream, v1::Assignment { woken, ..assignment(token, "resume", "draft") }).await;
        let (sequence, complete) = expect_complete(&mut stream).await;
        assert_eq!(output(&complete), told);
        stream.done(sequence, true).await;
        expect_credit(&mut stream, 1).await;
    }
    worker.stop().await;
}

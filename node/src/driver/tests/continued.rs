//! A worker goes on with the run that continues the one whose last step it completed.

use super::*;

fn continues(of: &v1::Assignment) -> Request {
    let outcome = v1::complete_step::Outcome::ContinueAsNew(v1::ContinueRun::default());
    let Request::Complete(complete) = complete(of, None) else { panic!("not a completion") };
    Request::Complete(v1::CompleteStep { outcome: Some(outcome), lease_next: true, ..complete })
}

#[tokio::test]
async fn a_run_that_continues_stays_with_its_worker_in_one_command() {
    let node = node().await;
    let mut worker = node.worker("w", "v1", 1).await;
    node.start("r", 0).await;
    let mut step = assignment(&mut worker).await;
    for next in ["r+1", "r+2"] {
        let before = node.revision();
        say(&worker, 7, continues(&step)).await;
        let done = done(&mut worker).await;
        assert_eq!((done.closed, done.continued_as.as_str()), (true, next));
        let first = assignment(&mut worker).await;
        assert_eq!((first.run_id.as_str(), first.step, first.attempt), (next, 1, 1));
        assert_eq!(first.token.expect("it has one").revision, done.revision);
        assert_eq!((done.revision, node.revision()), (before + 1, before + 1), "one command");
        let slots = Slots { workers: 1, slots: 1, free: 0 };
        assert_eq!(node.dispatch.slots(1, "v1"), Some(slots), "no credit was given back");
        // It did not hear that: it is told again, and keeps the lease that it has.
        say(&worker, 8, continues(&step)).await;
        let again = self::done(&mut worker).await;
        assert_eq!((again.closed, again.continued_as.as_str()), (true, next));
        assert_eq!(assignment(&mut worker).await.token, first.token);
        step = first;
    }
    say(&worker, 9, complete(&step, None)).await;
    let last = done(&mut worker).await;
    assert_eq!((last.closed, last.continued_as.as_str()), (true, ""));
    assert_eq!(node.state("r+2"), v1::RunState::Completed);
}

#[tokio::test]
async fn a_run_that_begins_with_what_its_worker_does_not_take_goes_to_another() {
    let node = node().await;
    let serves = |worker, step: &str| v1::WorkerHello {
        steps: vec![step.to_owned()],
        ..hello(worker, "v1", 1)
    };
    let mut first = node.open(&serves("first", "main")).await;
    let mut second = node.open(&serves("second", "second")).await;
    node.start("r", 0).await;
    let step = assignment(&mut first).await;
    let Request::Complete(goes_on) = complete(&step, Some("second")) else { panic!("not one") };
    let lets_go = v1::CompleteStep { lease_next: false, ..goes_on };
    say(&first, 1, Request::Complete(lets_go)).await;
    done(&mut first).await;
    say(&first, 0, Request::Credit(v1::Credit { slots: 1 })).await;
    let step = assignment(&mut second).await;
    say(&second, 1, continues(&step)).await;
    assert_eq!(done(&mut second).await.continued_as, "");
    assert_eq!(assignment(&mut first).await.run_id, "r+1");
}

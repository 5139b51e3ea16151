//! Calls: what is repeated, what is not, and what is said when nobody knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use pinrail_client::{Error, v1};
use tokio::time::{Duration, Instant};
use tonic::{Code, Status};

use crate::member::{Member, SOON, client, client_of, learning, status};

fn switch(to: &str) -> v1::SwitchRequest {
    v1::SwitchRequest { agent_id: "a".into(), bundle_id: to.into(), ..Default::default() }
}

fn switched(request: &v1::SwitchRequest) -> v1::SwitchResponse {
    v1::SwitchResponse { to_bundle_id: request.bundle_id.clone(), epoch: 2, ..Default::default() }
}

#[tokio::test]
async fn a_member_that_is_down_is_passed_over() {
    let up = Member::switching(|request| Ok(switched(&request))).await;
    let down = Member::switching(|_| Err(Status::internal("never asked"))).await;
    let client = client(&[&down, &up]);
    drop(down);
    // The port is closed a moment after the task was told to end.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = client.releases().switch(switch("v2")).await.expect("the other member answers");
    assert_eq!(answer.to_bundle_id, "v2");
}

#[tokio::test]
async fn a_write_of_unknown_fate_is_asked_again_with_the_same_request_id() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ids);
    let member = Member::switching(move |request| {
        let mut seen = seen.lock();
        seen.push(request.options.clone().unwrap_or_default().request_id);
        match seen.len() {
            1 => Err(status(Code::DeadlineExceeded, "OUTCOME_UNKNOWN")),
            2 => Err(Status::unavailable("connection reset")),
            _ => Ok(switched(&request)),
        }
    })
    .await;
    client(&[&member]).releases().switch(switch("v2")).await.expect("the third time it answers");
    let ids = ids.lock();
    assert_eq!(ids.len(), 3);
    assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn a_refusal_is_passed_on_at_once() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let member = Member::switching(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Err(status(Code::Aborted, "ROUTE_CHANGED"))
    })
    .await;
    let error = client(&[&member]).releases().switch(switch("v2")).await.expect_err("refused");
    assert!(error.is_rejected_with(&pinrail_proto::reason::ROUTE_CHANGED), "{error:?}");
    assert!(matches!(error, Error::Rejected { revision: 5, .. }), "{error:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn without_a_leader_it_asks_until_the_time_is_over_and_says_that_nothing_was_written() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let member = Member::switching(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Err(status(Code::Unavailable, "NO_LEADER"))
    })
    .await;
    let client = client(&[&member]).with_timeout(Duration::from_millis(600));
    let error = client.releases().switch(switch("v2")).await.expect_err("there is no leader");
    assert!(matches!(&error, Error::Unavailable { reason, .. } if reason == "NO_LEADER"));
    assert!(asked.load(Ordering::Relaxed) > 2);
}

#[tokio::test]
async fn once_unknown_stays_unknown_when_the_leader_is_gone_afterwards() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let member = Member::switching(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Err(status(Code::DeadlineExceeded, "OUTCOME_UNKNOWN")),
        _ => Err(status(Code::Unavailable, "NO_LEADER")),
    })
    .await;
    let client = client(&[&member]).with_timeout(Duration::from_millis(400));
    let mut request = switch("v2");
    request.options = Some(v1::WriteOptions { request_id: "mine".into(), ..Default::default() });
    let error = client.releases().switch(request).await.expect_err("nobody knows");
    assert!(
        matches!(&error, Error::Unknown { request_id, .. } if request_id == "mine"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_member_that_stands_still_makes_a_write_unknown_and_not_refused() {
    let member = Member::pulled().await;
    let client = client(&[&member]).with_timeout(Duration::from_millis(300));
    let began = Instant::now();
    let request = v1::RollbackRequest { agent_id: "a".into(), ..Default::default() };
    let error = client.releases().rollback(request).await.expect_err("it never answers");
    assert!(
        matches!(&error, Error::Unknown { request_id, .. } if !request_id.is_empty()),
        "{error:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// A process that was stopped: the kernel takes connections for it, and nobody answers.
fn frozen() -> (std::net::TcpListener, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

#[tokio::test]
async fn a_member_that_stands_still_leaves_time_for_the_others() {
    let ((_still, first), (_stands, second)) = (frozen(), frozen());
    let up = Member::switching(|request| Ok(switched(&request))).await;
    let client = client_of([first, second, up.address]).with_timeout(Duration::from_millis(2_500));
    let answer = client.releases().switch(switch("v2")).await.expect("the third one answers");
    assert_eq!(answer.to_bundle_id, "v2");
}

#[tokio::test]
async fn what_a_member_said_of_the_cluster_outlives_the_silence_of_another() {
    let (_still, address) = frozen();
    let up = Member::pulled().await;
    for order in [[address, up.address], [up.address, address]] {
        let client = client_of(order).with_timeout(Duration::from_millis(1_500));
        let request = v1::ListWorkersRequest { agent_id: "a".into(), ..Default::default() };
        let error = client.workers().list(request).await.expect_err("there is no leader");
        assert_eq!(error.reason(), "NO_LEADER", "{error:?}");
    }
}

#[tokio::test]
async fn a_call_that_must_not_be_repeated_is_not() {
    let member = Member::pulled().await;
    let request = v1::AddMemberRequest { name: "n4".into(), ..Default::default() };
    let error = client(&[&member]).cluster().add_member(request).await.expect_err("it broke");
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
}

/// Members that have just come together pass writes on before they know where the others are called.
#[tokio::test]
async fn a_leader_that_nobody_could_name_is_asked_for_again_while_calls_are_answered() {
    let seed = Member::switching(|request| Ok(switched(&request))).await;
    let leader = Member::switching(|request| Ok(switched(&request))).await;
    let client = learning(&seed);
    let switches = client.releases();
    switches.switch(switch("v2")).await.expect("it is passed on");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.connection().leader(), None);
    seed.status.lock().leader_grpc_address = leader.address.to_string();
    let deadline = Instant::now() + SOON;
    while client.connection().leader() != Some(leader.address.to_string()) {
        assert!(Instant::now() < deadline, "it goes on without its leader");
        switches.switch(switch("v2")).await.expect("it is passed on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn members_and_leader_are_learned_from_the_first_that_answers() {
    let leader = Member::switching(|request| Ok(switched(&request))).await;
    let known = v1::GetClusterStatusResponse {
        leader_grpc_address: leader.address.to_string(),
        members: vec![v1::Member {
            grpc_address: leader.address.to_string(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let follower = Arc::new(|_| Err(status(Code::Unavailable, "NO_LEADER")));
    let seed = Member::start(follower, known).await;
    let client = learning(&seed);
    let answer = client.releases().switch(switch("v2")).await.expect("the leader is found");
    assert_eq!(answer.to_bundle_id, "v2");
    assert_eq!(client.connection().leader(), Some(leader.address.to_string()));
}

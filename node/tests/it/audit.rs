//! The audit over whole nodes: every member has the same chain, whoever leads.

use pinrail_client::{Client, v1};

use crate::nodes::{Nodes, agent, start, switch_to};

async fn list(client: &Client, request: v1::ListAuditRequest) -> v1::ListAuditResponse {
    client.audit().list(request).await.expect("it is read")
}

#[tokio::test]
async fn who_did_what_is_the_same_at_every_member_and_under_the_next_leader() {
    let mut nodes = Nodes::start(3).await;
    let client = nodes.client();
    agent(&client).await;
    start(&client, "r").await;
    let leader = nodes.leader().await;
    nodes.stop(leader).await;
    nodes.leader().await;
    let refused = v1::SwitchRequest {
        agent_id: "support".into(),
        bundle_id: "v9".into(),
        ..Default::default()
    };
    client.releases().switch(refused).await.expect_err("there is no such bundle");
    switch_to(&client, "v2").await;

    let of_agent = v1::ListAuditRequest { agent_id: "support".into(), ..Default::default() };
    let all = list(&client, of_agent.clone()).await.entries;
    let actions: Vec<&str> = all.iter().map(|it| it.action.as_str()).collect();
    // What applications do, and what was refused, is no action.
    assert_eq!(actions, ["switch", "bundle create", "switch", "bundle create", "agent create"]);
    let switch = &all[0];
    assert_eq!((switch.bundle_id.as_str(), switch.reason.as_str()), ("v2", "test"));
    assert_eq!((switch.before["live"].as_str(), switch.after["live"].as_str()), ("v1", "v2"));
    assert_eq!(switch.details["force"], "true");

    // Page after page, and by action.
    let page = v1::ListAuditRequest { page_size: 2, ..of_agent.clone() };
    let first = list(&client, page.clone()).await;
    let rest = v1::ListAuditRequest { page_token: first.next_page_token.clone(), ..page };
    let second = list(&client, rest).await;
    let paged: Vec<u64> =
        first.entries.iter().chain(&second.entries).map(|it| it.sequence).collect();
    assert_eq!(paged, all.iter().take(4).map(|it| it.sequence).collect::<Vec<_>>());
    let by_action = v1::ListAuditRequest { action: "switch".into(), ..of_agent.clone() };
    assert_eq!(list(&client, by_action).await.entries.len(), 2);

    let newest = &all[0];
    for (index, _) in nodes.live() {
        let member = nodes.client_of(index);
        assert_eq!(list(&member, of_agent.clone()).await.entries, all, "asked at n{index}");
        let local = v1::ReadOptions {
            consistency: v1::Consistency::Local.into(),
            min_revision: newest.revision,
        };
        let request = v1::VerifyAuditRequest {
            read: Some(local),
            expect_sequence: newest.sequence,
            expect_hash: newest.hash.clone(),
            ..Default::default()
        };
        let check = member.audit().verify(request.clone()).await.expect("it is computed");
        assert_eq!((check.broken_sequence, check.last_sequence), (None, newest.sequence));
        assert_eq!(check.hash, newest.hash);
        let other = v1::VerifyAuditRequest { expect_hash: "00".repeat(32), ..request };
        let check = member.audit().verify(other).await.expect("it is computed");
        assert_eq!(check.broken_sequence, Some(newest.sequence), "{}", check.problem);
    }
    nodes.stop_all().await;
}
